"""Recorded episodes, checked when they are built, and the facts that a dataset's episodes share.

An observation has images, each of a camera, and may have vectors: named rows of numbers such as the
angles of joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dreamer.errors import UserError

VIOLATION = 0.5  # default threshold of `dreamer.functional.violates`, in cost
# Facts of `DatasetInfo.environment`.
ACTION_SCALE = "action_scale"  # one number per component
ACTION_LOW, ACTION_HIGH = "action_low", "action_high"  # the environment's own numbers for -1 and 1
COSTS = "costs"
NO_COSTS = "none"  # value of COSTS: nobody recorded costs, those of the episodes are zeros


@dataclass(frozen=True)
class DatasetInfo:
    """Facts in which a dataset and an environment must agree."""

    task: str
    cameras: tuple[str, ...]
    action_repeat: int
    size: int  # images are (size, size, 3)
    action_size: int
    environment: dict[str, str] = field(default_factory=dict)  # what else decides what it shows
    vectors: dict[str, int] = field(default_factory=dict)  # name -> numbers in each observation

    @property
    def has_costs(self) -> bool:
        """Whether the costs are recorded ones; else they are zeros because there were none."""
        return self.environment.get(COSTS) != NO_COSTS

    @property
    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """What -1 and what 1 are in the environment's own numbers, (A,) each; None: not said."""
        low, high = (self.environment.get(fact) for fact in (ACTION_LOW, ACTION_HIGH))
        if low is None or high is None:
            return None
        return tuple(map(float, low.split())), tuple(map(float, high.split()))

    @property
    def action_scale(self) -> tuple[float, ...]:
        """Share of the environment's range that an action of [-1, 1] covers, per component.

        1 for all where the environment's facts do not say it.
        """
        numbers = self.environment.get(ACTION_SCALE, "1 " * self.action_size).split()
        return tuple(map(float, numbers))


def rescaled(action: np.ndarray, scale: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Actions (..., A) of one scale in another, float32, cut off at [-1, 1].

    To the environment they are the same, as long as it is at its limit at the end of `wanted`.
    """
    if tuple(scale) == tuple(wanted):
        return action
    factor = np.array(scale, np.float32) / np.array(wanted, np.float32)  # (A,)
    return np.clip(action * factor, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Episode:
    """An episode: T transitions and the T + 1 images around them.

    `action[t]` was taken after seeing image t; `reward[t]` and `cost[t]` came with image t + 1.
    """

    images: dict[str, np.ndarray]  # camera -> (T+1, side, side, 3) uint8
    action: np.ndarray  # (T, A) float32 in [-1, 1]
    reward: np.ndarray  # (T,) float32
    cost: np.ndarray  # (T,) float32, at least 0
    terminated: bool  # the task truly ended; False: it was cut off by a time limit
    policy: str = "unknown"
    seed: int = 0
    vectors: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (T+1, D) float32

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        T = self.length
        _check("reward", self.reward, (T,), np.float32)
        _check("cost", self.cost, (T,), np.float32)
        _check("action", self.action, (T, self.action.shape[-1]), np.float32)
        if T == 0:
            raise UserError("an episode needs at least one transition, reward is empty")
        if np.any(np.abs(self.action) > 1):
            raise UserError("episode: action must lie in [-1, 1]")
        if np.any(self.cost < 0):
            raise UserError("episode: cost must not be negative")
        if not self.images:
            raise UserError("episode: images must hold at least one camera")
        for camera, frames in self.images.items():
            shape = (T + 1, frames.shape[1], frames.shape[1], 3) if frames.ndim == 4 else None
            _check(f"images/{camera}", frames, shape, np.uint8)
        for name, rows in self.vectors.items():
            _check(f"vectors/{name}", rows, (T + 1, rows.shape[-1] if rows.ndim else 0), np.float32)
            if name in self.images:
                raise UserError(f"episode: '{name}' names a camera and a vector")

    @property
    def length(self) -> int:
        """Transitions T."""
        return len(self.reward)

    @property
    def score(self) -> float:
        """Sum of rewards."""
        return float(self.reward.sum())

    @property
    def total_cost(self) -> float:
        """Sum of costs."""
        return float(self.cost.sum())


def _check(key: str, value: np.ndarray, shape: tuple[int, ...] | None, dtype: type) -> None:
    if value.dtype != dtype:
        raise UserError(f"episode: {key} must be {np.dtype(dtype).name}, it is {value.dtype.name}")
    if value.shape != shape:
        wanted = shape or "(T+1, size, size, 3)"
        raise UserError(f"episode: {key} must have shape {wanted}, it has {value.shape}")
    if dtype == np.float32 and not np.all(np.isfinite(value)):
        raise UserError(f"episode: {key} holds numbers that are not finite")


def observed(
    observations: Sequence[Mapping[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """T + 1 consecutive observations as the images and the vectors of an `Episode`."""
    rows = {name: np.stack([obs[name] for obs in observations]) for name in observations[0]}
    images = {name: values for name, values in rows.items() if is_image(values[0])}
    return images, {name: values for name, values in rows.items() if name not in images}


def is_image(value: np.ndarray) -> bool:
    """Of the two kinds of parts of an observation: an image, not a vector."""
    return value.ndim == 3
