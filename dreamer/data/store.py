"""The rows of a dataset file, ready to be cut into windows."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import DatasetInfo
from dreamer.data.layout import ARRAYS, open_dataset, open_file
from dreamer.data.validation import validate_dataset
from dreamer.errors import UserError

STORAGES = ("ram", "disk")
RAM_SHARE = 0.8  # of the memory that is free now; above it, decoded pictures do not fit


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
        cls, path: str | Path, storage: str, holdout: float = 0.1
    ) -> tuple[RowStore, RowStore | None]:
        """(training episodes, held-out episodes): the last ceil(holdout * E) are held out.

        `storage`: "ram" decodes all pictures now, "disk" decodes the windows when they are read.
        Without a holdout the second store is None.
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
            images = _decode(file, info, path, len(small["is_first"]))
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

    def window(self, start_row: int, T: int) -> dict[str, np.ndarray]:
        """T rows from `start_row` on: `images/<camera>` (T, size, size, 3) and the small arrays."""
        assert 0 <= start_row <= len(self) - T, (start_row, T, len(self))
        rows = slice(start_row, start_row + T)
        frames = slice(self._first_frame + start_row, self._first_frame + start_row + T)
        window = {key: value[rows] for key, value in self._small.items()}
        try:
            for camera, images in self._images.items():
                window[f"images/{camera}"] = images[frames]  # one contiguous read
        except OSError as error:
            raise UserError(f"{self._path} cannot be read, it seems damaged ({error})") from error
        return window


def choose_storage(path: str | Path, storage: str, ram_limit_gb: float) -> str:
    """ "ram" or "disk"; "auto" takes "ram" for pictures that fit under the limit and in memory."""
    if storage != "auto":
        return storage
    info = validate_dataset(path)
    with open_dataset(path) as file:
        needed = _decoded_bytes(info, len(file["rewards"]) + len(file["episode_starts"]))
    free = _free_memory()
    fits = needed <= ram_limit_gb * 2**30 and (free is None or needed <= RAM_SHARE * free)
    return "ram" if fits else "disk"


def _decoded_bytes(info: DatasetInfo, rows: int) -> int:
    return rows * info.size * info.size * 3 * len(info.cameras)


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


def _decode(file: h5py.File, info: DatasetInfo, path: Path, rows: int) -> dict[str, np.ndarray]:
    needed = _decoded_bytes(info, rows)
    free = _free_memory()
    if free is not None and needed > RAM_SHARE * free:
        raise UserError(
            f"the pictures of {path} take {needed / 2**30:.1f} GiB decoded and {free / 2**30:.1f} "
            "GiB are free; use storage 'disk'"
        )
    images = {}
    try:
        for camera in info.cameras:
            source = file[f"images/{camera}"]
            images[camera] = np.empty(source.shape, np.uint8)
            edges = [*range(0, rows, 4096), rows]
            for begin, end in itertools.pairwise(edges):
                source.read_direct(images[camera], np.s_[begin:end], np.s_[begin:end])
    except OSError as error:
        raise UserError(f"{path} cannot be read, it seems damaged ({error})") from error
    return images


def _free_memory() -> int | None:
    """Bytes that new arrays may take, where the system says so (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024
