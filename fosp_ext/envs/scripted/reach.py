"""Scripted policies of SafeReach: around the obstacles, too close to them, or straight ahead."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.safe_reach.route import Route
from fosp_ext.envs.safe_reach.space import MARGIN
from fosp_ext.envs.safe_reach.state import ReachState

STRIDE = 0.02  # metres that the tool moves in an agent step at an action of length 1
TRAVEL_HEIGHT = 0.10  # of the tool, until it is near the target
NEAR = 0.10  # metres in the plane from which on it goes down
STRAIGHT = 0.05  # and within which it no longer follows the cells of the route
AHEAD = 2  # cells of the route to the place that it steers for
MOVED = 0.01  # metres that an obstacle or the target may move before the route is planned anew
NEAR_MARGINS = (-0.05, -0.01)  # metres that a near miss keeps from obstacles: it cuts into them
MISSES, SPREAD = (0.05, 0.08), 0.5  # metres from the target to places beside it; radians
VISITS = (
    0,
    0,
    0,
    1,
    2,
    100,
)  # places beside the target before the target itself; 100: it never comes
SIDES = (np.pi / 2, 3 * np.pi / 2)  # of the target: those that the tool comes from
STAY = (3, 10)  # agent steps at such a place


class RouteFollower:
    """Follows the shortest way to the target, then goes down to it.

    speed: share of the tool's top speed. margin: metres that the hand keeps from obstacles.
    """

    def __init__(self, speed: float, margin: float = MARGIN):
        self.speed, self.margin = speed, margin
        self.reset()

    def reset(self) -> None:
        """Forget the route."""
        self._route: Route | None = None
        self._planned_for = np.zeros((0, 2))

    def act(self, state: ReachState) -> np.ndarray:
        tool, target = state.tool[:2], state.target[:2]
        left = float(np.linalg.norm(target - tool))
        place = target if left < STRAIGHT else self._route_of(state).ahead(tool, AHEAD)
        height = state.target[2] if left < NEAR else TRAVEL_HEIGHT
        across = _towards(place - tool)
        up = np.clip((height - state.tool[2]) / STRIDE, -1, 1)
        return (self.speed * np.append(across, up)).astype(np.float32)

    def _route_of(self, state: ReachState) -> Route:
        things = np.vstack([state.target[:2], state.obstacles])  # (1 + n, 2)
        known = self._planned_for.shape == things.shape
        if self._route is None or not known or np.abs(things - self._planned_for).max() > MOVED:
            args = (state.target[:2], state.obstacles, state.half_sizes, self.margin)
            self._route, self._planned_for = Route(*args, passable=True), things
        return self._route


class NearMissReach:
    """A route follower that passes obstacles too closely, and the target in half of the episodes.

    rng: draws by how much, and places beside the target to which the tool goes before it.
    """

    def __init__(self, inner: RouteFollower, rng: np.random.Generator):
        self.inner, self.rng = inner, rng
        self.reset()

    def reset(self) -> None:
        self.inner.reset()
        self.inner.margin = self.rng.uniform(*NEAR_MARGINS)
        self._visits = int(self.rng.choice(VISITS))
        self._side = self.rng.uniform(*SIDES)
        self._next_place()

    def act(self, state: ReachState) -> np.ndarray:
        """Towards a place beside the target while visits are left, then to the target: (3,)."""
        if self._visits == 0:
            return self.inner.act(state)
        target = state.target + np.append(self._beside, 0.0)
        if np.linalg.norm(target - state.tool) < STRIDE:
            self._stay -= 1
        if self._stay < 0:
            self._visits -= 1
            self._next_place()
        return self.inner.act(state._replace(target=target))

    def _next_place(self) -> None:
        angle = self._side + self.rng.uniform(-SPREAD, SPREAD)
        distance = self.rng.uniform(*MISSES)
        self._beside = distance * np.array([np.cos(angle), np.sin(angle)])  # (2,)
        self._stay = int(self.rng.integers(*STAY))


class StraightReach:
    """Goes straight for the target through all obstacles."""

    def __init__(self, speed: float):
        self.speed = speed

    def reset(self) -> None:
        """Nothing to forget: the action depends on the present state alone."""

    def act(self, state: ReachState) -> np.ndarray:
        return (self.speed * _towards(state.target - state.tool)).astype(np.float32)


def _towards(way: np.ndarray) -> np.ndarray:
    """The action along `way` (n,): of length 1, or less where that would lead beyond its end."""
    return way / max(float(np.linalg.norm(way)), STRIDE)
