"""Way left to a goal in the plane, around obstacles inflated by the hand's rectangle."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.safe_reach.space import HAND, HIGH, LOW
from fosp_ext.envs.shortest_ways import relaxed

SPACING = 0.02
TIGHT, TIGHT_WEIGHT = 0.05, 4.0  # a metre so close to an obstacle counts as up to so many
BLOCKED_WEIGHT = 50.0  # and one within it, where that is passable

_AXES = [np.linspace(low, high, round((high - low) / SPACING) + 1)
         for low, high in zip(LOW[:2], HIGH[:2], strict=True)]  # fmt: skip
CELLS = np.stack(np.meshgrid(*_AXES, indexing="ij"), -1)  # (X, Y, 2): places of the tool


def clearance(places: np.ndarray, centres: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Distance of the hand, with the tool at `places` (..., 2), from the nearest obstacle: (...,).

    `centres` and `half` sizes (n, 2) are of the obstacles. 0 where the hand overlaps one.
    """
    beyond = np.abs(places[..., None, :] - centres) - (half + HAND)  # (..., n, 2)
    return np.linalg.norm(np.maximum(beyond, 0.0), axis=-1).min(-1)


def nearest_cell(place: np.ndarray) -> tuple[int, int]:
    """Indices of the cell nearest to a place (2,)."""
    index = np.rint((place - LOW[:2]) / SPACING).astype(int)
    x, y = np.clip(index, 0, np.array(CELLS.shape[:2]) - 1)
    return int(x), int(y)


class Route:
    """Length of the shortest way to `goal` from every cell, infinite where there is none."""

    def __init__(
        self,
        goal: np.ndarray,
        centres: np.ndarray,
        half: np.ndarray,
        margin: float,
        passable: bool = False,
    ):
        """`goal` (2,); obstacles as for `clearance`, from which `margin` is kept.

        A negative margin lets the hand cut into obstacles by that much. Where they are `passable`,
        there is a way out of them, and through them if there is no other.
        """
        free = clearance(CELLS, centres, half + np.minimum(margin, 0.0))  # (X, Y)
        blocked = free <= max(margin, 0.0)
        tight = 1 + (TIGHT_WEIGHT - 1) * np.clip(1 - free / TIGHT, 0, 1)
        start = np.full(free.shape, np.inf)
        start[nearest_cell(goal)] = 0.0
        through = BLOCKED_WEIGHT if passable else np.inf
        self.distance = relaxed(start, SPACING * np.where(blocked, through, tight))  # (X, Y)

    def __call__(self, place: np.ndarray) -> float:
        """Way left from the cell nearest to a place (2,)."""
        return float(self.distance[nearest_cell(place)])

    def ahead(self, place: np.ndarray, cells: int) -> np.ndarray:
        """The place (2,) that lies so many cells further on the way."""
        x, y = nearest_cell(place)
        for _ in range(cells):
            rows, columns = slice(max(x - 1, 0), x + 2), slice(max(y - 1, 0), y + 2)
            around = self.distance[rows, columns]
            step = np.unravel_index(int(around.argmin()), around.shape)
            x, y = rows.start + int(step[0]), columns.start + int(step[1])
        return CELLS[x, y]
