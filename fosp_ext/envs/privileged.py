"""Reading a `WorldState` out of a running Safety-Gymnasium task."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from fosp_ext.envs.world_state import WorldState


def read_world_state(task: Any, robot: str) -> WorldState:
    """The present state of the task's simulation."""
    model, data = task.model, task.data
    agent = model.body("agent").id
    motion = np.zeros(
        6
    )  # angular, then linear velocity of the robot's frame along the world's axes
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, agent, motion, 0)
    look = -data.camera("vision").xmat.reshape(3, 3)[:, 2]  # the front camera looks along -z
    goal_pos, goal_radius = _goal(task)
    vases, vase_turns = _places(task, "vases", "vase{}")
    box, box_turn = _places(task, "push_box", "push_box")
    gremlins, gremlin_turns = _places(task, "gremlins", "gremlin{}obj")
    layout = task.world_info.layout
    centers = [layout[f"gremlin{index}"] for index in range(len(gremlins))]
    return WorldState(
        robot=robot,
        time=float(data.time),
        agent_pos=data.xpos[agent, :2].copy(),
        agent_heading=float(np.arctan2(look[1], look[0])),
        agent_vel=motion[3:5].copy(),
        agent_yaw_rate=float(motion[2]),
        goal_pos=goal_pos,
        goal_radius=goal_radius,
        hazards=_places(task, "hazards", "hazard{}")[0],
        hazard_radius=_size(task, "hazards"),
        vases=vases,
        vase_headings=vase_turns,
        vase_half_size=_size(task, "vases"),
        gremlins=gremlins,
        gremlin_headings=gremlin_turns,
        gremlin_centers=np.array(centers, float).reshape(-1, 2),
        gremlin_travel=_size(task, "gremlins", "travel"),
        gremlin_half_size=_size(task, "gremlins"),
        buttons=_places(task, "buttons", "button{}")[0],
        button_radius=_size(task, "buttons"),
        pillars=_places(task, "pillars", "pillar{}")[0],
        pillar_radius=_size(task, "pillars"),
        push_box=box,
        push_box_heading=float(box_turn[0]) if len(box_turn) else 0.0,
        push_box_half_size=_size(task, "push_box"),
    )


def _places(task: Any, kind: str, body: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 2) and headings (n,) of the bodies of one kind."""
    count = getattr(getattr(task, kind), "num", 1) if hasattr(task, kind) else 0
    bodies = [task.data.body(body.format(index)) for index in range(count)]
    places = [item.xpos[:2] for item in bodies]
    turns = [np.arctan2(item.xmat[3], item.xmat[0]) for item in bodies]
    return np.array(places, float).reshape(-1, 2), np.array(turns, float)


def _size(task: Any, kind: str, attribute: str = "size") -> float:
    return float(getattr(getattr(task, kind), attribute)) if hasattr(task, kind) else 0.0


def _goal(task: Any) -> tuple[np.ndarray, float]:
    """Place (2,) and radius of the goal, which in Button tasks surrounds the button to press."""
    if hasattr(task, "goal"):
        return task.goal.pos[:2].copy(), float(task.goal.size)
    return np.full(2, np.nan), 0.0
