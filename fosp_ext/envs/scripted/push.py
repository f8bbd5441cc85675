"""The safe policy of the Push tasks: model-predictive control of robot and box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fosp_ext.envs.scripted.base import ScriptedPolicy
from fosp_ext.envs.scripted.planner import Planner
from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.scripted.push_field import PushField
from fosp_ext.envs.scripted.push_model import BALL, PushModel
from fosp_ext.envs.scripted.safe import HIT, MOVED, PER_METRE, SPEEDING
from fosp_ext.envs.world_state import WorldState

ROOM = 1.0  # metres of free floor that the field knows around the outermost object
DOCKED = 0.3  # metres between the middles of robot and box that count as being there
BOX_RADIUS = 0.33  # metres that the middle of the box keeps from pillars where the way is planned
TOUCH_MARGIN = 0.03  # metres kept between the robot's ball and a pillar
INSIDE_GOAL = 0.02  # metres that a plan brings the box further than it must, to be sure


class SafePusher:
    """Model-predictive control of the Point robot and the box, robot and hazards kept apart.

    model: how robot and box move.
    planner: searches the action sequences.
    margin: metres that the robot's centre keeps from hazards.
    speed: share of the robot's top speed to keep to, over 0 and up to 1.
    """

    def __init__(self, model: PushModel, planner: Planner, margin: float, speed: float):
        self.model, self.planner, self.margin = model, planner, margin
        self.speed_limit = speed * PointModel.TOP_SPEED
        self.field: PushField | None = None
        self.goal = 0j  # that the field was made for

    def reset(self) -> None:
        self.planner.reset()
        self.field = None

    def act(self, state: WorldState) -> np.ndarray:
        field = self._field_of(state)

        def score(actions: np.ndarray) -> np.ndarray:
            return self._score(state, field, actions)

        return self.planner.best(score).astype(np.float32)

    def _score(self, state: WorldState, field: PushField, actions: np.ndarray) -> np.ndarray:
        """Way left on average and at the end, and the penalty for hazards; less is better."""
        rollout = self.model.rollout(state, actions)
        robot, box = rollout.robot, rollout.box  # (S, P)
        left = field(box, robot) + np.maximum(np.abs(box - robot) - DOCKED, 0)  # (S, P)
        there = np.abs(box - complex(*state.goal_pos)) < state.goal_radius - INSIDE_GOAL / 2
        left[np.logical_or.accumulate(there, 0)] = 0  # the goal moves elsewhere
        depth = np.zeros(left.shape)
        for centre, radius in self._zones(state):
            np.maximum(depth, radius - np.abs(robot - centre), out=depth)
        penalty = (HIT * (depth > 0) + PER_METRE * depth).sum(0)
        pace = np.abs(np.diff(robot, axis=0)) / self.model.seconds
        speeding = np.maximum(pace - self.speed_limit, 0).mean(0)
        return left.mean(0) + left[-1] + penalty + SPEEDING * speeding

    def _zones(self, state: WorldState) -> list[tuple[complex, float]]:
        """Zones that the robot's centre avoids: centres and radii."""
        hazard = state.hazard_radius + self.margin
        pillar = state.pillar_radius + BALL + TOUCH_MARGIN
        zones = [(complex(*place), hazard) for place in state.hazards]
        return zones + [(complex(*place), pillar) for place in state.pillars]

    def _field_of(self, state: WorldState) -> PushField:
        """The field of this world, made anew when its goal moved; all else stays where it is."""
        goal = complex(*state.goal_pos)
        if self.field is None or abs(goal - self.goal) > MOVED:
            places = [state.goal_pos, state.agent_pos, *state.push_box]
            outermost = np.abs(np.stack([*places, *state.hazards, *state.pillars])).max()
            pillars = [(complex(*at), state.pillar_radius + BOX_RADIUS) for at in state.pillars]
            inside = state.goal_radius - INSIDE_GOAL
            self.field = PushField(goal, inside, self._zones(state), pillars, outermost + ROOM)
            self.goal = goal
        return self.field


class HeedlessPusher:
    """Pushes as `pusher` does, and does not see the hazards."""

    def __init__(self, pusher: ScriptedPolicy):
        self.pusher = pusher

    def reset(self) -> None:
        self.pusher.reset()

    def act(self, state: WorldState) -> np.ndarray:
        return self.pusher.act(replace(state, hazards=np.zeros((0, 2))))
