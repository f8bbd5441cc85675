"""Partial observability: a policy that knows only what the robot's cameras showed lately.

A recording whose robot turns to goals that no image shows teaches a model that wherever a robot
turns there is a goal: the action tells what the images do not (docs/concepts/scripted_policies.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fosp_ext.envs.scripted.base import ScriptedPolicy
from fosp_ext.envs.world_state import WorldState

AXES = {"vision": 0.0, "vision_back": np.pi}  # camera -> where it looks, against the heading
HALF_VIEW = np.radians(42)  # the cameras of the Point show 45 degrees to either side
REMEMBERED = 1.6  # seconds that something stays known after the last image of it
GOAL_MOVED = 0.05  # metres; a goal that moved further is another one
SEARCH_WAY, SEARCHED = 1.2, 0.3  # metres to where a search leads, and near enough to end it


class FieldOfView:
    """Wraps a policy: it knows only the objects that the cameras had in view within 1.6 s.

    Objects do not occlude each other here, as they are low. Without a goal in mind the policy is
    sent to a place at the robot's side, which turns it round, and from there to another.

    inner: the policy that acts.
    cameras: names of the robot's own cameras, each one of `AXES`.
    rng: draws the side on which a search begins.
    """

    def __init__(self, inner: ScriptedPolicy, cameras: Sequence[str], rng: np.random.Generator):
        self.inner, self.cameras, self.rng = inner, cameras, rng
        self.reset()

    def reset(self) -> None:
        self.inner.reset()
        self.seen: dict[str, np.ndarray] = {}  # kind -> seconds when last in view (n,)
        self.goal: np.ndarray | None = None  # as it was last seen, (2,)
        self.goal_seen = -np.inf
        self.search: np.ndarray | None = None  # where a search leads, (2,)

    def act(self, state: WorldState) -> np.ndarray:
        """The inner policy's action (A,) in the part of the world that is known.

        state: the whole world; missing objects leave its arrays with fewer rows.
        """
        known: dict[str, Any] = {
            **self._known(state, "hazards", state.hazard_radius),
            **self._known(state, "vases", state.vase_half_size, "vase_headings"),
            **self._known(
                state, "gremlins", state.gremlin_half_size, "gremlin_headings", "gremlin_centers"
            ),
            **self._known(state, "buttons", state.button_radius),
        }
        return self.inner.act(replace(state, goal_pos=self._aim(state), **known))

    def _known(
        self, state: WorldState, kind: str, radius: float, *described: str
    ) -> dict[str, np.ndarray]:
        """The objects of a kind that are remembered, and the arrays that describe them."""
        places = getattr(state, kind)  # (n, 2)
        seen = self.seen.get(kind, np.full(len(places), -np.inf))
        seen = self.seen[kind] = np.where(self._shows(state, places, radius), state.time, seen)
        kept = state.time - seen <= REMEMBERED
        return {name: getattr(state, name)[kept] for name in (kind, *described)}

    def _aim(self, state: WorldState) -> np.ndarray:
        """The goal, or without one in mind the place to which a search leads: (2,)."""
        if self._shows(state, state.goal_pos[None], state.goal_radius)[0]:
            self.goal, self.goal_seen, self.search = state.goal_pos, state.time, None
        elif self.goal is not None:
            moved = np.linalg.norm(state.goal_pos - self.goal) > GOAL_MOVED
            if moved or state.time - self.goal_seen > REMEMBERED:
                self.goal = None
        if self.goal is not None:
            return self.goal
        arrived = (
            self.search is not None and np.linalg.norm(self.search - state.agent_pos) < SEARCHED
        )
        if self.search is None or arrived:
            side = state.agent_heading + self.rng.choice([-1, 1]) * np.pi / 2
            self.search = state.agent_pos + SEARCH_WAY * np.array([np.cos(side), np.sin(side)])
        return self.search

    def _shows(self, state: WorldState, places: np.ndarray, radius: float) -> np.ndarray:
        """Whether each object is in some image, half of it or more: (n,)."""
        distance = np.linalg.norm(places - state.agent_pos, axis=1)  # (n,)
        size = np.arcsin(np.clip(radius / (distance + 1e-6), 0, 1))
        return off_axis(state, places, self.cameras) < HALF_VIEW + size / 2


def off_axis(state: WorldState, places: np.ndarray, cameras: Sequence[str]) -> np.ndarray:
    """Radians from the axis of the nearest of `cameras` to each of `places` (n, 2): (n,)."""
    way = places - state.agent_pos  # (n, 2)
    bearing = np.arctan2(way[:, 1], way[:, 0]) - state.agent_heading  # (n,)
    axes = np.array([AXES[camera] for camera in cameras])
    return np.abs((bearing[:, None] - axes + np.pi) % (2 * np.pi) - np.pi).min(1)


def field_of_view_limit(cameras: Sequence[str]) -> tuple[str, ...]:
    """The cameras that limit the field of view: none if one of them looks on from outside."""
    return tuple(cameras) if set(cameras) <= set(AXES) else ()
