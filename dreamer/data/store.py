"""The rows of a dataset file, cut into windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from dreamer.data.episode import DatasetInfo
from dreamer.data.layout import ARRAYS, CHUNK_FRAMES, open_file
from dreamer.data.memory import STORAGES
from dreamer.data.validation import validate_dataset
from dreamer.errors import DatasetError, UserError
from dreamer.types import Batch

DECODE_BLOCK = 64 * CHUNK_FRAMES  # pictures that are decoded between two reports of progress


class RowStore:
    """Consecutive episodes as rows: an episode of T transitions has T + 1 rows.

    Row t holds picture t, the reward and cost that came with it and the action that answered it:
    zero reward and cost on an episode's first row, zero action on its last one.
    """

    def __init__(
        self,
        path: Path,
        images: dict[str, np.ndarray | h5py.Dataset],
        small: dict[str, np.ndarray],
        first_frame: int,
    ) -> None:
        """Join the pictures from `first_frame` on with the numbers of their rows."""
        self._path, self._images, self._first_frame = path, images, first_frame
        self._small = small

    @classmethod
    def open(
        cls,
        path: str | Path,
        storage: str,
        holdout: float = 0.1,
        decoded: Callable[[int], None] = lambda pictures: None,
    ) -> tuple[RowStore, RowStore | None]:
        """(training episodes, held-out episodes): the last ceil(holdout * E) are held out.

        `storage`: "ram" decodes all pictures now (`plan_memory` says whether they fit), "disk"
        decodes the windows when they are read. Without a holdout the second store is None.
        `decoded` hears how many further pictures are in memory.
        """
        path = Path(path)
        if storage not in STORAGES:
            raise UserError(f"storage must be one of {', '.join(STORAGES)}, not '{storage}'")
        info = validate_dataset(path)
        file = open_file(path)
        small = _rows({name: file[name][()] for name in ARRAYS})
        firsts = np.flatnonzero(small["is_first"])
        held = math.ceil(holdout * len(firsts))
        if held >= len(firsts):
            raise UserError(
                f"{path} has {len(firsts)} episodes and {held} would be held out; "
                "record more or lower the held-out share"
            )
        split = int(firsts[len(firsts) - held]) if held else len(small["is_first"])
        if storage == "ram":
            images = _decode(file, info, path, decoded)
            file.close()
        else:
            images = {camera: file[f"images/{camera}"] for camera in info.cameras}
        train = cls(path, images, {key: value[:split] for key, value in small.items()}, 0)
        if not held:
            return train, None
        return train, cls(path, images, {key: value[split:] for key, value in small.items()}, split)

    def __len__(self) -> int:
        """Rows."""
        return len(self._small["reward"])

    @property
    def episodes(self) -> int:
        """Episodes."""
        return int(self._small["is_first"].sum())

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras in the order of the file."""
        return tuple(self._images)

    def small(self, key: str) -> np.ndarray:
        """A read-only view of all rows of a small array, such as "cost"."""
        view = self._small[key].view()
        view.flags.writeable = False
        return view

    def windows(self, starts: Sequence[int] | np.ndarray, T: int, pinned: bool = False) -> Batch:
        """The T rows from each of the B `starts` on, (B, T, ...); each begins like an episode.

        `pinned` puts the pictures into page-locked memory, which a GPU reads faster.
        """
        starts = np.asarray(starts)
        assert 0 <= starts.min() <= starts.max() <= len(self) - T, (starts, T, len(self))
        rows = starts[:, None] + np.arange(T)  # (B, T)
        small = {key: torch.from_numpy(value[rows]) for key, value in self._small.items()}
        small["is_first"][:, 0] = 1
        try:
            obs = {
                camera: _gather(images, self._first_frame + starts, T, pinned)
                for camera, images in self._images.items()
            }
        except OSError as error:
            raise DatasetError(
                f"{self._path} cannot be read, it seems damaged ({error})"
            ) from error
        return Batch(obs, **small)


def _gather(images: np.ndarray | h5py.Dataset, starts: np.ndarray, T: int, pinned: bool) -> Tensor:
    """T pictures from each of the B places on, (B, T, size, size, 3) uint8, copied only once."""
    shape = (len(starts), T, *images.shape[1:])
    pictures = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
    for window, start in zip(pictures.numpy(), starts.tolist(), strict=True):
        window[:] = images[start : start + T]  # one contiguous read
    return pictures


def _rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """N transitions -> N + E rows: what came with a picture is shifted onto its row."""
    bounds = np.append(arrays["episode_starts"], len(arrays["rewards"]))  # (E+1,)
    episodes = len(bounds) - 1
    total = len(arrays["rewards"]) + episodes
    lasts = bounds[1:] + np.arange(episodes)  # row of each episode's last picture
    firsts = bounds[:-1] + np.arange(episodes)
    asked = np.delete(np.arange(total), lasts)  # rows whose action was taken, (N,)
    rows = {
        "action": np.zeros((total, arrays["actions"].shape[1]), np.float32),
        **{
            key: np.zeros(total, np.float32)
            for key in ("reward", "cost", "is_first", "is_last", "is_terminal")
        },
    }
    rows["action"][asked] = arrays["actions"]
    rows["reward"][asked + 1] = arrays["rewards"]
    rows["cost"][asked + 1] = arrays["costs"]
    rows["is_first"][firsts] = 1
    rows["is_last"][lasts] = 1
    rows["is_terminal"][asked + 1] = arrays["terminals"]
    return rows


def _decode(
    file: h5py.File, info: DatasetInfo, path: Path, decoded: Callable[[int], None]
) -> dict[str, np.ndarray]:
    images = {}
    try:
        for camera in info.cameras:
            source = file[f"images/{camera}"]
            images[camera] = np.empty(source.shape, np.uint8)
            edges = [*range(0, len(source), DECODE_BLOCK), len(source)]
            for begin, end in itertools.pairwise(edges):
                source.read_direct(images[camera], np.s_[begin:end], np.s_[begin:end])
                decoded(end - begin)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read, it seems damaged ({error})") from error
    return images
