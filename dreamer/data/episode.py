"""Recorded episodes, checked when they are built, and the facts that a dataset's episodes share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dreamer.errors import UserError, shown

ACTION_SCALE = "action_scale"  # a fact of `DatasetInfo.environment`: one number per component


@dataclass(frozen=True)
class DatasetInfo:
    """Facts in which a dataset and an environment must agree."""

    task: str
    cameras: tuple[str, ...]
    action_repeat: int
    size: int  # images are (size, size, 3)
    action_size: int
    environment: dict[str, str] = field(default_factory=dict)  # what else decides what it shows

    @property
    def action_scale(self) -> tuple[float, ...]:
        """Share of the environment's range that an action of [-1, 1] covers, per component.

        1 for all where the environment's facts do not say it.
        """
        numbers = self.environment.get(ACTION_SCALE, "1 " * self.action_size).split()
        try:
            scale = tuple(map(float, numbers))
        except ValueError:
            scale = ()
        if len(scale) != self.action_size or not all(0 < x < math.inf for x in scale):
            raise UserError(
                f"{ACTION_SCALE} must be {self.action_size} numbers above 0, it is "
                f"{shown(' '.join(numbers))}"
            )
        return scale


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

    images: dict[str, np.ndarray]  # camera -> (T+1, height, width, 3) uint8
    action: np.ndarray  # (T, A) float32 in [-1, 1]
    reward: np.ndarray  # (T,) float32
    cost: np.ndarray  # (T,) float32, at least 0
    terminated: bool  # the task truly ended; False: it was cut off by a time limit
    policy: str = "unknown"
    seed: int = 0

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
