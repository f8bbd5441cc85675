"""A small task to try the program on: no simulator, learned on a laptop within minutes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

SPEED = 0.15  # of the disc in a step, in sides of the ground
DISC, PLACE = 0.12, 0.2  # radius of the disc, and of the place that is to be reached
GOAL = np.array([0.75, 0.75])  # across and up


class Reach(gymnasium.Env):
    """A white disc moves with the action over a blue ground; a step that ends at the green place,
    always the same one, earns 1. Episodes are 25 steps long and begin anywhere else.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's name)

    def __init__(self, size: int = 32, length: int = 25, render_mode: str | None = None) -> None:
        """Images are (size, size, 3)."""
        self.render_mode, self.size, self.length = render_mode, size, length
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        pixels = (np.arange(size) + 0.5) / size
        self._across, self._up = np.meshgrid(pixels, pixels[::-1])
        self._ground = np.full((size, size, 3), (40, 90, 160), np.uint8)
        self._ground[self._within(GOAL, PLACE)] = (60, 160, 80)
        self._place, self._steps = GOAL, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Put the disc somewhere outside the place."""
        super().reset(seed=seed)
        self._steps = 0
        self._place = self.np_random.uniform(0.1, 0.9, 2)
        while self._arrived():
            self._place = self.np_random.uniform(0.1, 0.9, 2)
        return self.render(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by the action, (2,): across and up."""
        moved = self._place + SPEED * np.clip(action, -1, 1)
        self._place = np.clip(moved, 0.05, 0.95)
        self._steps += 1
        return self.render(), float(self._arrived()), False, self._steps >= self.length, {}

    def render(self) -> np.ndarray:  # type: ignore[override]  # always an image
        """The ground from above, (size, size, 3) uint8."""
        image = self._ground.copy()
        image[self._within(self._place, DISC)] = 255
        return image

    def _arrived(self) -> bool:
        return bool(np.linalg.norm(self._place - GOAL) < PLACE)

    def _within(self, centre: np.ndarray, radius: float) -> np.ndarray:
        """Which pixels lie in a disc, (size, size) bool."""
        return (self._across - centre[0]) ** 2 + (self._up - centre[1]) ** 2 < radius**2
