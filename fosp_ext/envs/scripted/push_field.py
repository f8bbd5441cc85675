"""Distance field of the Push tasks: way left for the box, with zones that robot and box avoid."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.distance_field import BLOCKED_WEIGHT
from fosp_ext.envs.shortest_ways import MOVES

SIDES = np.array(sorted((complex(*move) for move in MOVES), key=np.angle))  # (K,) grid steps
ANGLES = np.angle(SIDES)  # (K,) directions in which the robot pushes the box
GAPS = (np.roll(ANGLES, -1) - ANGLES) % (2 * np.pi)  # (K,) to the next direction
KNOTS = np.concatenate([[ANGLES[-1] - 2 * np.pi], ANGLES, [ANGLES[0] + 2 * np.pi]])
ROBOT_BEHIND = 0.4  # metres from the middle of the box to that of the robot which pushes it
ROUND = 0.5  # metres of way that a turn of one radian around the box counts as

Zones = list[tuple[complex, float]]  # centres and radii, metres


class PushField:
    """Metres of way until the box is at the goal, by its place and the side it is pushed from.

    The robot either pushes the box on in the direction from itself to the box, or goes around it.
    The way of both is relaxed over a grid of places around the origin and 16 directions; a metre
    on which robot or box would be inside one of its zones counts as many. Beyond the grid the
    distance to its rim is added.
    """

    def __init__(
        self,
        goal: complex,
        goal_radius: float,
        robot_zones: Zones,
        box_zones: Zones,
        half_extent: float,
        cells: int = 61,
    ):
        self.half_extent, self.cells = half_extent, cells
        self.spacing = 2 * half_extent / (cells - 1)
        axis = np.linspace(-half_extent, half_extent, cells)
        box = axis[:, None] + 1j * axis  # (G, G)
        robot = box - ROBOT_BEHIND * np.exp(1j * ANGLES)[:, None, None]  # (K, G, G)
        robot_blocked, box_blocked = within(robot, robot_zones), within(box, box_zones)
        around = np.where(robot_blocked, BLOCKED_WEIGHT, 1.0)
        onward = np.where(robot_blocked | box_blocked, BLOCKED_WEIGHT, 1.0)
        start = np.where(within(box, [(goal, goal_radius)]), 0.0, np.inf)
        way = self._relax(np.broadcast_to(start, robot.shape), around, onward)
        self.way = np.concatenate([way[-1:], way, way[:1]])  # (K + 2, G, G): full circle

    def __call__(self, box: np.ndarray, robot: np.ndarray) -> np.ndarray:
        """Way left for boxes and robots at complex places of any shape, interpolated."""
        inside = np.clip(box.real, -self.half_extent, self.half_extent) + 1j * np.clip(
            box.imag, -self.half_extent, self.half_extent
        )
        cell = (inside + self.half_extent * (1 + 1j)) / self.spacing
        side = np.interp(np.angle(box - robot), KNOTS, np.arange(len(KNOTS)))
        low = [np.minimum(part.astype(np.int64), self.cells - 2) for part in (cell.real, cell.imag)]
        first = np.minimum(side.astype(np.int64), len(KNOTS) - 2)
        corner = (first * self.cells + low[0]) * self.cells + low[1]
        x, y, turn = cell.real - low[0], cell.imag - low[1], side - first
        table = self.way.ravel()
        way = np.zeros(box.shape)
        for ahead, share in ((0, 1 - turn), (1, turn)):
            for right, width in ((0, 1 - x), (1, x)):
                at = corner + (ahead * self.cells + right) * self.cells
                way += share * width * (table[at] * (1 - y) + table[at + 1] * y)
        return way + np.abs(box - inside)

    def _relax(self, way: np.ndarray, around: np.ndarray, onward: np.ndarray) -> np.ndarray:
        """Shorten the ways (K, G, G) over pushes and turns until none gets shorter."""
        rim = 2
        inner = slice(rim, rim + self.cells)
        padded = np.pad(way, ((0, 0), (rim, rim), (rim, rim)), constant_values=np.inf)
        best = padded[:, inner, inner]  # a view
        turns = ((-1, ROUND * GAPS), (1, ROUND * np.roll(GAPS, 1)))
        while True:
            before = best.copy()
            for index, step in enumerate(SIDES):
                rows = slice(rim + int(step.real), rim + int(step.real) + self.cells)
                columns = slice(rim + int(step.imag), rim + int(step.imag) + self.cells)
                pushed = padded[index, rows, columns] + self.spacing * abs(step) * onward[index]
                np.minimum(best[index], pushed, out=best[index])
            for shift, length in turns:
                turned = np.roll(best, shift, 0) + length[:, None, None] * around
                np.minimum(best, turned, out=best)
            if np.allclose(best, before, rtol=0, atol=1e-4):
                return before


def within(places: np.ndarray, zones: Zones) -> np.ndarray:
    """Whether each complex place is inside one of the zones."""
    inside = np.zeros(places.shape, bool)
    for centre, radius in zones:
        inside |= np.abs(places - centre) < radius
    return inside
