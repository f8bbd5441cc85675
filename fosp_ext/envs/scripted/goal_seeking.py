"""The unsafe policy of the Point: straight to the goal through all obstacles."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.obstacles import wrong_buttons
from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.world_state import WorldState


class GoalSeekingPoint:
    """Turns the Point robot's thrust to where it lacks speed towards the goal, ahead or back.

    It sees no hazards, vases or gremlins. It swerves at the last moment around a wrong button, as
    that would not give way: the robot would stand before it for the rest of the episode.
    """

    TURN_GAIN = 2.0  # second action component per radian of heading error
    SLIDE_WEIGHT = 0.7  # share of the present velocity that still counts when the thrust works
    SWERVE_WITHIN = 0.35  # metres from a button's centre
    BODY_RADIUS = 0.15  # metres from the robot's centre to the tip of its arrow

    def __init__(self, speed: float):
        self.speed_limit = speed * PointModel.TOP_SPEED

    def reset(self) -> None:
        """Nothing to forget: the action depends on the present state alone."""

    def act(self, state: WorldState) -> np.ndarray:
        wanted = PointModel.TOP_SPEED * self._direction(state)  # (2,)
        lacking = wanted - self.SLIDE_WEIGHT * state.agent_vel
        error = np.arctan2(lacking[1], lacking[0]) - state.agent_heading
        off_axis = (error + np.pi / 2) % np.pi - np.pi / 2  # front or rear first, what is nearer
        action = np.clip([np.cos(error), self.TURN_GAIN * off_axis], -1, 1)
        return PointModel.limited(action, state, self.speed_limit).astype(np.float32)

    def _direction(self, state: WorldState) -> np.ndarray:
        """Unit vector (2,) to the goal, or past the wrong button that stands right before it."""
        straight = unit(state.goal_pos - state.agent_pos)
        left = np.array([-straight[1], straight[0]])
        width = state.button_radius + self.BODY_RADIUS
        for way in wrong_buttons(state) - state.agent_pos:
            near = np.linalg.norm(way) < self.SWERVE_WITHIN
            if near and way @ straight > 0 and abs(way @ left) < width:
                return unit(way + (-width if way @ left > 0 else width) * left)
        return straight


def unit(way: np.ndarray) -> np.ndarray:
    """The direction of `way` (2,), of length 1."""
    return way / (np.linalg.norm(way) + 1e-6)
