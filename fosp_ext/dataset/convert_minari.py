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
from dreamer.outputs import refuse_existing
from fosp_ext.dataset.actions import ActionRange
from fosp_ext.dataset.conversion_plan import plan_conversion
from fosp_ext.dataset.exchange import (
    IMAGE,
    NOTE,
    Found,
    GroupArrays,
    Labels,
    Recorded,
    Source,
    atomic_folder,
    camera_names,
    check_actions,
    datasets_of,
    flat,
    is_vector,
    note_of,
    parse_note,
)

FILE, METADATA = "main_data.hdf5", "metadata.json"
LAYOUT_VERSION = "0.5.3"  # of Minari
SMALLEST_ENCODED = 32  # Minari keeps smaller images as plain arrays
COST = "infos/cost"
JPEG, PNG = b"\xff\xd8", b"\x89P"  # first bytes
LOSSY = "images stored as JPEG: close to what was drawn, not equal to it"


def read_minari(path: Path, labels: Labels) -> Source:
    """Episodes of a Minari dataset; `path` is its folder. Costs are read from `infos/cost`.

    The bounds of its action space are the range of the actions.
    """
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
        found = _found(_group(file, 0, folder, False), folder, metadata, labels)
    plan = plan_conversion(path, found, metadata.get(NOTE), labels)
    default, keys = labels.policy or "unknown", tuple(plan.cameras.values())
    reader = _Reader(folder, keys, found.has_costs and plan.cost is None, default, plan.remarks)
    return plan.source(count, reader.episodes(count))


def _found(group: h5py.Group, folder: Path, metadata: dict[str, Any], labels: Labels) -> Found:
    """What the first episode and the metadata show."""
    observations = _observations(group)
    images = {key: data for key, data in observations.items() if _is_image(data)}
    if not images:
        raise UserError(f"{folder} has no images among its observations")
    vectors = {
        key: int(np.prod(data.shape[1:]))
        for key, data in observations.items()
        if is_vector(data.shape, data.dtype)
    }
    size = check_actions(folder, getattr(group["actions"], "shape", ()))
    noted = NOTE in metadata
    return Found(
        images={key: _decode(data[:1], folder).shape for key, data in images.items()},
        names={key: key for key in images} if noted else camera_names(images, labels.task),
        action_size=size,
        has_costs=isinstance(group.get(COST), h5py.Dataset),
        vectors=vectors,
        bounds=None if noted else _bounds(metadata.get("action_space"), size),
        others=tuple(key for key in observations if key not in images and key not in vectors),
    )


def _bounds(space: Any, size: int) -> ActionRange | None:
    """The bounds of a serialised action space; None where it has none."""
    try:
        box = json.loads(space) if isinstance(space, str) else space
        low, high = (np.broadcast_to(np.array(box[side], float), size) for side in ("low", "high"))
    except (TypeError, ValueError, KeyError):
        return None
    return ActionRange(tuple(low.tolist()), tuple(high.tolist()))


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
    group[COST] = np.append(np.float32(0), episode.cost)  # (T+1,): reset has infos too
    for name, rows in episode.vectors.items():
        group[f"observations/{name}"] = rows
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
    vectors = {
        name: _box((size,), "float32", -np.inf, np.inf) for name, size in info.vectors.items()
    }
    return {"type": "Dict", "subspaces": {**dict.fromkeys(info.cameras, image), **vectors}}


def _dataset_id(path: Path) -> str:
    """The name Minari knows the folder by: its path below Minari's folder of datasets."""
    if not re.fullmatch(r"[-\w]+-v\d+", path.name):
        raise UserError(f"a Minari dataset is named like 'safe-goal-v0', not '{path.name}'")
    root = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    place, root = path.resolve(), Path(root).resolve()
    return str(place.relative_to(root)) if place.is_relative_to(root) else path.name


def _group(file: h5py.File, index: int, folder: Path, costs: bool) -> h5py.Group:
    """An episode with all that is needed of it, `costs` too if there are to be some."""
    group = file.get(f"episode_{index}")
    if not isinstance(group, h5py.Group):
        raise DatasetError(f"{folder / FILE}: 'episode_{index}' is missing")
    needed = ("observations", "actions", "rewards", "terminations")
    for key in (*needed, COST) if costs else needed:
        kinds = (h5py.Dataset, h5py.Group) if key == "observations" else h5py.Dataset
        if not isinstance(group.get(key), kinds):
            raise DatasetError(f"{folder / FILE}: 'episode_{index}/{key}' is missing")
    return group


def _observations(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The parts of the observations by their name, `outer.inner` where they are nested."""
    stored = group["observations"]
    if isinstance(stored, h5py.Dataset):
        return {IMAGE: stored}
    return {path.replace("/", "."): data for path, data in datasets_of(stored).items()}


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


class _Reader:
    """Reads the episodes of a folder one after another."""

    def __init__(
        self,
        folder: Path,
        cameras: tuple[str, ...],
        costs: bool,
        policy: str,
        remarks: Counter[str],
    ) -> None:
        """`cameras` are keys of the file; `policy` acted in episodes that do not say who did."""
        self.folder, self.cameras, self.costs = folder, cameras, costs
        self.policy, self.remarks = policy, remarks

    def episodes(self, count: int) -> Iterator[Recorded]:
        """All of them, in order."""
        with open_dataset(self.folder / FILE) as file:
            for index in range(count):
                yield self.episode(_group(file, index, self.folder, self.costs), index)

    def episode(self, group: h5py.Group, index: int) -> Recorded:
        """The episode in a group of the file."""
        stored = _observations(group)
        missing = [key for key in self.cameras if key not in stored]
        if missing:
            raise DatasetError(f"{self.folder}, episode {index}: '{missing[0]}' is missing")
        T = len(group["rewards"])
        cost = None
        if self.costs:  # with the infos of the reset in front, or without
            cost = group[COST][()]
            cost = flat(self.folder, COST, cost[len(cost) - T :], T)
        return Recorded(
            images={key: self.images(stored[key]) for key in self.cameras},
            vectors={k: v[()] for k, v in stored.items() if is_vector(v.shape, v.dtype)},
            action=group["actions"][()],
            reward=flat(self.folder, "rewards", group["rewards"][()], T),
            cost=cost,
            terminated=bool(group["terminations"][-1]),
            policy=str(group.attrs.get("policy", self.policy)),
            seed=int(group.attrs.get("seed", 0)),
            arrays=GroupArrays(group, self.array),
        )

    def images(self, data: h5py.Dataset) -> np.ndarray:
        """Plain or encoded images, (T+1, height, width, 3) uint8."""
        values = data[()]
        if values.ndim < 4:
            self.remarks[LOSSY] += sum(bytes(image[:2]) == JPEG for image in values)
        return _decode(values, self.folder)

    def array(self, data: h5py.Dataset) -> np.ndarray:
        """What a cost function sees of a dataset: images decoded, all else as it is."""
        return _decode(data[()], self.folder) if _is_image(data) else data[()]
