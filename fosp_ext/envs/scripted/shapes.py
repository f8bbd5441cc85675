"""Discs and squares on the floor, and how deep a disc reaches into them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Discs:
    """Discs of one size."""

    centres: np.ndarray  # (n, 2)
    radius: float

    def near(self, place: np.ndarray, reach: float) -> Discs:
        """Only those that a point within `reach` of `place` could meet."""
        ways = np.linalg.norm(self.centres - place, axis=-1)  # (n,)
        return Discs(self.centres[ways < reach + self.radius], self.radius)

    def depth(self, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
        """Depth of discs of `radius` at (x, y) (...,) in the deepest of these: (...,)."""
        depth = np.zeros(x.shape)
        for centre in self.centres:
            way = np.hypot(x - centre[0], y - centre[1])
            np.maximum(depth, self.radius + radius - way, out=depth)
        return depth


@dataclass(frozen=True)
class Squares:
    """Squares of one size, each turned its own way; at rest, or at another place each moment."""

    centres: np.ndarray  # (n, 2), or (n, S, 2) for S moments
    headings: np.ndarray  # (n,)
    half: float  # half the length of a side

    def near(self, place: np.ndarray, reach: float) -> Squares:
        """Only those that a point within `reach` of `place` could meet at some moment."""
        ways = np.linalg.norm(self.centres - place, axis=-1)  # (n,) or (n, S)
        met = ways < reach + np.sqrt(2) * self.half
        met = met if met.ndim == 1 else met.any(1)
        return Squares(self.centres[met], self.headings[met], self.half)

    def depth(self, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
        """Depth of discs of `radius` at (x, y) (..., S) in the deepest of these."""
        depth = np.zeros(x.shape)
        for centre, heading in zip(self.centres, self.headings, strict=True):
            cos, sin = np.cos(heading), np.sin(heading)
            dx, dy = x - centre[..., 0], y - centre[..., 1]
            outside_x = np.abs(cos * dx + sin * dy) - self.half
            outside_y = np.abs(cos * dy - sin * dx) - self.half
            way = np.hypot(np.maximum(outside_x, 0), np.maximum(outside_y, 0))
            inside = np.minimum(np.maximum(outside_x, outside_y), 0)
            np.maximum(depth, radius - way - inside, out=depth)
        return depth
