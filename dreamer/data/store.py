"""The rows of a dataset file, cut into windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import rescaled
from dreamer.data.layout import ARRAYS, CHUNK_FRAMES, VECTORS, open_file
from dreamer.data.memory import STORAGES
from dreamer.data.rows import dataset_rows, empty_batch
from dreamer.data.validation import validate_dataset
from dreamer.errors import DatasetError, UserError
from dreamer.types import Batch

DECODE_BLOCK = 64 * CHUNK_FRAMES  # images that are decoded between two reports of progress


class RowStore:
    """Consecutive episodes as rows: an episode of T transitions has T + 1 rows.

    Row t holds image t, the reward and cost that came with it and the action taken at it:
    zero reward and cost on an episode's first row, zero action on its last one.
    """

    def __init__(
        self,
        path: Path,
        images: dict[str, np.ndarray | h5py.Dataset],
        small: dict[str, np.ndarray],
        vectors: dict[str, np.ndarray],
        first_frame: int,
    ) -> None:
        """Combine the images from `first_frame` on with the numbers and vectors of their rows."""
        self._path, self._images, self._first_frame = path, images, first_frame
        self._small, self._vectors = small, vectors

    @classmethod
    def open(
        cls,
        path: str | Path,
        storage: str,
        holdout: float = 0.1,
        decoded: Callable[[int], None] = lambda images: None,
        action_scale: Sequence[float] | None = None,
        cameras: Collection[str] | None = None,
        vectors: Collection[str] | None = None,
    ) -> tuple[RowStore, RowStore | None]:
        """(training episodes, held-out episodes): the last ceil(holdout * E) are held out.

        `storage`: "ram" decodes all images now (`plan_memory` says whether they fit), "disk"
        decodes the windows when they are read. Without a holdout the second store is None.
        `decoded` hears how many further images are in memory. Actions come in `action_scale`; None:
        as they are in the file. Of the observations these `cameras` and `vectors` are read, in the
        order of the file; None: all of them.
        """
        path = Path(path)
        if storage not in STORAGES:
            raise UserError(f"storage must be one of {', '.join(STORAGES)}, not '{storage}'")
        info = validate_dataset(path)
        file = open_file(path)
        arrays = {name: file[name][()] for name in ARRAYS}
        scale = info.action_scale
        arrays["actions"] = rescaled(arrays["actions"], scale, action_scale or scale)
        small = dataset_rows(arrays)
        firsts = np.flatnonzero(small["is_first"])
        held = math.ceil(holdout * len(firsts))
        if held >= len(firsts):
            raise UserError(
                f"{path} has {len(firsts)} episodes and {held} would be held out; "
                "record more or lower the held-out share"
            )
        split = int(firsts[len(firsts) - held]) if held else len(small["is_first"])
        shown = [name for name in info.cameras if cameras is None or name in cameras]
        felt = {
            name: file[f"{VECTORS}/{name}"][()].astype(np.float32)
            for name in info.vectors
            if vectors is None or name in vectors
        }
        if storage == "ram":
            images = _decode(file, shown, path, decoded)
            file.close()
        else:
            images = {camera: file[f"images/{camera}"] for camera in shown}

        def part(rows: slice) -> RowStore:
            numbers, values = ({k: v[rows] for k, v in each.items()} for each in (small, felt))
            return cls(path, images, numbers, values, rows.start)

        return part(slice(0, split)), part(slice(split, None)) if held else None

    def __len__(self) -> int:
        """Rows."""
        return len(self._small["reward"])

    def starts(self, T: int) -> int:
        """Number of windows of T rows, one from each row on that has T - 1 after it."""
        return max(len(self) - T + 1, 0)

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

        `pinned` puts them into page-locked memory, which a GPU reads faster.
        """
        batch = self.empty(len(starts), T, pinned)
        self.fill_(batch, starts)
        return batch

    def openings(self, T: int, count: int) -> Batch:
        """The first T rows of the first `count` episodes that have so many, (B, T, ...).

        T is less where all episodes are shorter.
        """
        firsts = np.append(np.flatnonzero(self._small["is_first"]), len(self))
        rows = np.diff(firsts)
        T = min(T, int(rows.max()))
        return self.windows(firsts[:-1][rows >= T][:count], T)

    def empty(self, B: int, T: int, pinned: bool = False) -> Batch:
        """Room for B windows of T rows, whatever is in it, cameras in the order of the file."""
        parts = {**self._images, **self._vectors}
        return empty_batch(B, T, parts, self._small["action"].shape[1], pinned)

    def fill_(self, batch: Batch, starts: Sequence[int] | np.ndarray) -> None:
        """Write the windows from each of the B `starts` on into a batch (B, T, ...)."""
        starts, T = np.asarray(starts), batch.reward.shape[1]
        assert 0 <= starts.min() <= starts.max() < self.starts(T), (starts, T, len(self))
        rows = starts[:, None] + np.arange(T)  # (B, T)
        for key, value in self._small.items():
            getattr(batch, key).numpy()[:] = value[rows]
        for name, values in self._vectors.items():
            batch.obs[name].numpy()[:] = values[rows]
        batch.is_first[:, 0] = 1
        try:
            for camera in self._images:
                images = batch.obs[camera]
                for window, first in zip(images.numpy(), self._first_frame + starts, strict=True):
                    window[:] = self._images[camera][first : first + T]  # one contiguous read
        except OSError as error:
            raise DatasetError(
                f"{self._path} cannot be read, it seems damaged ({error})"
            ) from error


def _decode(
    file: h5py.File, cameras: Sequence[str], path: Path, decoded: Callable[[int], None]
) -> dict[str, np.ndarray]:
    images = {}
    try:
        for camera in cameras:
            source = file[f"images/{camera}"]
            images[camera] = np.empty(source.shape, np.uint8)
            edges = [*range(0, len(source), DECODE_BLOCK), len(source)]
            for begin, end in itertools.pairwise(edges):
                source.read_direct(images[camera], np.s_[begin:end], np.s_[begin:end])
                decoded(end - begin)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read, it seems damaged ({error})") from error
    return images
