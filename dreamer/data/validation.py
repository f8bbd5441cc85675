"""Validation of dataset files: every error names the key that is wrong."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import ACTION_HIGH, ACTION_LOW, ACTION_SCALE, COSTS, DatasetInfo
from dreamer.data.foreign import refuse_giants, require_memory, require_stored
from dreamer.data.layout import (
    ARRAYS,
    ATTRIBUTES,
    FORMAT,
    FORMAT_VERSION,
    PER_EPISODE,
    VECTORS,
    open_dataset,
    text,
    vector_names,
)
from dreamer.errors import DatasetError, UserError, did_you_mean, shown
from dreamer.files import parse_json

READ = (ACTION_SCALE, ACTION_LOW, ACTION_HIGH, COSTS)  # facts that are compared by their meaning


def validate_dataset(path: str | Path) -> DatasetInfo:
    """Check every key, shape and range except the pixels; say which one is missing or malformed.

    Nothing is read before all shapes, and the memory that they need, have been checked.
    """
    with open_dataset(path) as file:
        return validated(file, Path(path))


def validated(file: h5py.File, path: Path) -> DatasetInfo:
    """The same for a file that is open."""
    _check_attributes(file, path)
    stored = _check_shapes(file, path)
    cameras = tuple(text(name) for name in file.attrs["cameras"])
    frames = len(stored["rewards"]) + len(stored["episode_starts"])
    size = _check_images(file, path, cameras, frames)
    arrays = _check_arrays(stored, path)
    _check_episodes(arrays, len(file.attrs["policies"]), path)
    action_size = arrays["actions"].shape[1]
    return DatasetInfo(
        task=text(file.attrs["task"]),
        cameras=cameras,
        action_repeat=int(file.attrs["action_repeat"]),
        size=size,
        action_size=action_size,
        environment=_environment(file, path, action_size),
        vectors=_check_vectors(file, path, frames),
    )


def check_compatible(info: DatasetInfo, expected: DatasetInfo, path: str | Path) -> None:
    """Refuse a dataset that was recorded for something else; name the first field that differs.

    Of the environment, only what `expected` names has to be equal.
    """
    different = first_difference(info, expected)
    if different:
        name, have, want = different
        raise UserError(f"{path} was recorded with {name} {have!r}, this run needs {want!r}")


def first_difference(info: DatasetInfo, other: DatasetInfo) -> tuple[str, object, object] | None:
    """(field, value, other value) of the first field that differs.

    The order of the cameras does not matter, nor what `other` does not say of its environment. The
    action scale is compared by its numbers: without one, actions cover the whole range. Bounds of
    actions are compared where both say them.
    """
    for name, want in asdict(other).items():
        have = getattr(info, name)
        if name == "environment":
            for fact, value in want.items():
                if fact not in READ and have.get(fact) != value:
                    return fact, have.get(fact), value
        elif set(have) != set(want) if name == "cameras" else have != want:
            return name, have, want
    if info.action_scale != other.action_scale:
        return ACTION_SCALE, info.action_scale, other.action_scale
    if info.has_costs != other.has_costs:
        return COSTS, info.environment.get(COSTS), other.environment.get(COSTS)
    bounds = info.action_bounds, other.action_bounds
    if None not in bounds and bounds[0] != bounds[1]:
        return "action bounds", *bounds
    return None


def _environment(file: h5py.File, path: Path, action_size: int) -> dict[str, str]:
    """The attribute of that name: JSON, an object of text; facts of actions are numbers in it."""
    try:
        facts = parse_json(text(file.attrs["environment"]))
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
        raise DatasetError(f"{path}: attribute 'environment' must be a JSON object of text")
    for fact in (ACTION_SCALE, ACTION_LOW, ACTION_HIGH):
        try:
            numbers = np.array(facts.get(fact, "1 " * action_size).split(), float)
        except ValueError:
            numbers = np.empty(0)
        if numbers.shape != (action_size,) or not np.isfinite(numbers).all():
            raise DatasetError(
                f"{path}: '{fact}' in attribute 'environment' must be {action_size} numbers, "
                f"it is {facts[fact]!r}"
            )
    return facts


def _check_attributes(file: h5py.File, path: Path) -> None:
    for name, kind in ATTRIBUTES.items():
        if name not in file.attrs:
            hint = did_you_mean(name, file.attrs)
            raise DatasetError(f"{path}: attribute '{name}' is missing{hint}")
        value = file.attrs[name]
        good = {
            "text": isinstance(value, (str, bytes)),
            "a whole number": isinstance(value, (int, np.integer)),
            "a list of text": isinstance(value, np.ndarray)
            and value.ndim == 1
            and len(value) > 0
            and all(isinstance(item, (str, bytes)) for item in value),
        }[kind]
        if not good:
            raise DatasetError(f"{path}: attribute '{name}' must be {kind}, it is {shown(value)}")
    if text(file.attrs["format"]) != FORMAT:
        found = text(file.attrs["format"])
        raise DatasetError(f"{path}: attribute 'format' must be '{FORMAT}', it is {shown(found)}")
    if file.attrs["format_version"] != FORMAT_VERSION:
        found = file.attrs["format_version"]
        raise DatasetError(
            f"{path}: format_version {found} cannot be read, this program reads {FORMAT_VERSION}"
        )


def _check_shapes(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    stored = {}
    for name, (axes, kinds, dtype) in ARRAYS.items():
        data = _dataset(file, name, path)
        if data.ndim != axes or data.dtype.kind not in kinds:
            raise DatasetError(
                f"{path}: '{name}' must be {np.dtype(dtype).name} with {axes} axes, "
                f"it is {data.dtype.name} with shape {data.shape}"
            )
        stored[name] = data
    for name, data in stored.items():  # nothing has been read yet
        like = "episode_starts" if name in PER_EPISODE else "rewards"
        if len(data) != len(stored[like]):
            raise DatasetError(
                f"{path}: '{name}' has {len(data)} rows, '{like}' has {len(stored[like])}"
            )
    if len(stored["episode_starts"]) > len(stored["rewards"]):
        raise DatasetError(f"{path}: 'episode_starts' has more rows than 'rewards'")
    if not stored["actions"].shape[1]:
        raise DatasetError(f"{path}: 'actions' have no numbers")
    return stored


def _check_arrays(stored: dict[str, h5py.Dataset], path: Path) -> dict[str, np.ndarray]:
    require_memory(stored, path)
    arrays = {name: data[()] for name, data in stored.items()}
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise DatasetError(f"{path}: '{name}' holds numbers that are not finite")
    if np.any(np.abs(arrays["actions"]) > 1):
        raise DatasetError(f"{path}: 'actions' must lie in [-1, 1]")
    if np.any(arrays["costs"] < 0):
        raise DatasetError(f"{path}: 'costs' must not be negative")
    return arrays


def _check_episodes(arrays: dict[str, np.ndarray], policies: int, path: Path) -> None:
    starts, rows = arrays["episode_starts"].astype(np.int64), len(arrays["rewards"])
    if not len(starts) or starts[0] != 0 or np.any(np.diff(starts) <= 0) or starts[-1] >= rows:
        raise DatasetError(f"{path}: 'episode_starts' must rise from 0 and stay below {rows} rows")
    last = np.zeros(rows, bool)
    last[np.append(starts[1:], rows) - 1] = True
    ends = arrays["terminals"].astype(int) + arrays["timeouts"]
    if np.any(ends != last):
        row = int(np.flatnonzero(ends != last)[0])
        raise DatasetError(
            f"{path}: 'terminals' and 'timeouts' must mark each episode's last row and no other, "
            f"row {row} is wrong"
        )
    codes = arrays["episode_policies"]
    if np.any((codes < 0) | (codes >= policies)):
        raise DatasetError(f"{path}: 'episode_policies' must index the {policies} policies")


def _check_images(file: h5py.File, path: Path, cameras: tuple[str, ...], frames: int) -> int:
    if len(set(cameras)) < len(cameras):
        raise DatasetError(f"{path}: attribute 'cameras' names one twice")
    sizes = []
    for camera in cameras:
        name = f"images/{camera}"
        data = _dataset(file, name, path)
        size = data.shape[1] if data.ndim == 4 else 0
        if data.ndim == 4:
            refuse_giants(data, name, path)
        if data.dtype != np.uint8 or data.shape != (frames, size, size, 3):
            raise DatasetError(
                f"{path}: '{name}' must be uint8 with shape ({frames}, size, size, 3), "
                f"it is {data.dtype.name} with shape {data.shape}"
            )
        sizes.append(size)
        require_stored(data, name, path)
    if len(set(sizes)) > 1:
        raise DatasetError(f"{path}: 'images' must all have one size, they have {sizes}")
    return sizes[0]


def _check_vectors(file: h5py.File, path: Path, rows: int) -> dict[str, int]:
    """Name -> numbers in each observation."""
    stored = {name: _dataset(file, f"{VECTORS}/{name}", path) for name in vector_names(file)}
    for name, data in stored.items():  # nothing has been read yet
        if data.ndim != 2 or len(data) != rows or not data.shape[1] or data.dtype.kind != "f":
            raise DatasetError(
                f"{path}: '{VECTORS}/{name}' must be float32 with shape ({rows}, D), it is "
                f"{data.dtype.name} with shape {data.shape}"
            )
    require_memory(stored, path)
    for name, data in stored.items():
        if not np.all(np.isfinite(data[()])):
            raise DatasetError(f"{path}: '{VECTORS}/{name}' holds numbers that are not finite")
    return {name: data.shape[1] for name, data in stored.items()}


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        known = [key for key in file if key not in ARRAYS]
        raise DatasetError(f"{path}: '{name}' is missing{did_you_mean(name, known)}")
    return data
