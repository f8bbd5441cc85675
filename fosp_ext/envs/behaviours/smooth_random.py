"""Random actions that change slowly, so that the robot travels instead of trembling on the spot."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.world_state import WorldState


class SmoothRandom:
    """Each action component is its own mean-reverting Gaussian walk, cut off at [-1, 1]."""

    MEMORY = 0.9  # share of the walk that the next agent step keeps: half of it is gone after 0.5 s
    SPREAD = 0.7  # standard deviation of the walk before it is cut off

    def __init__(self, action_size: int, rng: np.random.Generator, speed: float):
        self.rng = rng
        self.scale = np.ones(action_size)  # (A,)
        self.scale[0] = speed
        self.walk = np.zeros(action_size)  # (A,)

    def reset(self) -> None:
        self.walk = self.SPREAD * self.rng.standard_normal(self.walk.shape)

    def act(self, state: WorldState) -> np.ndarray:
        action = self.scale * np.clip(self.walk, -1, 1)
        step = np.sqrt(1 - self.MEMORY**2) * self.SPREAD * self.rng.standard_normal(self.walk.shape)
        self.walk = self.MEMORY * self.walk + step
        return action.astype(np.float32)
