"""Manoeuvres of the Car: both wheels at their limit, forwards or backwards."""

from __future__ import annotations

import numpy as np

AHEAD, LEFT, RIGHT, BACK = range(4)
WHEELS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], float)  # the action (2,) per manoeuvre
