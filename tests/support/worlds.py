"""Small worlds for scripted policies, and what to measure in them."""

from __future__ import annotations

import dataclasses

import numpy as np

from fosp_ext.envs.world_state import WorldState

WALL = np.array([[0.0, y] for y in (-0.6, -0.3, 0.0, 0.3, 0.6)])  # closed: neighbours overlap


def world(**changes) -> WorldState:
    """A Point robot at rest on an empty floor, its goal two metres ahead."""
    state = WorldState(
        robot="Point",
        time=0.0,
        agent_pos=np.array([-1.0, 0.0]),
        agent_heading=0.0,
        agent_vel=np.zeros(2),
        agent_yaw_rate=0.0,
        goal_pos=np.array([1.0, 0.0]),
        goal_radius=0.3,
        hazards=np.zeros((0, 2)),
        hazard_radius=0.2,
        vases=np.zeros((0, 2)),
        vase_headings=np.zeros(0),
        vase_half_size=0.1,
        gremlins=np.zeros((0, 2)),
        gremlin_headings=np.zeros(0),
        gremlin_centers=np.zeros((0, 2)),
        gremlin_travel=0.0,
        gremlin_half_size=0.0,
        buttons=np.zeros((0, 2)),
        button_radius=0.0,
        pillars=np.zeros((0, 2)),
        pillar_radius=0.0,
        push_box=np.zeros((0, 2)),
        push_box_heading=0.0,
        push_box_half_size=0.0,
    )
    return dataclasses.replace(state, **changes)


def gap(state: WorldState) -> float:
    """Distance of the robot's centre to the goal's."""
    return float(np.linalg.norm(state.goal_pos - state.agent_pos))


def clearance(states: list[WorldState]) -> float:
    """Least distance of the robot's centre to a hazard's rim."""
    places = np.stack([state.agent_pos for state in states])
    ways = np.linalg.norm(places[:, None] - states[0].hazards, axis=-1)
    return float(ways.min() - states[0].hazard_radius)
