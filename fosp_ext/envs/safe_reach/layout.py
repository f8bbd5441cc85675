"""Layouts of SafeReach: where the goal and the obstacles stand, as a function of the seed alone.

No variant has a say: each shows the obstacles of the same layout, more of them or in another shape.
So a layout has the obstacles of every variant from the start, each with room for every shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fosp_ext.envs.safe_reach.route import Route, clearance
from fosp_ext.envs.safe_reach.space import FOOTPRINT, HAND, MARGIN, OBSTACLES, START, USUAL

GOAL_LOW, GOAL_HIGH = np.array([0.50, -0.20]), np.array([0.68, 0.20])
OBSTACLE_LOW, OBSTACLE_HIGH = np.array([0.42, -0.21]), np.array([0.68, 0.21])
GAP = 0.01  # between obstacles
TRIES = 64  # goals, and places for obstacles, that are drawn at once
ROUNDS = 1000  # of so many goals, before a seed is given up
BLOCKED = 0.5  # share of the seeds whose straight line meets an obstacle; the hand always does
ON_THE_WAY, SCATTER = (0.35, 0.75), 0.05  # of the first obstacle: share of the way, metres aside
MAIN, ADDED, COIN = range(3)  # random streams of a seed


class Layout(NamedTuple):
    """Places on the table of one seed."""

    goal: np.ndarray  # (2,)
    obstacles: np.ndarray  # (4, 2); the task itself shows the first two


def draw_layout(seed: int) -> Layout:
    """The layout of a seed. Around all of its obstacles there is a way to the goal."""
    main, added, coin = (np.random.default_rng([seed, k]) for k in (MAIN, ADDED, COIN))
    blocked = coin.random() < BLOCKED
    sizes = OBSTACLES[:USUAL, :2]
    for _ in range(ROUNDS):
        goals = main.uniform(GOAL_LOW, GOAL_HIGH, (TRIES, 2))
        pairs = main.uniform(OBSTACLE_LOW, OBSTACLE_HIGH, (TRIES, USUAL, 2))
        share = main.uniform(*ON_THE_WAY, (TRIES, 1))
        pairs[:, 0] = START[:2] + share * (goals - START[:2]) + main.normal(0, SCATTER, (TRIES, 2))
        fitting = _inside(pairs[:, 0]) & _apart(pairs[:, 0], pairs[:, 1])
        fitting &= _clear(goals[:, None], pairs).all(1)
        for goal, pair in zip(goals[fitting], pairs[fitting], strict=True):
            if meets(goal, pair, sizes) != blocked or not meets(goal, pair, sizes + HAND):
                continue
            obstacles = _with_added(goal, pair, added)
            if len(obstacles) == len(OBSTACLES):
                return Layout(goal, obstacles)
    raise RuntimeError(f"no layout for seed {seed}")


def meets(goal: np.ndarray, centres: np.ndarray, half: np.ndarray) -> bool:
    """Whether the straight line from the start to `goal` (2,) meets a rectangle, (n, 2) each."""
    line = START[:2] + np.linspace(0, 1, 100)[:, None] * (goal - START[:2])  # (100, 2)
    return bool((np.abs(line[:, None] - centres) <= half).all(-1).any())


def _with_added(goal: np.ndarray, pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The two obstacles and up to two more, as many as there is room for: (2 to 4, 2)."""
    places = pair
    for _ in OBSTACLES[USUAL:]:
        drawn = rng.uniform(OBSTACLE_LOW, OBSTACLE_HIGH, (TRIES, 2))
        fitting = drawn[_clear(goal, drawn) & _apart(drawn[:, None], places).all(1)]
        if len(fitting):
            places = np.vstack([places, fitting[0]])
    half = np.tile(FOOTPRINT, (len(places), 1))
    passable = np.isfinite(Route(goal, places, half, MARGIN)(START[:2]))
    return places if passable else pair


def _inside(places: np.ndarray) -> np.ndarray:
    """Whether obstacles at `places` (..., 2) stand where they may."""
    return np.asarray((places == places.clip(OBSTACLE_LOW, OBSTACLE_HIGH)).all(-1))


def _clear(goal: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Whether obstacles at `places` (..., 2) leave the start and the `goal` (..., 2) free."""
    room, centre = FOOTPRINT + MARGIN, np.zeros((1, 2))
    left = [clearance(end - places, centre, room) for end in (START[:2], goal)]
    return np.greater(np.minimum(*left), 0)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether obstacles at places (..., 2) leave a gap between them: (...,)."""
    return (np.abs(one - other) >= 2 * FOOTPRINT + GAP).any(-1)
