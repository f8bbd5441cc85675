"""Manoeuvres of the Car, whose wheels turn only fully forwards or fully backwards."""

from __future__ import annotations

import numpy as np

AHEAD, LEFT, RIGHT, BACK = range(4)
SIGNS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], float)  # of the wheels, per manoeuvre
LEAST_SIZE = 0.7  # far enough from 0 that noise on the action rarely turns a sign


def wheels(manoeuvre: int, rng: np.random.Generator) -> np.ndarray:
    """An action (2,) that does `manoeuvre`; its size, which changes nothing, is drawn at random."""
    return SIGNS[manoeuvre] * rng.uniform(LEAST_SIZE, 1, 2)
