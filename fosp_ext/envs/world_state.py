"""Privileged state for scripted policies: positions and speeds of everything in a world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WorldState:
    """One moment of a Safety-Gymnasium world. Metres, radians, seconds, all in the world frame.

    Kinds of objects that a task does not have are empty (0, 2) arrays. The arrays are copies: they
    stay as they are when the environment moves on.
    """

    robot: str  # "Point" or "Car"
    time: float  # simulated seconds since the reset
    agent_pos: np.ndarray  # (2,)
    agent_heading: float  # 0 looks along +x, positive turns left, within [-pi, pi]
    agent_vel: np.ndarray  # (2,)
    agent_yaw_rate: float  # positive turns left
    goal_pos: np.ndarray  # (2,): the goal, or the button to press; NaN in tasks without either
    goal_radius: float  # for the robot's centre (Goal) or the box (Push); a button needs contact,
    # which a robot of radius 0.1 has at this distance
    hazards: np.ndarray  # (n, 2); cost while the robot's centre is within hazard_radius
    hazard_radius: float  # 0 where there are no hazards
    vases: np.ndarray  # (n, 2); squares that cost when touched or moved
    vase_headings: np.ndarray  # (n,)
    vase_half_size: float  # half the side of a vase; 0 where there are none
    gremlins: np.ndarray  # (n, 2): present places of the boxes that run in circles
    gremlin_headings: np.ndarray  # (n,)
    gremlin_centers: np.ndarray  # (n, 2): the middles of those circles
    gremlin_travel: float  # radius of the circles; the phase is `time` at 1 rad/s
    gremlin_half_size: float
    buttons: np.ndarray  # (n, 2): all buttons, the goal's among them; the others cost when touched
    button_radius: float
    pillars: np.ndarray  # (n, 2)
    pillar_radius: float
    push_box: np.ndarray  # (1, 2) in Push tasks, else (0, 2)
    push_box_heading: float
    push_box_half_size: float
