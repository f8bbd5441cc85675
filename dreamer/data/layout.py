"""The layout of a dataset file, and how one is opened (docs/reference/data_format.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from dreamer.errors import DatasetError, UserError, did_you_mean

FORMAT = "episodes"
FORMAT_VERSION = 1
CHUNK_FRAMES = 16  # compresses nearly as well as whole episodes and reads short windows 3x faster
ATTRIBUTES = {
    "format": "text",
    "format_version": "a whole number",
    "task": "text",
    "cameras": "a list of text",
    "action_repeat": "a whole number",
    "environment": "text",
    "policies": "a list of text",
    "versions": "text",
}
ARRAYS = {  # name -> (number of axes, dtype kinds, dtype written)
    "actions": (2, "f", np.float32),
    "rewards": (1, "f", np.float32),
    "costs": (1, "f", np.float32),
    "terminals": (1, "b", np.bool_),
    "timeouts": (1, "b", np.bool_),
    "episode_starts": (1, "iu", np.int64),
    "episode_policies": (1, "iu", np.int64),
    "episode_seeds": (1, "iu", np.int64),
}
VECTORS = "vectors"  # group of the vectors, and attribute with their names; may be missing
PER_EPISODE = ("episode_starts", "episode_policies", "episode_seeds")


@contextmanager
def open_dataset(path: str | Path) -> Iterator[h5py.File]:
    """An open file for reading; one that is missing is a `UserError`, damaged a `DatasetError`."""
    file = open_file(path)
    try:
        yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # HDF5 says damage in all ways
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read, it seems damaged ({reason})") from error
    finally:
        file.close()


def open_file(path: str | Path) -> h5py.File:
    """As `open_dataset`, for a caller that keeps the file open and closes it.

    HDF5's cache of decoded chunks is off: windows at random places would find nothing in it.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"no dataset file {path}{did_you_mean(path.name, siblings)}")
    try:
        return h5py.File(path, "r", rdcc_nbytes=0)
    except OSError as error:
        reason = "it is truncated" if "truncated" in str(error) else "truncated or another format?"
        raise DatasetError(f"{path} is not a readable HDF5 dataset ({reason})") from error


def text(value: str | bytes) -> str:
    """An HDF5 string attribute, whichever of its two kinds it is."""
    return value.decode() if isinstance(value, bytes) else str(value)


def vector_names(file: h5py.File) -> list[str]:
    """The vectors of the observations; none in a file of images alone."""
    return [text(name) for name in file.attrs.get(VECTORS, [])]
