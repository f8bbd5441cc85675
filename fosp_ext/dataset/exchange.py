"""Shared parts of the conversions: what a foreign file shows, what the user says, new files."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.errors import DatasetError, UserError
from dreamer.outputs import refuse_existing
from fosp_ext.dataset.actions import ActionRange
from fosp_ext.envs import is_custom

NOTE = "fosp"  # the name under which a converted file keeps what its format has no place for
OPEN = "episodes without an end in the source, taken as cut off by a time limit"
# Images without a name of their own, and what the cameras of Safety-Gymnasium are called.
IMAGE, SECOND = "image", "image2"
SIMULATED = {IMAGE: "vision", SECOND: "vision_back"}


@dataclass(frozen=True)
class Labels:
    """Facts given by the user about a foreign file; None: those of the file."""

    task: str | None = None
    action_repeat: int | None = None
    render: str | None = None
    cameras: tuple[str, ...] | None = None  # images to take, each as key or key=name
    policy: str | None = None  # of episodes that the file gives no name
    rename: tuple[str, ...] | None = None  # key=name, of images and vectors
    size: int | None = None  # side of the new images
    action_low: tuple[float, ...] | None = None  # one number, or one for each component
    action_high: tuple[float, ...] | None = None
    clip_actions: bool | None = None  # numbers beyond the bounds were played as the bounds
    cost_from: str | None = None  # module:function (fosp_ext/dataset/costs.py)


class Found(NamedTuple):
    """What the arrays of a foreign file show."""

    images: Mapping[str, tuple[int, ...]]  # key -> (..., height, width, 3), in the file's order
    names: dict[str, str]  # key -> camera, unless renamed
    action_size: int
    has_costs: bool
    vectors: dict[str, int]  # key -> numbers in each observation
    bounds: ActionRange | None = None  # of its actions, where the file says them
    others: tuple[str, ...] = ()  # observations that are neither


class Recorded(NamedTuple):
    """An episode as a foreign file holds it."""

    images: Mapping[str, np.ndarray]  # key -> (T+1, height, width, 3) uint8
    vectors: Mapping[str, np.ndarray]  # key -> (T+1,) or (T+1, D)
    action: np.ndarray  # (T, A), in the environment's own numbers
    reward: np.ndarray  # (T,)
    cost: np.ndarray | None  # (T,); None where there are none
    terminated: bool
    policy: str
    seed: int
    arrays: Mapping[str, np.ndarray]  # all that was recorded, under the names of the file


class Source(NamedTuple):
    """A foreign dataset, opened."""

    info: DatasetInfo
    total: int  # episodes
    episodes: Iterator[Episode]
    remarks: Counter[str]  # what was changed or left out: how often; complete at the end
    said: tuple[str, ...] = ()  # what holds for all episodes


Reader = Callable[[Path, Labels], Source]
Writer = Callable[[Path, DatasetInfo, Iterator[Episode]], None]


class GroupArrays(Mapping[str, np.ndarray]):
    """The arrays below an HDF5 group by their path, each read when it is asked for."""

    def __init__(self, group: h5py.Group, read: Callable[[h5py.Dataset], np.ndarray]) -> None:
        """`read` makes an array of a dataset."""
        self._group, self._read = group, read
        self._names = list(datasets_of(group))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(self._group[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def datasets_of(group: h5py.Group, prefix: str = "") -> dict[str, h5py.Dataset]:
    """The datasets below an HDF5 group by their path, `outer/inner` where nested."""
    found: dict[str, h5py.Dataset] = {}
    for key, value in group.items():
        if isinstance(value, h5py.Group):
            found |= datasets_of(value, f"{prefix}{key}/")
        elif isinstance(value, h5py.Dataset):
            found[f"{prefix}{key}"] = value
    return found


def camera_names(keys: Mapping[str, Any], task: str | None) -> dict[str, str]:
    """Key -> camera. Images without a name of their own are the cameras of Safety-Gymnasium."""
    simulated = task is not None and not is_custom(task)
    return {key: SIMULATED.get(key, key) if simulated else key for key in keys}


def is_vector(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array (rows, ...) of observations is one of vectors: real numbers on one axis."""
    return dtype.kind == "f" and len(shape) in (1, 2) and 0 not in shape[1:]


def note_of(info: DatasetInfo) -> dict[str, Any]:
    """The note that `plan_conversion` reads back."""
    return asdict(info)


def parse_note(path: Path, raw: str | bytes) -> dict[str, Any]:
    """A JSON object; anything else is a `DatasetError`."""
    try:
        note = json.loads(raw)
    except ValueError as error:
        raise DatasetError(f"{path} is not readable as JSON ({error})") from error
    if not isinstance(note, dict):
        raise DatasetError(f"{path} must be a JSON object, it is {type(note).__name__}")
    return note


def check_actions(path: Path, shape: tuple[int, ...]) -> int:
    """Action size; `shape` is (N, A)."""
    if len(shape) != 2 or not shape[1]:
        raise UserError(f"{path}: actions must be rows of numbers (N, A), their shape is {shape}")
    return shape[1]


def flat(path: Path, name: str, values: np.ndarray, rows: int) -> np.ndarray:
    """One number for each of `rows`, (rows,); (rows, 1) is understood too."""
    if values.shape == (rows, 1):
        values = values[:, 0]
    if values.shape != (rows,):
        raise DatasetError(f"{path}: '{name}' must have {rows} rows, its shape is {values.shape}")
    return values


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        refuse_existing(path)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
