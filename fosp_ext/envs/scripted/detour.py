"""Detours to random places, so that not every recorded path leads to the goal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fosp_ext.envs.scripted.base import ScriptedPolicy
from fosp_ext.envs.world_state import WorldState

ON_COURSE, ASTRAY = (1.0, 5.0), (1.0, 4.0)  # seconds that either lasts, at least and at most
DISTANCE = (0.5, 2.5)  # metres from the robot to the target of a detour, at least and at most
ARRIVED = 0.3  # metres from there that end the detour


class Detour:
    """Wraps a policy: it heads for the goal and for random places in turn, for seconds each.

    inner: the policy that acts.
    rng: draws the seconds, and the places in all directions.
    """

    def __init__(self, inner: ScriptedPolicy, rng: np.random.Generator):
        self.inner, self.rng = inner, rng
        self.reset()

    def reset(self) -> None:
        self.inner.reset()
        self.place: np.ndarray | None = None  # target of the detour (2,); None: on course
        self.until = self.rng.uniform(*ON_COURSE)  # seconds since the reset of the world

    def act(self, state: WorldState) -> np.ndarray:
        """The inner policy's action (A,) towards the goal, or to the target of the detour."""
        arrived = self.place is not None and np.linalg.norm(self.place - state.agent_pos) < ARRIVED
        if state.time >= self.until or arrived:
            self._turn(state)
        return self.inner.act(state if self.place is None else replace(state, goal_pos=self.place))

    def _turn(self, state: WorldState) -> None:
        """Begin a detour, or end it."""
        if self.place is not None:
            self.place, lasts = None, ON_COURSE
        else:
            bearing = self.rng.uniform(-np.pi, np.pi)
            way = self.rng.uniform(*DISTANCE) * np.array([np.cos(bearing), np.sin(bearing)])
            self.place, lasts = state.agent_pos + way, ASTRAY
        self.until = state.time + self.rng.uniform(*lasts)
