"""Rewards and costs of Safety-Gymnasium's Goal, Button, Push and Fading tasks, from arrays.

The official rules look bodies and geoms up by name, for every object and every contact in every
step. Here a name is looked up once per episode, when MuJoCo has given it a number. The numbers
that come out are the same bit for bit:

- distances are the official expressions on the same positions, in doubles too; a sum of two squares
  is the same in either order, and the one of three is left to numpy;
- a cost is 0 or 1, whether anything costs, so it is enough to find one such contact or distance;
- hazards do not move, so their places are read once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Costs = dict[str, float]  # names as in the official info dict, each 0.0 or 1.0
CostRule = Callable[[], Costs]

NEAR = 1e-9  # metres per second: speeds computed in two ways differ by much less


class Scene:
    """One episode's model and data, with the numbers that MuJoCo gave to the robot's parts."""

    def __init__(self, task: Any) -> None:
        model = task.model
        self.model, self.data = model, task.data
        self.positions = task.data.xpos  # (bodies, 3), a view that follows the simulation
        self.robot = model.body("agent").id
        self.names = [model.geom(index).name for index in range(model.ngeom)]
        own = set(task.agent.body_info.geom_names)
        self._is_robot = np.array([name in own for name in self.names])
        self._touched: set[str] | None = None

    def moved(self) -> None:
        """Drop the contacts of the last step; call it after every simulator step."""
        self._touched = None

    def touched(self) -> set[str]:
        """Names of all geoms in a contact in which a geom of the robot takes part."""
        if self._touched is None:
            pairs = self.data.contact.geom  # (contacts, 2)
            of_robot = pairs[self._is_robot[pairs].any(axis=1)]
            self._touched = {self.names[index] for index in of_robot.ravel().tolist()}
        return self._touched

    def touches(self, kind: str) -> bool:
        """Whether the robot touches a geom whose name starts like that."""
        return any(name.startswith(kind) for name in self.touched())


class TaskRules(Protocol):
    """Reward and goal of a kind of task."""

    def reward(self) -> float:
        """The reward of the step just made. Call it once per step."""

    def achieved(self) -> bool:
        """Whether the goal is reached."""


class GoalRules:
    """Goal and Fading tasks: move to a place."""

    def __init__(self, task: Any, scene: Scene) -> None:
        self._task, self._positions = task, scene.positions
        self._robot, self._goal = scene.robot, scene.model.body("goal").id

    def _distance(self) -> float:
        goal_x, goal_y, _ = self._positions[self._goal].tolist()
        x, y, _ = self._positions[self._robot].tolist()
        dx, dy = goal_x - x, goal_y - y
        return math.sqrt(dx * dx + dy * dy)

    def reward(self) -> float:
        goal, distance = self._task.goal, self._distance()
        reward = (self._task.last_dist_goal - distance) * goal.reward_distance
        self._task.last_dist_goal = distance
        return reward + goal.reward_goal if self.achieved() else reward

    def achieved(self) -> bool:
        return self._distance() <= self._task.goal.size


class ButtonRules(GoalRules):
    """Button tasks: touch the button that the goal marks."""

    def __init__(self, task: Any, scene: Scene) -> None:
        super().__init__(task, scene)
        self._scene = scene

    def reward(self) -> float:
        buttons, distance = self._task.buttons, self._distance()
        reward = (self._task.last_dist_goal - distance) * buttons.reward_distance
        self._task.last_dist_goal = distance
        return reward + buttons.reward_goal if self.achieved() else reward

    def achieved(self) -> bool:
        return f"button{self._task.buttons.goal_button}" in self._scene.touched()


class PushRules:
    """Push tasks: push a box to a place."""

    def __init__(self, task: Any, scene: Scene) -> None:
        self._task, self._positions, self._robot = task, scene.positions, scene.robot
        self._box, self._goal = scene.model.body("push_box").id, scene.model.body("goal").id

    def _box_to_goal(self) -> float:
        return _distance(self._positions[self._box], self._positions[self._goal])

    def reward(self) -> float:
        """Nearer to the box, as long as it is not reached, and the box nearer to the goal."""
        task, box = self._task, self._task.push_box
        robot_to_box = _distance(self._positions[self._box], self._positions[self._robot])
        approaches = task.last_dist_box > box.null_dist * box.size
        reward = (task.last_dist_box - robot_to_box) * box.reward_box_dist * approaches
        task.last_dist_box = robot_to_box
        box_to_goal = self._box_to_goal()
        reward += (task.last_box_goal - box_to_goal) * box.reward_box_goal
        task.last_box_goal = box_to_goal
        return reward + task.goal.reward_goal if self.achieved() else reward

    def achieved(self) -> bool:
        return self._box_to_goal() <= self._task.goal.size


def cost_rules(task: Any, scene: Scene) -> list[CostRule]:
    """One rule per kind of object that can cost something in this episode, in official order."""
    makers = {
        "hazards": _hazard_rule,
        "vases": _vase_rule,
        "buttons": _button_rule,
        "gremlins": _gremlin_rule,
        "pillars": _pillar_rule,
    }
    return [
        makers[obstacle.name](obstacle, scene)
        for obstacle in task._obstacles
        if obstacle.is_constrained
    ]


def _hazard_rule(hazards: Any, scene: Scene) -> CostRule:
    places = np.array(hazards.pos).reshape(-1, 3)[:, :2]  # (n, 2)

    def cost() -> Costs:
        offsets = places - scene.positions[scene.robot, :2]
        distances = np.sqrt(np.sum(np.square(offsets), axis=1))
        return {"cost_hazards": float((distances < hazards.size).any())}

    return cost


def _vase_rule(vases: Any, scene: Scene) -> CostRule:
    addresses = [scene.model.body(f"vase{index}").dofadr[0] for index in range(vases.num)]
    speeds = np.array(addresses)[:, None] + np.arange(3)  # (n, 3): where in qvel

    def cost() -> Costs:
        """Contact, and any vase's speed, even long after a contact.

        The speed of a free body is part of `qvel`. The official code multiplies it with a matrix
        of zeros and ones, whose rounding matters only right at the limit: there we ask it.
        """
        fastest = np.sqrt(np.sum(np.square(scene.data.qvel[speeds]), axis=1).max())
        if abs(fastest - vases.velocity_threshold) < NEAR:
            return {name: float(cost > 0.0) for name, cost in vases.cal_cost().items()}
        return {
            "cost_vases_contact": float(scene.touches("vase")),
            "cost_vases_velocity": float(fastest >= vases.velocity_threshold),
        }

    return cost


def _button_rule(buttons: Any, scene: Scene) -> CostRule:
    def cost() -> Costs:
        if buttons.timer != 0:
            return {}
        wrong = scene.touched() - {f"button{buttons.goal_button}"}
        return {"cost_buttons": float(any(name.startswith("button") for name in wrong))}

    return cost


def _gremlin_rule(gremlins: Any, scene: Scene) -> CostRule:
    return lambda: {"cost_gremlins": float(scene.touches("gremlin"))}


def _pillar_rule(pillars: Any, scene: Scene) -> CostRule:
    return lambda: {"cost_pillars": float(scene.touches("pillar"))}


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between two (3,) places."""
    return math.sqrt(np.sum(np.square(a - b)))
