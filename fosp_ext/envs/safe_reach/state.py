"""Privileged state of SafeReach for scripted policies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ReachState(NamedTuple):
    """One moment of an episode. Metres, in the frame of the arm's base; the arrays are copies."""

    tool: np.ndarray  # (3,)
    target: np.ndarray  # (3,): where the tool has to go
    obstacles: np.ndarray  # (n, 2): where they are now, pushed or not
    half_sizes: np.ndarray  # (n, 2): half their depth and width while they stand
