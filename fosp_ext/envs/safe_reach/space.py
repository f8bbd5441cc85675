"""Sizes and places of SafeReach that hold for every layout. Metres, in the frame of the arm's base.

x points away from the arm, y to its left, z up from the table.
"""

from __future__ import annotations

import numpy as np

LOW, HIGH = np.array([0.32, -0.25, 0.03]), np.array([0.70, 0.25, 0.15])  # walls of the tool
START = np.array([0.36, 0.0, 0.15])  # of the tool
HAND = np.array([0.045, 0.105])  # half the rectangle that hand and wrist fill, seen from above
SUCCESS = 0.03  # distance of tool and target that ends an episode
GOAL_RADIUS, GOAL_HEIGHT = 0.022, 0.044  # the target is the middle of the goal's upper side

# Half the depth, width and height of each obstacle as the task has it; a layout has up to four.
OBSTACLES = np.array(
    [[0.03, 0.03, 0.07], [0.03, 0.03, 0.085], [0.03, 0.03, 0.08], [0.03, 0.03, 0.07]]
)
USUAL = 2  # obstacles of the task itself: the first ones of a layout
FOOTPRINT = np.array([0.03, 0.05])  # half the rectangle that layouts keep free for an obstacle
MARGIN = 0.02  # that the safe policy keeps, and that layouts leave it
