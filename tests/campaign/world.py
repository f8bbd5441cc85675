"""A tiny environment of its own, imported by worker processes: keep its imports light."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

SIDE, STEPS = 16, 12
TASK = f"{__name__}:World"


class World(gymnasium.Env):
    """A spot moves with the action; on the right side it costs. The seed decides everything."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's name)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        image = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"vision": image})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Anywhere."""
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(0.1, 0.9, 2), 0
        return {"vision": self.render()}, {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move; going up earns, being on the right costs."""
        before, self.steps = self.place[1], self.steps + 1
        self.place = np.clip(self.place + 0.2 * np.asarray(action, np.float64), 0.0, 0.999)
        info = {"cost": float(self.place[0] > 0.6)}
        reward = float(self.place[1] - before)
        return {"vision": self.render()}, reward, False, self.steps >= STEPS, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The spot, (SIDE, SIDE, 3) uint8."""
        image = np.full((SIDE, SIDE, 3), 40, np.uint8)
        across, up = (self.place * SIDE).astype(int)
        image[up, across] = 255
        return image
