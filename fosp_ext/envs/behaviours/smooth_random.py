"""Random actions that change slowly, so that the robot travels instead of trembling on the spot."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.behaviours.point_model import PointModel
from fosp_ext.envs.world_state import WorldState


class SmoothRandomPoint:
    """Each action component is its own mean-reverting Gaussian walk, cut off at [-1, 1]."""

    MEMORY = 0.9  # share of the walk that the next agent step keeps: half of it is gone after 0.5 s
    SPREAD = 0.7  # standard deviation of the walk before it is cut off

    def __init__(self, rng: np.random.Generator, speed: float):
        self.rng = rng
        self.speed_limit = speed * PointModel.TOP_SPEED
        self.walk = np.zeros(2)

    def reset(self) -> None:
        self.walk = self.SPREAD * self.rng.standard_normal(2)

    def act(self, state: WorldState) -> np.ndarray:
        forward, turn = np.clip(self.walk, -1, 1)
        drawn = np.sqrt(1 - self.MEMORY**2) * self.SPREAD * self.rng.standard_normal(2)
        self.walk = self.MEMORY * self.walk + drawn
        forward = PointModel.limited(forward, state, self.speed_limit)
        return np.array([forward, turn], np.float32)
