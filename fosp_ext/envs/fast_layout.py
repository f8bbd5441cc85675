"""Safety-Gymnasium's random layouts with the same random numbers, about fifteen times faster.

A layout is drawn by trial and error: each object gets up to a hundred random places until one is
far enough from the objects before it, and if none is, everything starts again. Crowded tasks try
ten thousand places per layout. The official code handles each of them with numpy, as arrays of two
numbers; here they are Python floats. Both are IEEE doubles and every operation is done in the same
order, so each comparison, and with it each later random number, comes out the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

TRIES = 100  # places tried for one object, as in the official code

Placed = list[tuple[float, float, float]]  # x, y, and the distance kept, without the newcomer's


def speed_up_layouts_(generator: Any) -> None:
    """Replace the two searching methods of a Safety-Gymnasium `RandomGenerator`."""
    generator.sample_layout = partial(_sample_layout, generator)
    generator.sample_goal_position = partial(_sample_goal_position, generator)


def _sample_layout(generator: Any) -> bool:
    """One attempt at placing all objects; on success the layout is in `generator.layout`."""
    margin = generator.placements_margin
    layout: dict[str, np.ndarray] = {}
    placed: Placed = []
    for name, (areas, keepout) in generator.placements.items():
        draw = _drawer(generator, areas, keepout)
        for _ in range(TRIES):
            x, y = draw()
            if _is_free(x, y, keepout, placed):
                break
        else:
            return False
        layout[name] = np.array([x, y])
        placed.append((x, y, keepout + margin))
    generator.layout = layout
    return True


def _sample_goal_position(generator: Any) -> bool:
    """One attempt at a new goal among the objects in `generator.layout`."""
    margin, placements = generator.placements_margin, generator.placements
    areas, keepout = placements["goal"]
    x, y = _drawer(generator, areas, keepout)()
    placed = [
        (*place.tolist(), placements[name][1] + margin) for name, place in generator.layout.items()
    ]
    if not _is_free(x, y, keepout, placed):
        return False
    generator.layout["goal"] = np.array([x, y])
    return True


def _drawer(generator: Any, areas: Any, keepout: float) -> Callable[[], tuple[float, float]]:
    """A function that draws places for one kind of object."""
    if areas is not None:  # it is at home in some part of the arena
        return lambda: tuple(generator.draw_placement(areas, keepout).tolist())
    low_x, low_y, high_x, high_y = generator.placements_extents
    low_x, low_y = low_x + keepout, low_y + keepout
    wide, high = (high_x - keepout) - low_x, (high_y - keepout) - low_y
    uniform = generator.random_generator.random_sample  # numpy's uniform(a, b) is a + (b - a) * it

    def draw() -> tuple[float, float]:
        return low_x + wide * uniform(), low_y + high * uniform()

    return draw


def _is_free(x: float, y: float, keepout: float, placed: Placed) -> bool:
    for other_x, other_y, distance in placed:
        dx, dy = x - other_x, y - other_y
        if math.sqrt(dx * dx + dy * dy) < distance + keepout:
            return False
    return True
