"""DSRL files with images: one HDF5 file of single transitions (docs/reference/data_format.md)."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.layout import CHUNK_FRAMES, open_dataset, text
from dreamer.data.output import HDF5Output
from dreamer.errors import DatasetError, UserError, did_you_mean
from dreamer.files import atomic_path
from dreamer.outputs import refuse_existing
from fosp_ext.dataset.conversion_plan import plan_conversion
from fosp_ext.dataset.exchange import (
    IMAGE,
    NOTE,
    OPEN,
    Found,
    Labels,
    Recorded,
    Source,
    camera_names,
    check_actions,
    datasets_of,
    flat,
    note_of,
    parse_note,
)

OBSERVATIONS = ("observations", "next_observations")
NUMBERS = ("rewards", "terminals", "timeouts")
KEYS = (*OBSERVATIONS, "actions", *NUMBERS)
COSTS = "costs"  # the seventh; data without it have no costs
VECTORS, NEXT_VECTORS = "vectors", "next_vectors"  # extra groups of a converted file


def read_dsrl(path: Path, labels: Labels) -> Source:
    """Episodes of a DSRL file whose observations are uint8 images (N, height, width, 3 cameras).

    The observations of DSRL's own files are vectors; those are refused.
    """
    with open_dataset(path) as file:
        small = _check(file, path)
        rows, height, width, channels = file["observations"].shape
        vectors = {key: data.shape[-1] for key, data in _vectors(file).items()}
        note = parse_note(path, text(file.attrs[NOTE])) if NOTE in file.attrs else None
        policies = [text(name) for name in file.attrs.get("policies", [])]
    keys = [IMAGE, *(f"{IMAGE}{k}" for k in range(2, channels // 3 + 1))]
    images = dict.fromkeys(keys, (height, width, 3))
    names = camera_names(images, labels.task)
    if note:
        names = dict(zip(keys, note.get("cameras", ()), strict=False))
    found = Found(
        images=images,
        names=names,
        action_size=check_actions(path, small["actions"].shape),
        has_costs=COSTS in small,
        vectors=vectors,
    )
    plan = plan_conversion(path, found, note, labels)
    ends = np.flatnonzero(small["terminals"] | small["timeouts"]) + 1
    if not len(ends) or ends[-1] < rows:
        ends = np.append(ends, rows)
        plan.remarks[OPEN] += 1
    bounds = np.append(0, ends)
    actors = policies or [labels.policy or "unknown"]
    if not set(small["policies"]) <= set(range(len(actors))):
        raise DatasetError(f"{path}: 'policies' must index the {len(actors)} names of policies")
    episodes = _episodes(path, keys, list(vectors), small, bounds, actors)
    return plan.source(len(ends), episodes)


def write_dsrl(path: Path, info: DatasetInfo, episodes: Iterator[Episode]) -> None:
    """The seven keys of DSRL, with the images of all cameras side by side in the channels.

    `policies` and `seeds` say for each transition which policy acted and how the episode was reset.
    """
    refuse_existing(path)
    shape = (info.size, info.size, 3 * len(info.cameras))
    small: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    names: list[str] = []
    with atomic_path(path) as part:
        output = HDF5Output(part)
        with output as file:
            for key in OBSERVATIONS:
                file.create_dataset(
                    key, (0, *shape), np.uint8, maxshape=(None, *shape),
                    chunks=(CHUNK_FRAMES, *shape), compression="gzip", compression_opts=4,
                )  # fmt: skip
            for episode in episodes:
                images = np.concatenate([episode.images[name] for name in info.cameras], -1)
                _append(file["observations"], images[:-1])
                _append(file["next_observations"], images[1:])
                if episode.policy not in names:
                    names.append(episode.policy)
                for key, value in _numbers(episode, names.index(episode.policy)).items():
                    small[key].append(value)
                output.check()
            for key, values in small.items():
                file[key] = np.concatenate(values)
            file.attrs["policies"] = names
            file.attrs[NOTE] = json.dumps(note_of(info))


def _numbers(episode: Episode, policy: int) -> dict[str, np.ndarray]:
    last = np.arange(episode.length) == episode.length - 1
    return {
        "actions": episode.action,
        "rewards": episode.reward,
        COSTS: episode.cost,
        "terminals": last & episode.terminated,
        "timeouts": last & (not episode.terminated),
        "policies": np.full(episode.length, policy),
        "seeds": np.full(episode.length, episode.seed),
        **{f"{VECTORS}/{name}": rows[:-1] for name, rows in episode.vectors.items()},
        **{f"{NEXT_VECTORS}/{name}": rows[1:] for name, rows in episode.vectors.items()},
    }


def _append(dataset: h5py.Dataset, rows: np.ndarray) -> None:
    begin = len(dataset)
    dataset.resize(begin + len(rows), axis=0)
    dataset[begin:] = rows


def _check(file: h5py.File, path: Path) -> dict[str, np.ndarray]:
    """Refuse what is not DSRL's layout or has no images; the small arrays."""
    for key in KEYS:
        if not isinstance(file.get(key), h5py.Dataset) or not file[key].shape:
            raise DatasetError(f"{path}: '{key}' is missing{did_you_mean(key, file)}")
    rows = len(file["observations"])
    for key in (*OBSERVATIONS, "actions"):
        if len(file[key]) != rows or not rows:
            raise DatasetError(f"{path}: '{key}' has {len(file[key])} rows, not {rows or 'some'}")
    shape, kind = file["observations"].shape, file["observations"].dtype
    images = len(shape) == 4 and shape[3] % 3 == 0
    if not images or 0 in shape or kind != np.uint8:
        raise UserError(
            f"{path} has no images: its observations are {kind} with shape {shape}; they must be "
            "uint8 with shape (N, height, width, 3 for each camera)"
        )
    if file["next_observations"].shape != shape:
        raise DatasetError(f"{path}: 'next_observations' must have the shape of 'observations'")
    numbers = [*NUMBERS, *([COSTS] if isinstance(file.get(COSTS), h5py.Dataset) else [])]
    small = {key: flat(path, key, file[key][()], rows) for key in numbers}
    small |= {key: small[key].astype(bool) for key in ("terminals", "timeouts")}
    for key in ("policies", "seeds"):
        known = file[key][()] if key in file else np.zeros(rows, np.int64)
        small[key] = flat(path, key, known, rows)
    _check_vectors(file, path, rows)
    return {**small, "actions": file["actions"][()]}


def _episodes(
    path: Path,
    keys: list[str],
    vectors: list[str],
    small: dict[str, np.ndarray],
    bounds: np.ndarray,
    policies: list[str],
) -> Iterator[Recorded]:
    """`keys` name the images in the order of the channels."""
    with open_dataset(path) as file:
        for index, (begin, end) in enumerate(itertools.pairwise(bounds)):
            rows = slice(begin, end)
            seen, then = (file[key][rows] for key in OBSERVATIONS)
            if not np.array_equal(seen[1:], then[:-1]):
                raise DatasetError(
                    f"{path}, episode {index}: a row of 'next_observations' is not the observation "
                    "of the row after it"
                )
            images = np.concatenate([seen, then[-1:]])  # (T+1, height, width, 3 cameras)
            parts = np.split(images, len(keys), -1)
            numbers = {key: values[rows] for key, values in small.items()}
            yield Recorded(
                images={
                    key: np.ascontiguousarray(part) for key, part in zip(keys, parts, strict=True)
                },
                vectors={name: _vector(file, name, rows) for name in vectors},
                action=numbers["actions"],
                reward=numbers["rewards"],
                cost=numbers.get(COSTS),
                terminated=bool(small["terminals"][end - 1]),
                policy=policies[small["policies"][begin]],
                seed=int(small["seeds"][begin]),
                arrays={"observations": seen, "next_observations": then, **numbers},
            )


def _vectors(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The vectors of a converted file; others have none."""
    group = file.get(VECTORS)
    return datasets_of(group) if isinstance(group, h5py.Group) else {}


def _check_vectors(file: h5py.File, path: Path, rows: int) -> None:
    for key, data in _vectors(file).items():
        for part in (f"{VECTORS}/{key}", f"{NEXT_VECTORS}/{key}"):
            if part not in file or len(file[part]) != rows or data.ndim != 2:
                raise DatasetError(f"{path}: '{part}' must have {rows} rows of numbers")


def _vector(file: h5py.File, name: str, rows: slice) -> np.ndarray:
    """A vector before each of the T transitions and after the last, (T+1, D)."""
    last = slice(rows.stop - 1, rows.stop)
    return np.concatenate([file[f"{VECTORS}/{name}"][rows], file[f"{NEXT_VECTORS}/{name}"][last]])
