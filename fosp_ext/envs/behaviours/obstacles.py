"""What a safe behaviour must stay clear of, as discs and squares with a margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fosp_ext.envs.world_state import WorldState

# The Point robot seen from above: its ball, and its arrow as a disc through the outer corners.
BODY_DISCS = ((0.0, 0.1), (0.1, 0.071))  # (distance ahead of the centre, radius), metres
VASE_MARGIN = 0.03


@dataclass(frozen=True)
class Obstacles:
    """Discs that the robot's centre must not enter, squares that its body must not touch."""

    discs: np.ndarray  # (n, 2)
    disc_radius: float  # margin included
    squares: np.ndarray  # (m, 2)
    square_headings: np.ndarray  # (m,)
    square_half: float

    @classmethod
    def of(cls, state: WorldState, margin: float) -> Obstacles:
        """The hazards, `margin` wider than they are, and the vases of a world."""
        return cls(
            state.hazards,
            state.hazard_radius + margin,
            state.vases,
            state.vase_headings,
            state.vase_half_size,
        )

    def near(self, centre: np.ndarray, reach: float) -> Obstacles:
        """Only those that something within `reach` of `centre` could meet."""
        size = max(self.disc_radius, 1.5 * self.square_half + 0.2)
        discs = np.linalg.norm(self.discs - centre, axis=1) < reach + size
        squares = np.linalg.norm(self.squares - centre, axis=1) < reach + size
        return Obstacles(
            self.discs[discs],
            self.disc_radius,
            self.squares[squares],
            self.square_headings[squares],
            self.square_half,
        )

    def depth(self, position: np.ndarray, heading: np.ndarray | None = None) -> np.ndarray:
        """How far each place (..., 2) lies inside the deepest obstacle, 0 outside all: (...,).

        Without `heading` (...,) the robot counts as its ball alone, whichever way it looks.
        """
        depth = np.zeros(position.shape[:-1])
        for disc in self.discs:
            way = np.hypot(position[..., 0] - disc[0], position[..., 1] - disc[1])
            np.maximum(depth, self.disc_radius - way, out=depth)
        if not len(self.squares):
            return depth
        for ahead, radius in BODY_DISCS if heading is not None else BODY_DISCS[:1]:
            x, y = position[..., 0], position[..., 1]
            if ahead:
                x, y = x + ahead * np.cos(heading), y + ahead * np.sin(heading)
            np.maximum(depth, self._square_depth(x, y, radius + VASE_MARGIN), out=depth)
        return depth

    def _square_depth(self, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
        """How far discs of `radius` at (x, y) reach into the squares."""
        depth = np.zeros(x.shape)
        for centre, heading in zip(self.squares, self.square_headings, strict=True):
            cos, sin = np.cos(heading), np.sin(heading)
            dx, dy = x - centre[0], y - centre[1]
            outside_x = np.abs(cos * dx + sin * dy) - self.square_half
            outside_y = np.abs(cos * dy - sin * dx) - self.square_half
            way = np.hypot(np.maximum(outside_x, 0), np.maximum(outside_y, 0))
            inside = np.minimum(np.maximum(outside_x, outside_y), 0)
            np.maximum(depth, radius - way - inside, out=depth)
        return depth
