"""Minari datasets with images: a folder with HDF5 and JSON (docs/reference/data_format.md)."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.layout import CHUNK_FRAMES, open_dataset
from dreamer.data.output import HDF5Output
from dreamer.errors import DatasetError, UserError
from fosp_ext.dataset.exchange import (
    NOTE,
    Found,
    Labels,
    Source,
    atomic_folder,
    build_episode,
    check_actions,
    complete_info,
    flat,
    note_of,
    parse_note,
    refuse_existing,
)

FILE, METADATA = "main_data.hdf5", "metadata.json"
LAYOUT_VERSION = "0.5.3"  # of Minari
SMALLEST_ENCODED = 32  # Minari keeps smaller images as plain arrays
ONLY_CAMERA = "vision"  # name of observations that are one image
JPEG, PNG = b"\xff\xd8", b"\x89P"  # first bytes
LOSSY = "images stored as JPEG: close to what was drawn, not equal to it"


def read_minari(path: Path, labels: Labels) -> Source:
    """Episodes of a Minari dataset; `path` is its folder. Costs are read from `infos/cost`."""
    folder = path / "data" if (path / "data" / FILE).exists() else path
    try:
        metadata = parse_note(folder / METADATA, (folder / METADATA).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is no Minari dataset: {folder / METADATA} is missing") from error
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise UserError(f"{path} is stored as {metadata['data_format']}; only hdf5 can be read")
    with open_dataset(folder / FILE) as file:
        count = sum(str(name).startswith("episode_") for name in file)
        if not count:
            raise DatasetError(f"{folder / FILE} has no episodes")
        first = _group(file, 0, folder)
        images = _images(first, folder)
        found = Found(
            images={key: value.shape for key, value in images.items()},
            names={key: key for key in images},
            action_size=check_actions(path, getattr(first["actions"], "shape", ())),
        )
    info, keys = complete_info(path, found, metadata.get(NOTE), labels)
    remarks: Counter[str] = Counter()
    default = labels.policy or "unknown"
    return Source(info, count, _episodes(folder, count, keys, default, remarks), remarks)


def write_minari(path: Path, info: DatasetInfo, episodes: Iterator[Episode]) -> None:
    """A folder that Minari loads. Images are PNG, which loses nothing, instead of JPEG."""
    refuse_existing(path)
    name = _dataset_id(path)
    counts: list[int] = []
    with atomic_folder(path) as folder:
        data = folder / "data"
        data.mkdir()
        output = HDF5Output(data / FILE)
        with output as file:
            for index, episode in enumerate(episodes):
                _write_episode(file.create_group(f"episode_{index}"), index, episode)
                counts.append(episode.length)
                output.check()
        size = (data / FILE).stat().st_size
        metadata = {
            "dataset_id": name,
            "total_episodes": len(counts),
            "total_steps": sum(counts),
            "data_format": "hdf5",
            "observation_space": json.dumps(_observation_space(info)),
            "action_space": json.dumps(_box((info.action_size,), "float32", -1.0, 1.0)),
            "minari_version": LAYOUT_VERSION,
            "dataset_size": round(size / 1e6, 1),
            NOTE: note_of(info),
        }
        (data / METADATA).write_text(json.dumps(metadata))


def _write_episode(group: h5py.Group, index: int, episode: Episode) -> None:
    last = np.arange(episode.length) == episode.length - 1
    group.attrs.update(
        {
            "id": index,
            "seed": episode.seed,
            "total_steps": episode.length,
            "policy": episode.policy,
        }
    )
    group["actions"] = episode.action
    group["rewards"] = episode.reward
    group["terminations"] = last & episode.terminated
    group["truncations"] = last & (not episode.terminated)
    group["infos/cost"] = np.append(np.float32(0), episode.cost)  # (T+1,): reset has infos too
    for camera, frames in episode.images.items():
        if frames.shape[1] < SMALLEST_ENCODED:
            group.create_dataset(
                f"observations/{camera}", data=frames, compression="gzip",
                chunks=(min(CHUNK_FRAMES, len(frames)), *frames.shape[1:]),
            )  # fmt: skip
            continue
        encoded = group.create_dataset(
            f"observations/{camera}", (len(frames),), h5py.vlen_dtype(np.uint8)
        )
        for row, frame in enumerate(frames):
            encoded[row] = np.frombuffer(_png(frame), np.uint8)


def _png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return buffer.getvalue()


def _box(shape: tuple[int, ...], dtype: str, low: float, high: float) -> dict[str, Any]:
    bounds = {
        name: np.full(shape, value, dtype).tolist()
        for name, value in (("low", low), ("high", high))
    }
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}


def _observation_space(info: DatasetInfo) -> dict[str, Any]:
    image = _box((info.size, info.size, 3), "uint8", 0, 255)
    return {"type": "Dict", "subspaces": dict.fromkeys(info.cameras, image)}


def _dataset_id(path: Path) -> str:
    """The name Minari knows the folder by: its path below Minari's folder of datasets."""
    if not re.fullmatch(r"[-\w]+-v\d+", path.name):
        raise UserError(f"a Minari dataset is named like 'safe-goal-v0', not '{path.name}'")
    root = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    place, root = path.resolve(), Path(root).resolve()
    return str(place.relative_to(root)) if place.is_relative_to(root) else path.name


def _group(file: h5py.File, index: int, folder: Path) -> h5py.Group:
    """An episode with all that is needed of it."""
    group = file.get(f"episode_{index}")
    if not isinstance(group, h5py.Group):
        raise DatasetError(f"{folder / FILE}: 'episode_{index}' is missing")
    for key in ("observations", "actions", "rewards", "terminations", "infos/cost"):
        kinds = (h5py.Dataset, h5py.Group) if key == "observations" else h5py.Dataset
        if not isinstance(group.get(key), kinds):
            raise DatasetError(f"{folder / FILE}: 'episode_{index}/{key}' is missing")
    return group


def _images(group: h5py.Group, folder: Path) -> dict[str, np.ndarray]:
    """The first image of each observation that is one, by its key."""
    observations = group["observations"]
    if isinstance(observations, h5py.Dataset):
        observations = {ONLY_CAMERA: observations}
    found = {}
    for key, values in observations.items():
        if isinstance(values, h5py.Dataset) and _is_image(values):
            found[key] = _decode(values[:1], folder)[0]
    if not found:
        raise UserError(f"{folder} has no images among its observations")
    return found


def _is_image(values: h5py.Dataset) -> bool:
    if values.ndim == 4:
        return values.dtype == np.uint8 and values.shape[-1] == 3
    encoded = h5py.check_vlen_dtype(values.dtype) == np.uint8 or (
        values.ndim == 2 and values.dtype == np.uint8
    )
    return bool(encoded) and bytes(values[0][:2]) in (JPEG, PNG)


def _decode(values: np.ndarray, folder: Path) -> np.ndarray:
    """Plain or encoded images -> (T, size, size, 3) uint8."""
    if values.ndim == 4:
        return values
    try:
        return np.stack([np.asarray(Image.open(io.BytesIO(v)).convert("RGB")) for v in values])
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder / FILE}: an image cannot be decoded ({error})") from error


def _episodes(
    folder: Path, count: int, keys: dict[str, str], default: str, remarks: Counter[str]
) -> Iterator[Episode]:
    """`keys`: camera -> its key in the file."""
    with open_dataset(folder / FILE) as file:
        for index in range(count):
            group = _group(file, index, folder)
            stored = group["observations"]
            if isinstance(stored, h5py.Dataset):
                stored = {ONLY_CAMERA: stored}
            missing = [key for key in keys.values() if key not in stored]
            if missing:
                raise DatasetError(f"{folder}, episode {index}: '{missing[0]}' is missing")
            encoded = {camera: stored[key][()] for camera, key in keys.items()}
            for values in encoded.values():
                if values.ndim < 4:
                    remarks[LOSSY] += sum(bytes(image[:2]) == JPEG for image in values)
            for key in set(stored) - set(keys.values()):
                remarks[f"episodes whose observations '{key}' were left out"] += 1
            T = len(group["rewards"])
            cost = group["infos/cost"][()]
            yield build_episode(
                folder,
                index,
                images={camera: _decode(values, folder) for camera, values in encoded.items()},
                action=group["actions"][()].astype(np.float32),
                reward=flat(folder, "rewards", group["rewards"][()], T).astype(np.float32),
                # with the infos of the reset in front, or without
                cost=flat(folder, "infos/cost", cost[len(cost) - T :], T).astype(np.float32),
                terminated=bool(group["terminations"][-1]),
                policy=str(group.attrs.get("policy", default)),
                seed=int(group.attrs.get("seed", 0)),
            )
