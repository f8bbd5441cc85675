"""Dataset files: one HDF5 file of many episodes (docs/reference/data_format.md)."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.layout import (
    ARRAYS,
    CHUNK_FRAMES,
    FORMAT,
    FORMAT_VERSION,
    VECTORS,
    open_dataset,
    read_arrays,
    text,
    vector_names,
)
from dreamer.data.output import HDF5Output
from dreamer.data.validation import check_compatible, validate_dataset, validated
from dreamer.errors import UserError
from dreamer.files import atomic_path

__all__ = [
    "check_compatible",
    "fingerprint",
    "read_episodes",
    "recording_of",
    "validate_dataset",
    "write_dataset",
]

RECORDED_PACKAGES = ("numpy", "h5py", "mujoco", "gymnasium", "safety-gymnasium")


def write_dataset(
    path: str | Path,
    episodes: Iterable[Episode],
    info: DatasetInfo,
    versions: dict[str, str] | None = None,
    recording: str = "",
) -> None:
    """Write episodes as they come, one in memory at a time; the file appears when it is whole.

    `versions` of the programs that recorded them; None: those that are running now. `recording`
    is kept as an attribute, see `recording_of`.
    A disk that is full or fails is an `OSError`; nothing is left of the file then.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already; choose another file or remove it")
    with atomic_path(path) as part:
        output = HDF5Output(part)
        with output as file:
            images = _create_images(file, info)
            kinds = {name: dtype for name, (_, _, dtype) in ARRAYS.items()}
            kinds |= {f"{VECTORS}/{name}": np.float32 for name in info.vectors}
            small: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
            policies: list[str] = []
            rows = 0
            for episode in episodes:
                _check_episode(episode, info)
                for camera, frames in episode.images.items():
                    _append(images[camera], frames)
                if episode.policy not in policies:
                    policies.append(episode.policy)
                record = _small_arrays(episode, rows, policies.index(episode.policy))
                for name, value in record.items():
                    small[name].append(value)
                rows += episode.length
                output.check()
            if not rows:
                raise UserError(f"no episodes to write to {path}")
            for name, dtype in kinds.items():
                file.create_dataset(name, data=np.concatenate(small[name]).astype(dtype))
            _write_attributes(file, info, policies, versions)
            if recording:
                file.attrs["recording"] = recording
        if path.exists():
            raise UserError(f"{path} was made by another program in the meantime; not overwritten")


def read_episodes(
    path: str | Path,
    indices: Collection[int] | None = None,
    expected: DatasetInfo | None = None,
) -> Iterator[Episode]:
    """The episodes of a dataset, or those with these indices, in file order, one at a time.

    The file is validated, and refused if it was recorded for something else than `expected`.
    """
    with open_dataset(path) as file:
        info = validated(file, Path(path))
        if expected is not None:
            check_compatible(info, expected, path)
        arrays = read_arrays(file)
        policies = [text(name) for name in file.attrs["policies"]]
        bounds = np.append(arrays["episode_starts"], len(arrays["rewards"]))
        for index, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if indices is not None and index not in indices:
                continue
            frames = slice(begin + index, end + index + 1)
            yield Episode(
                images={camera: file[f"images/{camera}"][frames] for camera in info.cameras},
                action=arrays["actions"][begin:end].astype(np.float32),
                reward=arrays["rewards"][begin:end].astype(np.float32),
                cost=arrays["costs"][begin:end].astype(np.float32),
                terminated=bool(arrays["terminals"][end - 1]),
                policy=policies[arrays["episode_policies"][index]],
                seed=int(arrays["episode_seeds"][index]),
                vectors={
                    name: file[f"{VECTORS}/{name}"][frames].astype(np.float32)
                    for name in info.vectors
                },
            )


def recording_of(path: str | Path) -> str:
    """What `write_dataset` was told about the recording; empty if nothing."""
    with open_dataset(path) as file:
        return text(file.attrs.get("recording", ""))


def fingerprint(path: str | Path) -> str:
    """A short digest of everything but the pixels: equal for a copy, different for other data."""
    digest = hashlib.sha256()
    with open_dataset(path) as file:
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(file[name][()]).tobytes())
        digest.update("".join(text(name) for name in file.attrs["cameras"]).encode())
        for name in vector_names(file):
            digest.update(name.encode() + file[f"{VECTORS}/{name}"][()].tobytes())
    return digest.hexdigest()[:16]


def _create_images(file: h5py.File, info: DatasetInfo) -> dict[str, h5py.Dataset]:
    frame = (info.size, info.size, 3)
    return {
        camera: file.create_dataset(
            f"images/{camera}",
            shape=(0, *frame),
            maxshape=(None, *frame),
            chunks=(CHUNK_FRAMES, *frame),
            dtype=np.uint8,
            compression="gzip",
            compression_opts=4,
        )
        for camera in info.cameras
    }


def _append(dataset: h5py.Dataset, frames: np.ndarray) -> None:
    begin = len(dataset)
    dataset.resize(begin + len(frames), axis=0)
    dataset[begin:] = frames


def _small_arrays(episode: Episode, first_row: int, policy: int) -> dict[str, np.ndarray]:
    last = np.arange(episode.length) == episode.length - 1  # (T,)
    return {
        "actions": episode.action,
        "rewards": episode.reward,
        "costs": episode.cost,
        "terminals": last & episode.terminated,
        "timeouts": last & (not episode.terminated),
        "episode_starts": np.array([first_row]),
        "episode_policies": np.array([policy]),
        "episode_seeds": np.array([episode.seed]),
        **{f"{VECTORS}/{name}": values for name, values in episode.vectors.items()},
    }


def _running_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _write_attributes(
    file: h5py.File, info: DatasetInfo, policies: list[str], versions: dict[str, str] | None
) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["task"] = info.task
    file.attrs["cameras"] = list(info.cameras)
    if info.vectors:
        file.attrs[VECTORS] = list(info.vectors)
    file.attrs["action_repeat"] = info.action_repeat
    file.attrs["environment"] = json.dumps(info.environment)
    file.attrs["policies"] = policies
    file.attrs["versions"] = json.dumps(_running_versions() if versions is None else versions)


def _check_episode(episode: Episode, info: DatasetInfo) -> None:
    have = {
        "cameras": tuple(sorted(episode.images)),
        "size": next(iter(episode.images.values())).shape[1],
        "action_size": episode.action.shape[1],
        "vectors": {name: values.shape[1] for name, values in episode.vectors.items()},
    }
    for name, value in have.items():
        want = getattr(info, name)
        if value != (tuple(sorted(want)) if name == "cameras" else want):
            raise UserError(f"episode has {name} {value!r}, the dataset {want!r}")
