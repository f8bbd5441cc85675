"""The safe policy: model-predictive control to the goal around all obstacles."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.distance_field import DistanceField
from fosp_ext.envs.scripted.obstacles import Obstacles
from fosp_ext.envs.scripted.planner import Planner
from fosp_ext.envs.scripted.robot_model import RobotModel
from fosp_ext.envs.world_state import WorldState

ROOM = 0.8  # metres of free floor that the distance field knows around the outermost object
MOVED = 0.03  # a vase that moved further than this, in metres, makes the field anew
HIT, PER_METRE = 5.0, 100.0  # score of one moment inside an obstacle, and per metre of depth there
SPEEDING = 10.0  # score of each m/s above the speed limit, on average over the horizon


class SafeDriver:
    """Model-predictive control of any robot: least way to go, obstacles all but forbidden.

    model: how the robot moves and what its outline is.
    planner: searches the action sequences; it must plan `model.horizon` agent steps.
    margin: metres that the robot keeps from all that costs.
    speed: share of the model's top speed to keep to, over 0 and up to 1.
    """

    def __init__(self, model: RobotModel, planner: Planner, margin: float, speed: float):
        self.model, self.planner, self.margin = model, planner, margin
        self.moments = model.seconds * np.arange(1, model.moments + 1)  # (S,)
        self.speed_limit = speed * model.TOP_SPEED
        self.field: DistanceField | None = None
        self.layout = np.zeros((0, 2))  # goal and obstacles that the field was made for

    def reset(self) -> None:
        self.planner.reset()
        self.field = None

    def act(self, state: WorldState) -> np.ndarray:
        """The first action (A,) of the best plan that was found."""
        obstacles = Obstacles.of(state, self.model.BODY, self.margin)
        field = self._field_of(state, obstacles)
        moving = obstacles.and_moving(state, self.moments)
        near = moving.near(state.agent_pos, self.model.reach(state))

        def score(actions: np.ndarray) -> np.ndarray:
            return self._score(state, field, near, actions)

        return self.planner.best(score).astype(np.float32)

    def _score(
        self, state: WorldState, field: DistanceField, near: Obstacles, actions: np.ndarray
    ) -> np.ndarray:
        """Way left on average and at the end, and the penalty for obstacles; less is better."""
        position, heading = self.model.rollout(state, actions)  # (P, S, 2), (P, S)
        left = np.maximum(field(position) - state.goal_radius, 0)  # (P, S)
        there = np.logical_or.accumulate(left <= 0, 1)  # (P, S)
        left[there] = 0  # the goal moves elsewhere
        if len(state.buttons):
            position = stopped(position, there)
        depth = near.depth(position, heading)  # (P, S)
        penalty = (HIT * (depth > 0) + PER_METRE * depth).sum(1)
        way = np.hypot(*np.moveaxis(np.diff(position, axis=1), -1, 0))  # (P, S-1)
        speeding = np.maximum(way / self.model.seconds - self.speed_limit, 0).mean(1)
        return left.mean(1) + left[:, -1] + penalty + SPEEDING * speeding

    def _field_of(self, state: WorldState, obstacles: Obstacles) -> DistanceField:
        """The distance field of this world, made anew when what it was made for has changed."""
        layout = np.concatenate([state.goal_pos[None], obstacles.places])
        field = self.field
        same = field is not None and layout.shape == self.layout.shape
        if field is None or not same or np.abs(layout - self.layout).max() > MOVED:
            outermost = np.abs(np.concatenate([layout, state.agent_pos[None]])).max()
            field = DistanceField(state.goal_pos, obstacles, outermost + ROOM)
            self.field, self.layout = field, layout
        return field


def stopped(position: np.ndarray, there: np.ndarray) -> np.ndarray:
    """`position` (P, S, 2), but each candidate stays where it first is `there` (P, S)."""
    count = there.shape[1]
    arrival = np.where(there.any(1), there.argmax(1), count - 1)  # (P,)
    moment = np.minimum(np.arange(count), arrival[:, None])  # (P, S)
    return np.take_along_axis(position, moment[..., None], axis=1)
