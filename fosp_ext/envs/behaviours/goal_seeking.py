"""Straight for the goal at full speed, whatever lies in between."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.behaviours.point_model import PointModel
from fosp_ext.envs.world_state import WorldState


class GoalSeekingPoint:
    """Turns the Point robot's thrust to where it lacks speed towards the goal; sees no hazards."""

    TURN_GAIN = 6.0  # yaw rate asked for per radian of heading error, 1/s

    def __init__(self, model: PointModel):
        self.model = model

    def reset(self) -> None:
        """Nothing to forget: the action depends on the present state alone."""

    def act(self, state: WorldState) -> np.ndarray:
        to_goal = state.goal_pos - state.agent_pos  # (2,)
        direction = to_goal / (np.linalg.norm(to_goal) + 1e-6)
        wanted = self.model.top_speed * direction
        lacking = wanted - 0.7 * state.agent_vel  # speed that drag will not leave in place
        error = np.arctan2(lacking[1], lacking[0]) - state.agent_heading
        error = (error + np.pi) % (2 * np.pi) - np.pi
        forward = max(np.cos(error), 0.0)
        turn = self.TURN_GAIN * error / self.model.yaw_gain
        return np.clip([forward * self.model.speed, turn], -1, 1).astype(np.float32)
