"""Shared parts of the conversions: facts that a foreign file lacks, and their sources."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.errors import DatasetError, UserError
from dreamer.files import parse_json
from fosp_ext.envs import check_task, environment_facts

NOTE = "fosp"  # the name under which a converted file keeps what its format has no place for
RENDERS = ("fast", "exact")
OPEN = "episodes without an end in the source, taken as cut off by a time limit"


@dataclass(frozen=True)
class Labels:
    """Facts given by the user about a foreign file; None: those of the file."""

    task: str | None = None
    action_repeat: int | None = None
    render: str | None = None
    cameras: tuple[str, ...] | None = None  # names in the order of the file, or key=name
    policy: str | None = None  # of episodes that the file gives no name


class Source(NamedTuple):
    """A foreign dataset, opened."""

    info: DatasetInfo
    total: int  # episodes
    episodes: Iterator[Episode]
    remarks: Counter[str]  # what was changed or left out: how often; complete at the end


Reader = Callable[[Path, Labels], Source]
Writer = Callable[[Path, DatasetInfo, Iterator[Episode]], None]


class Found(NamedTuple):
    """Facts that the arrays of a foreign file show."""

    images: dict[str, tuple[int, ...]]  # key -> shape (..., size, size, 3), in the file's order
    names: dict[str, str]  # key -> camera, unless renamed
    action_size: int


def complete_info(
    path: Path, found: Found, note: dict[str, Any] | None, labels: Labels
) -> tuple[DatasetInfo, dict[str, str]]:
    """The facts from the arrays, from the note of an earlier conversion, and from the labels.

    The labels may not contradict the note; without a note they must name task and action repeat.
    Second result: the key of each camera in the file.
    """
    if note is None:
        keys = _choose_images(path, found, labels.cameras)
        given = _from_labels(path, labels)
    else:
        given = _from_note(path, note)
        for name, told in vars(labels).items():
            have = given.environment.get(name, getattr(given, name, told))
            if told is not None and told != have:
                raise UserError(f"{path} says {name} {have!r} itself, not {told!r}")
        ours = {camera: key for key, camera in found.names.items()}
        missing = [camera for camera in given.cameras if camera not in ours]
        if missing:
            raise DatasetError(f"{path}: the images of camera '{missing[0]}' are missing")
        keys = {camera: ours[camera] for camera in given.cameras}
    size = _size(path, {key: found.images[key] for key in keys.values()})
    info = replace(given, cameras=tuple(keys), size=size, action_size=found.action_size)
    return info, keys


def note_of(info: DatasetInfo) -> dict[str, Any]:
    """The note that `complete_info` reads back."""
    return asdict(info)


def parse_note(path: Path, raw: str | bytes) -> dict[str, Any]:
    """A JSON object; anything else is a `DatasetError`."""
    try:
        note = parse_json(raw)
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


def build_episode(path: Path, index: int, **parts: Any) -> Episode:
    """An episode; arrays that do not make one are a `DatasetError` that names the file."""
    try:
        return Episode(**parts)
    except UserError as error:
        reason = str(error).removeprefix("episode: ")
        raise DatasetError(f"{path}, episode {index}: {reason}") from error


def flat(path: Path, name: str, values: np.ndarray, rows: int) -> np.ndarray:
    """One number for each of `rows`, (rows,); (rows, 1) is understood too."""
    if values.shape == (rows, 1):
        values = values[:, 0]
    if values.shape != (rows,):
        raise DatasetError(f"{path}: '{name}' must have {rows} rows, its shape is {values.shape}")
    return values


def refuse_existing(path: str | Path) -> None:
    """Nothing is overwritten."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already; choose another name or remove it")


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


def _from_note(path: Path, note: dict[str, Any]) -> DatasetInfo:
    missing = [field.name for field in fields(DatasetInfo) if field.name not in note]
    if missing or not isinstance(note["cameras"], list):
        wrong = missing[0] if missing else "cameras"
        raise DatasetError(f"{path}: '{wrong}' is missing or wrong in its note '{NOTE}'")
    known = {field.name: note[field.name] for field in fields(DatasetInfo)}
    return DatasetInfo(**{**known, "cameras": tuple(known["cameras"])})


def _from_labels(path: Path, labels: Labels) -> DatasetInfo:
    if labels.task is None:
        raise UserError(f"{path} does not say its task; give it: --task")
    if labels.action_repeat is None:
        raise UserError(f"{path} does not say its action repeat; give it: --action-repeat")
    render = labels.render or "exact"  # the simulator's own images
    if render not in RENDERS:
        raise UserError(f"render must be one of {', '.join(RENDERS)}, not '{render}'")
    if labels.action_repeat < 1:
        raise UserError(f"action repeat must be at least 1, got {labels.action_repeat}")
    task = check_task(labels.task)
    environment = environment_facts(render)
    return DatasetInfo(task, (), labels.action_repeat, 0, 0, environment)


def _choose_images(path: Path, found: Found, told: tuple[str, ...] | None) -> dict[str, str]:
    """Camera -> key. `told` names all images in order, or chooses some: key=camera."""
    listed = ", ".join(found.images)
    if told is None:
        keys = {found.names[key]: key for key in found.images}
    elif all("=" in word for word in told):
        keys = {camera: key for key, _, camera in (word.partition("=") for word in told)}
    elif len(told) == len(found.images):
        keys = dict(zip(told, found.images, strict=True))
    else:
        raise UserError(
            f"{path} has {len(found.images)} images per step ({listed}) and {len(told)} names "
            "were given; choose some with key=name"
        )
    for key in keys.values():
        if key not in found.images:
            raise UserError(f"{path} has no images '{key}', only {listed}")
    return keys


def _size(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """The one size of all chosen images (..., size, size, 3)."""
    sizes = {side for shape in shapes.values() for side in shape[-3:-1]}
    if len(sizes) != 1:
        listed = ", ".join(f"{key} {shape[-3]}x{shape[-2]}" for key, shape in shapes.items())
        raise UserError(
            f"{path}: images must be square and of one size, they are {listed}; "
            "choose some with --cameras key=name"
        )
    return sizes.pop()
