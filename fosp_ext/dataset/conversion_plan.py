"""What becomes of the episodes of a foreign file: names, sizes, action range and costs.

All readers hand over what they find, so that every format is treated alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.data.episode import COSTS, NO_COSTS, DatasetInfo, Episode
from dreamer.data.images import check_side, resized, trains
from dreamer.errors import DatasetError, UserError, did_you_mean
from fosp_ext.dataset.actions import ActionRange, choose_range, told_range, unit_range
from fosp_ext.dataset.costs import CostFunction, computed, load_cost_function
from fosp_ext.dataset.exchange import NOTE, Found, Labels, Recorded, Source
from fosp_ext.envs import check_task, environment_facts, is_custom

RENDERS = ("fast", "exact")
WITHOUT_COSTS = (
    "no costs: the new file trains dreamerv3 and bc; FOSP and SafeDreamer need --cost-from "
    "MODULE:FUNCTION"
)


@dataclass
class ConversionPlan:
    """How a recorded episode becomes one of ours."""

    path: Path
    info: DatasetInfo
    cameras: dict[str, str]  # camera -> its key in the file
    vectors: dict[str, str]  # vector -> its key in the file
    actions: ActionRange
    cut: bool
    cost: CostFunction | None
    unused: tuple[str, ...]  # observations that are left out
    said: tuple[str, ...]  # what holds for all episodes
    remarks: Counter[str] = field(default_factory=Counter)

    def source(self, total: int, recorded: Iterator[Recorded]) -> Source:
        """The dataset, of `total` episodes."""
        episodes = (self.episode(index, each) for index, each in enumerate(recorded))
        return Source(self.info, total, episodes, self.remarks, self.said)

    def episode(self, index: int, recorded: Recorded) -> Episode:
        """One of ours. Arrays that do not make one are a `DatasetError` that names the file."""
        where = f"{self.path}, episode {index}"
        for key in self.unused:
            self.remarks[f"episodes whose observations '{key}' were left out"] += 1
        T, cost, reward = len(recorded.action), recorded.cost, recorded.reward
        if self.cost is not None:
            cost, other = computed(self.cost, recorded.arrays, T, where)
            reward = reward if other is None else other
        try:
            return Episode(
                images={
                    name: self.sized(recorded.images, key) for name, key in self.cameras.items()
                },
                action=self.actions.scaled(recorded.action, where, self.cut, self.remarks),
                reward=np.asarray(reward, np.float32),
                cost=np.zeros(T, np.float32) if cost is None else np.asarray(cost, np.float32),
                terminated=recorded.terminated,
                policy=recorded.policy,
                seed=recorded.seed,
                vectors={
                    name: _rows(_part(recorded.vectors, key)) for name, key in self.vectors.items()
                },
            )
        except UserError as error:
            reason = str(error).removeprefix("episode: ")
            if reason == str(error):  # about something else than the arrays of an episode
                raise
            raise DatasetError(f"{where}: {reason}") from error

    def sized(self, images: Mapping[str, np.ndarray], key: str) -> np.ndarray:
        """The images of a key, (T+1, size, size, 3)."""
        frames, side = _part(images, key), self.info.size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise UserError(
                f"episode: images '{key}' must be uint8 with shape (T+1, height, width, 3), they "
                f"are {frames.dtype} with shape {frames.shape}"
            )
        if frames.shape[1:3] == (side, side):
            return frames
        return np.stack([resized(frame, side) for frame in frames])


def plan_conversion(
    path: Path, found: Found, note: dict[str, Any] | None, labels: Labels
) -> ConversionPlan:
    """The facts from the arrays, from the note of an earlier conversion, and from the labels.

    The labels may not contradict the note; without a note they must name task and action repeat.
    """
    names = _renamed(path, found, labels)
    if note is None:
        cameras = _choose_images(path, found, names, labels.cameras)
        given = _from_labels(path, labels)
        custom = is_custom(given.task)
        vectors = {names[key]: key for key in found.vectors} if custom else {}
    else:
        given = _from_note(path, note)
        _check_note(path, given, found, labels)
        cameras = _choose_images(path, found, names, labels.cameras or given.cameras)
        vectors = {names[key]: key for key in found.vectors if key in given.vectors}
        custom = False  # its actions are those of the policy already
    if set(vectors) & set(cameras):
        twice = min(set(vectors) & set(cameras))
        raise UserError(f"'{twice}' would name images and a vector; --rename one: old=new")
    size = _size(path, {key: found.images[key] for key in cameras.values()}, labels.size)
    known = None if custom else unit_range(found.action_size)
    told = told_range(labels.action_low, labels.action_high, found.action_size)
    actions, scaled = choose_range(path, told, None if note else found.bounds, known)
    cost = None if labels.cost_from is None else load_cost_function(labels.cost_from)
    environment = dict(given.environment)
    if custom:
        environment = environment_facts(None, bounds=actions)
    has_costs = cost is not None or (given.has_costs and found.has_costs)
    environment = {fact: text for fact, text in environment.items() if fact != COSTS}
    if not has_costs:
        environment[COSTS] = NO_COSTS
    info = replace(
        given,
        cameras=tuple(cameras),
        size=size,
        action_size=found.action_size,
        environment=environment,
        vectors={name: found.vectors[key] for name, key in vectors.items()},
    )
    lines = [scaled, *_resizing(found, cameras, size), "" if has_costs else WITHOUT_COSTS]
    used = {*cameras.values(), *vectors.values()}
    unused = [key for key in (*found.images, *found.vectors, *found.others) if key not in used]
    said = tuple(line for line in lines if line)
    cut = bool(labels.clip_actions)
    return ConversionPlan(path, info, cameras, vectors, actions, cut, cost, tuple(unused), said)


def _part(parts: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key not in parts:
        raise UserError(f"episode: '{key}' is missing")
    return parts[key]


def _rows(values: np.ndarray) -> np.ndarray:
    """(T+1,) or (T+1, D) -> (T+1, D) float32."""
    return np.asarray(values, np.float32).reshape(len(values), -1)


def _check_note(path: Path, given: DatasetInfo, found: Found, labels: Labels) -> None:
    """Refuse labels that contradict the note, and a note that the arrays contradict."""
    for name in ("task", "action_repeat", "render"):
        told = getattr(labels, name)
        have = given.environment.get(name, getattr(given, name, told))
        if told is not None and told != have:
            raise UserError(f"{path} says {name} {have!r} itself, not {told!r}")
    if labels.action_low is not None or labels.action_high is not None:
        raise UserError(f"{path} says itself that its actions lie in -1 to 1")
    missing = [camera for camera in given.cameras if camera not in found.names.values()]
    if missing:
        raise DatasetError(f"{path}: the images of camera '{missing[0]}' are missing")
    missing = [name for name in given.vectors if name not in found.vectors]
    if missing:
        raise DatasetError(f"{path}: the vector '{missing[0]}' is missing")


def _from_note(path: Path, note: dict[str, Any]) -> DatasetInfo:
    """The facts of a note; one without vectors is older than they are."""
    note = {"vectors": {}, **note}
    missing = [each.name for each in fields(DatasetInfo) if each.name not in note]
    kinds: dict[str, Any] = {"cameras": (list, tuple), "environment": dict, "vectors": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(note.get(name), kind)]
    if not wrong and not all(isinstance(fact, str) for fact in note["environment"].values()):
        wrong = ["environment"]
    if missing or wrong:
        name = [*missing, *wrong][0]
        raise DatasetError(f"{path}: '{name}' is missing or wrong in its note '{NOTE}'")
    known = {each.name: note[each.name] for each in fields(DatasetInfo)}
    return DatasetInfo(**{**known, "cameras": tuple(known["cameras"])})


def _from_labels(path: Path, labels: Labels) -> DatasetInfo:
    if labels.task is None:
        raise UserError(f"{path} does not say its task; give it: --task")
    if labels.action_repeat is None:
        raise UserError(f"{path} does not say its action repeat; give it: --action-repeat")
    if labels.action_repeat < 1:
        raise UserError(f"action repeat must be at least 1, got {labels.action_repeat}")
    task = check_task(labels.task)
    render: str | None = labels.render or "exact"  # the simulator's own images
    if is_custom(task):
        if labels.render is not None:
            raise UserError(f"render is a choice of Safety-Gymnasium's tasks, {task} has none")
        render = None
    elif render not in RENDERS:
        raise UserError(f"render must be one of {', '.join(RENDERS)}, not '{render}'")
    return DatasetInfo(task, (), labels.action_repeat, 0, 0, environment_facts(render))


def _renamed(path: Path, found: Found, labels: Labels) -> dict[str, str]:
    """Key -> name of all images and vectors."""
    names = {**found.names, **{key: key for key in found.vectors}}
    keys = {**{key: key for key in names}, **{name: key for key, name in names.items()}}
    for word in labels.rename or ():
        old, equals, new = word.partition("=")
        if not equals or not new:
            raise UserError(f"--rename wants old=new, not '{word}'")
        if old not in keys:
            raise UserError(f"{path} has no '{old}' to rename{_have(names, old)}")
        names[keys[old]] = new
    return names


def _choose_images(
    path: Path, found: Found, names: dict[str, str], told: tuple[str, ...] | None
) -> dict[str, str]:
    """Camera -> key, of all images or of those that are `told`: key, or key=camera."""
    if told is None:
        chosen = [(names[key], key) for key in found.images]
    else:
        keys = {key: key for key in found.images}
        keys |= {each[key]: key for each in (found.names, names) for key in found.images}
        chosen = []
        for word in told:
            key, _, camera = word.partition("=")
            if key not in keys:
                raise UserError(
                    f"{path} has no images '{key}', only {', '.join(found.images)}; --cameras "
                    "chooses some of them, --rename old=new gives a name"
                )
            chosen.append((camera or names[keys[key]], keys[key]))
    cameras = dict(chosen)
    if not cameras or len(cameras) < len(chosen):
        raise UserError(f"each camera needs a name of its own, not {[name for name, _ in chosen]}")
    return cameras


def _have(names: dict[str, str], wrong: str) -> str:
    return did_you_mean(wrong, names) or f"; it has {', '.join(names)}"


def _size(path: Path, shapes: dict[str, tuple[int, ...]], told: int | None) -> int:
    """The side of the new images: as told, or that of all chosen images (..., side, side, 3)."""
    if told is not None:
        return check_side(told)
    sides = {side for shape in shapes.values() for side in shape[-3:-1]}
    if len(sides) != 1 or not trains(min(sides)):
        listed = ", ".join(f"{key} {shape[-2]}x{shape[-3]}" for key, shape in shapes.items())
        raise UserError(
            f"{path}: images to train on are square, of one size, a power of two from 8; these are "
            f"{listed}: --size 64 resizes them, --cameras chooses some"
        )
    return sides.pop()


def _resizing(found: Found, cameras: dict[str, str], size: int) -> Iterator[str]:
    """A line for each camera that is resized."""
    for camera, key in cameras.items():
        height, width = found.images[key][-3:-1]
        if (height, width) != (size, size):
            stretched = "" if height == width else ", stretched to a square"
            yield f"images of {camera} resized from {width}x{height} to {size}x{size}{stretched}"
