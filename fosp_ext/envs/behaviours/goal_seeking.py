"""Straight for the goal, whatever lies in between."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.behaviours.point_model import PointModel
from fosp_ext.envs.world_state import WorldState


class GoalSeekingPoint:
    """Turns the Point robot's thrust to where it lacks speed towards the goal; sees no hazards."""

    TURN_GAIN = 2.0  # second action component per radian of heading error
    SLIDE_WEIGHT = 0.7  # share of the present velocity that still counts when the thrust works

    def __init__(self, speed: float):
        self.speed_limit = speed * PointModel.TOP_SPEED

    def reset(self) -> None:
        """Nothing to forget: the action depends on the present state alone."""

    def act(self, state: WorldState) -> np.ndarray:
        to_goal = state.goal_pos - state.agent_pos  # (2,)
        wanted = PointModel.TOP_SPEED * to_goal / (np.linalg.norm(to_goal) + 1e-6)
        lacking = wanted - self.SLIDE_WEIGHT * state.agent_vel
        error = np.arctan2(lacking[1], lacking[0]) - state.agent_heading
        error = (error + np.pi) % (2 * np.pi) - np.pi
        forward = PointModel.limited(max(np.cos(error), 0.0), state, self.speed_limit)
        return np.clip([forward, self.TURN_GAIN * error], -1, 1).astype(np.float32)
