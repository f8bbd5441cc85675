"""Distance field: way left to the goal around obstacles, for every place."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.obstacles import Obstacles
from fosp_ext.envs.shortest_ways import relaxed

BLOCKED_WEIGHT = 8.0  # a metre inside an obstacle counts as this many
TIGHT_MARGINS, TIGHT_WEIGHT = 1.5, 3.0  # and one within so many more margins, up to so many
FIELD_OF_VIEW_SAMPLES = (
    64  # places between a cell and the goal at which the straight line is tested
)


class DistanceField:
    """Length of the shortest way to `goal` on a square grid around the origin.

    Cells that see the goal carry the straight distance; the others are relaxed from them over 16
    neighbours. The grid has a border of infinite cells, so that no way leads around its edge.
    Beyond the grid the distance to its rim is added, which always points back inside.
    """

    def __init__(self, goal: np.ndarray, obstacles: Obstacles, half_extent: float, cells: int = 95):
        self.half_extent, self.cells = half_extent, cells
        self.spacing = 2 * half_extent / (cells - 1)
        axis = np.linspace(-half_extent, half_extent, cells)
        places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)  # (G, G, 2)
        rim = TIGHT_MARGINS * obstacles.margin
        depth = obstacles.widened(rim).depth(places)  # (G, G)
        tight, blocked = depth > 0, depth > rim
        straight = np.linalg.norm(places - goal, axis=-1)  # (G, G)
        seen = self._sees(goal, places, tight)
        weight = 1 + (TIGHT_WEIGHT - 1) * depth / rim
        weight = self.spacing * np.where(blocked, BLOCKED_WEIGHT, weight)
        self.distance = relaxed(np.where(seen, straight, np.inf), weight)  # (G, G)

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Distance from each place (..., 2), interpolated between cells: (...,)."""
        inside = np.clip(position, -self.half_extent, self.half_extent)
        beyond = np.abs(position - inside).sum(-1)
        cell = (inside + self.half_extent) / self.spacing
        low = np.minimum(cell.astype(np.int64), self.cells - 2)
        x, y = np.moveaxis(cell - low, -1, 0)
        flat = low[..., 0] * self.cells + low[..., 1]
        table = self.distance.ravel()
        left = table[flat] * (1 - y) + table[flat + 1] * y
        right = table[flat + self.cells] * (1 - y) + table[flat + self.cells + 1] * y
        return left * (1 - x) + right * x + beyond

    def _sees(self, goal: np.ndarray, places: np.ndarray, blocked: np.ndarray) -> np.ndarray:
        """Whether the straight line from each cell to the goal meets no blocked cell: (G, G)."""
        goal_cell = (goal + self.half_extent) / self.spacing
        cell = (places + self.half_extent) / self.spacing  # (G, G, 2)
        seen = ~blocked
        for share in np.linspace(0, 1, FIELD_OF_VIEW_SAMPLES):
            at = np.rint(cell + share * (goal_cell - cell)).astype(np.int64)
            at = np.clip(at, 0, self.cells - 1)
            seen &= ~blocked[at[..., 0], at[..., 1]]
        goal_at = np.clip(np.rint(goal_cell).astype(np.int64), 0, self.cells - 1)
        seen[goal_at[0], goal_at[1]] = True
        return seen
