"""Random actions that change slowly, so that the robot travels instead of trembling on the spot."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.robot_model import RobotModel
from fosp_ext.envs.world_state import WorldState


class SmoothRandom:
    """Each action component is its own mean-reverting Gaussian walk, cut off at [-1, 1].

    It looks at nothing, so it can act in any environment. `scale` multiplies the actions.
    """

    MEMORY = 0.9  # share of the walk that the next agent step keeps: half of it is gone after 7
    SPREAD = 0.7  # standard deviation of the walk before it is cut off

    def __init__(self, rng: np.random.Generator, action_size: int, scale: float = 1.0):
        self.rng, self.scale = rng, scale
        self.walk = np.zeros(action_size)

    def reset(self) -> None:
        self.walk = self.SPREAD * self.rng.standard_normal(self.walk.shape)

    def act(self, state: object) -> np.ndarray:
        action = self.scale * np.clip(self.walk, -1, 1)
        drawn = self.rng.standard_normal(self.walk.shape)
        self.walk = self.MEMORY * self.walk + np.sqrt(1 - self.MEMORY**2) * self.SPREAD * drawn
        return action.astype(np.float32)


class SmoothRandomDriver:
    """`SmoothRandom` that does not push a robot beyond its speed limit."""

    def __init__(self, robot: type[RobotModel], rng: np.random.Generator, speed: float):
        self.robot, self.speed_limit = robot, speed * robot.TOP_SPEED
        self.walk = SmoothRandom(rng, action_size=2)

    def reset(self) -> None:
        self.walk.reset()

    def act(self, state: WorldState) -> np.ndarray:
        action = self.walk.act(state)
        return self.robot.limited(action, state, self.speed_limit).astype(np.float32)
