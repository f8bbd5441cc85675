"""The plan of a dataset: its episodes as a function of the settings, made before any is played.

The spread of real data comes from here: each episode draws its own action noise and speed limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dreamer.data.images import check_side
from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs import (
    QUALITIES,
    check_cameras,
    check_task,
    check_variant,
    check_vectors,
    task_cameras,
)
from fosp_ext.envs.scripted import available_policies

FIELDS_OF_VIEW = ("cameras", "all")
LEAST_SEED = 1_000_000  # datasets never contain the worlds of small, hand-picked evaluation seeds


@dataclass(frozen=True)
class CollectSettings:
    """Settings of a recording. Wrong values are a `UserError` before anything is written."""

    task: str
    cameras: tuple[str, ...]
    size: int  # images are (size, size, 3)
    action_repeat: int
    render: str  # "fast" or "exact"
    episodes: int
    mix: dict[str, float]  # policy -> share of the episodes
    noise: float  # each episode's action noise is drawn between 0 and this standard deviation
    min_speed: float  # each episode's speed limit is drawn between this share and 1
    workers: int  # processes; 0 takes every core
    seed: int
    variant: str = "none"  # of the task (docs/reference/variants.md)
    field_of_view: str = "cameras"  # one of `FIELDS_OF_VIEW`: what the scripted policies know
    vectors: tuple[str, ...] = ()  # low-dimensional observations to record

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", check_task(self.task))
        object.__setattr__(self, "cameras", check_cameras(self.cameras, task_cameras(self.task)))
        object.__setattr__(self, "vectors", check_vectors(self.vectors, self.task))
        object.__setattr__(self, "variant", check_variant(self.variant, self.task).name)
        _check_mix(self.mix, self.task)
        if self.render not in QUALITIES:
            raise UserError(f"render must be one of {', '.join(QUALITIES)}, got '{self.render}'")
        if self.field_of_view not in FIELDS_OF_VIEW:
            raise UserError(
                f"field_of_view must be one of {', '.join(FIELDS_OF_VIEW)}, "
                f"got '{self.field_of_view}'"
            )
        least = {
            "action_repeat": 1,
            "episodes": 1,
            "noise": 0,
            "workers": 0,
            "seed": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        check_side(self.size)
        if not 0 < self.min_speed <= 1:
            raise UserError(f"min_speed must lie above 0 and up to 1, got {self.min_speed}")


@dataclass(frozen=True)
class Recording:
    """Everything that decides one episode. Equal recordings give equal episodes."""

    index: int  # place in the dataset
    policy: str
    seed: int  # of the environment and of the policy's own randomness
    noise: float  # standard deviation of the noise on executed actions
    speed: float  # share of the robot's top speed
    field_of_view: str  # one of `FIELDS_OF_VIEW`


def plan_episodes(settings: CollectSettings) -> list[Recording]:
    """All episodes in the order of the file: shares exact to one episode, evenly interleaved."""
    plan = []
    for index, policy in enumerate(_interleave(_counts(settings.mix, settings.episodes))):
        rng = np.random.default_rng([settings.seed, index])
        plan.append(
            Recording(
                index=index,
                policy=policy,
                seed=int(rng.integers(LEAST_SEED, 2**31)),
                noise=float(rng.uniform(0, settings.noise)),
                speed=float(rng.uniform(settings.min_speed, 1)),
                field_of_view=settings.field_of_view,
            )
        )
    return plan


def _check_mix(mix: dict[str, float], task: str) -> None:
    known = available_policies(task)
    for name, share in mix.items():
        if name not in known:
            raise UserError(
                f"mix: no policy '{name}' for task '{task}'{did_you_mean(name, known)}"
                f" (available: {', '.join(known)})"
            )
        if share < 0:
            raise UserError(f"mix: the share of '{name}' must not be negative, got {share}")
    total = sum(mix.values())
    if abs(total - 1) > 1e-6:
        raise UserError(f"mix: the shares must sum to 1, {mix} sums to {total:.6g}")


def _counts(mix: dict[str, float], episodes: int) -> dict[str, int]:
    """Whole numbers of episodes by largest remainder; they sum to `episodes`."""
    exact = {name: share * episodes for name, share in mix.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: episodes - sum(counts.values())]:
        counts[name] += 1
    return counts


def _interleave(counts: dict[str, int]) -> Iterator[str]:
    """Each policy as often as counted; next comes the one furthest behind its share."""
    total, used = sum(counts.values()), dict.fromkeys(counts, 0)
    for done in range(1, total + 1):
        behind = {name: counts[name] * done / total - used[name] for name in counts}
        name = max(behind, key=behind.__getitem__)
        used[name] += 1
        yield name
