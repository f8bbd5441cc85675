"""The unsafe policy of the Car: straight to the goal through all obstacles."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.car_manoeuvres import AHEAD, LEFT, RIGHT, WHEELS
from fosp_ext.envs.scripted.car_model import CarModel
from fosp_ext.envs.world_state import WorldState


class GoalSeekingCar:
    """Turns on the spot until the Car looks at the goal, then drives; sees no hazards or vases."""

    AIMED, ASTRAY = 0.2, 0.4  # radians of heading error: when turning ends, and when it starts

    def __init__(self, speed: float):
        self.speed_limit = speed * CarModel.TOP_SPEED
        self.turning = True

    def reset(self) -> None:
        self.turning = True

    def act(self, state: WorldState) -> np.ndarray:
        to_goal = state.goal_pos - state.agent_pos  # (2,)
        error = np.arctan2(to_goal[1], to_goal[0]) - state.agent_heading
        error = (error + np.pi) % (2 * np.pi) - np.pi
        self.turning = abs(error) > (self.AIMED if self.turning else self.ASTRAY)
        manoeuvre = (LEFT if error > 0 else RIGHT) if self.turning else AHEAD
        return CarModel.limited(WHEELS[manoeuvre], state, self.speed_limit).astype(np.float32)
