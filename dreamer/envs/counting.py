"""A tiny environment for tests: every number it returns encodes its step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np


class CountingEnv(gymnasium.Env):
    """Counts its steps. After step `n` (0 at the reset) of an episode:

    camera `k` shows `pixel(n, k)` everywhere, the reward is `reward_at(n)`, the cost `cost_at(n)`.
    The episode is truncated at step `length`, or terminated at step `end` if that comes first.
    """

    def __init__(
        self,
        length: int = 10,
        end: int | None = None,
        cameras: Sequence[str] = ("vision", "vision_back"),
        size: int = 64,
        action_size: int = 2,
    ) -> None:
        self.task, self.action_repeat = "counting", 1
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self.render_mode = "rgb_array"
        self.cameras = tuple(cameras)
        self.length, self.end, self.size = length, end, size
        self.count = 0
        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(self.cameras, image))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32)

    @staticmethod
    def pixel(count: int, camera: int) -> int:
        """The colour of camera number `camera` after `count` steps."""
        return (count + 100 * camera) % 256

    @staticmethod
    def reward_at(count: int) -> float:
        """The reward for the step that makes the counter `count`."""
        return float(count)

    @staticmethod
    def cost_at(count: int) -> float:
        """The cost of the step that makes the counter `count`: 1 at every third step."""
        return float(count % 3 == 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start counting at 0."""
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {"cost": 0.0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Count one step; the action is checked and ignored."""
        assert self.action_space.contains(np.asarray(action, np.float32)), action
        self.count += 1
        terminated = self.end is not None and self.count >= self.end
        truncated = not terminated and self.count >= self.length
        info = {"cost": self.cost_at(self.count)}
        return self._observe(), self.reward_at(self.count), terminated, truncated, info

    def render(self) -> np.ndarray:  # type: ignore[override]  # always an image
        """A plain (size, size, 3) uint8 image in the colour of the first camera."""
        return self._observe()[self.cameras[0]]

    def _observe(self) -> dict[str, np.ndarray]:
        shape = (self.size, self.size, 3)
        return {
            name: np.full(shape, self.pixel(self.count, index), np.uint8)
            for index, name in enumerate(self.cameras)
        }
