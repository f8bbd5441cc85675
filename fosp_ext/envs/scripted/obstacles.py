"""Obstacles of a safe policy, as discs and squares with a margin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fosp_ext.envs.scripted.robot_model import BodyDisc
from fosp_ext.envs.scripted.shapes import Discs, Squares
from fosp_ext.envs.world_state import WorldState


@dataclass(frozen=True)
class Obstacles:
    """Discs that the robot's centre must not enter, and things that its outline must not touch."""

    body: tuple[BodyDisc, ...]  # the robot's outline; its first disc alone where it may look anyhow
    margin: float  # metres kept from all of them
    zones: Discs  # for the centre
    solids: tuple[Discs | Squares, ...]  # for the outline

    @classmethod
    def of(cls, state: WorldState, body: tuple[BodyDisc, ...], margin: float) -> Obstacles:
        """All that stands still: hazards, vases and wrong buttons."""
        return cls(
            body,
            margin,
            zones=Discs(state.hazards, state.hazard_radius),
            solids=(
                Discs(wrong_buttons(state), state.button_radius),
                Squares(state.vases, state.vase_headings, state.vase_half_size),
            ),
        )

    @property
    def places(self) -> np.ndarray:
        """The middles of all that stands still: (n, 2)."""
        return np.concatenate([self.zones.centres, *(solid.centres for solid in self.solids)])

    def near(self, place: np.ndarray, reach: float) -> Obstacles:
        """Only those that a robot whose centre stays within `reach` of `place` could meet."""
        reach = reach + self.margin
        outline = reach + max(disc.ahead + disc.radius for disc in self.body)
        solids = tuple(solid.near(place, outline) for solid in self.solids)
        return replace(self, zones=self.zones.near(place, reach), solids=solids)

    def widened(self, by: float) -> Obstacles:
        """The same with a wider margin."""
        return replace(self, margin=self.margin + by)

    def and_moving(self, state: WorldState, moments: np.ndarray) -> Obstacles:
        """These, and the gremlins where they will be at `moments` (S,), seconds from now.

        Depths can then be asked for at places (..., S, 2) only.
        """
        boxes = Squares(
            gremlins_at(state, moments), state.gremlin_headings, state.gremlin_half_size
        )
        return replace(self, solids=(*self.solids, boxes))

    def depth(self, position: np.ndarray, heading: np.ndarray | None = None) -> np.ndarray:
        """Depth of each place (..., 2) inside the deepest obstacle, 0 outside all: (...,).

        Without `heading` (...,) the outline is its first disc, whichever way the robot looks.
        """
        x, y = position[..., 0], position[..., 1]
        depth = self.zones.depth(x, y, self.margin)
        for disc in self.body if heading is not None else self.body[:1]:
            at = (x, y)
            if heading is not None and disc.ahead:
                at = (x + disc.ahead * np.cos(heading), y + disc.ahead * np.sin(heading))
            for solid in self.solids:
                np.maximum(depth, solid.depth(*at, disc.radius + self.margin), out=depth)
        return depth


def wrong_buttons(state: WorldState) -> np.ndarray:
    """All buttons but the one to press: (n, 2)."""
    ways = np.linalg.norm(state.buttons - state.goal_pos, axis=1)
    return state.buttons[ways > state.button_radius]


def gremlins_at(state: WorldState, moments: np.ndarray) -> np.ndarray:
    """Places of the gremlins at `moments` (S,), seconds from now: (n, S, 2).

    Each runs around its circle at 1 rad/s, clockwise from +y. Their present places tell the phase,
    as they trail a little behind the clock.
    """
    offset = state.gremlins - state.gremlin_centers  # (n, 2); all zero at the start: phase 0
    phase = np.arctan2(offset[:, 0], offset[:, 1])[:, None] + moments  # (n, S)
    circle = state.gremlin_travel * np.stack([np.sin(phase), np.cos(phase)], -1)
    return state.gremlin_centers[:, None] + circle
