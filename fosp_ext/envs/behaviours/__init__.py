"""Scripted behaviours that record datasets with the help of privileged state.

`safe` plans around everything that costs, `unsafe` ignores it, `random` wanders. They are written
against `WorldState` alone; a new robot or kind of task is one more entry of `BUILDERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs.behaviours.base import Behaviour, NoisyBehaviour
from fosp_ext.envs.behaviours.goal_seeking import GoalSeekingPoint
from fosp_ext.envs.behaviours.point_model import PointModel
from fosp_ext.envs.behaviours.safe import SafePoint
from fosp_ext.envs.behaviours.smooth_random import SmoothRandomPoint

__all__ = ["Behaviour", "available_behaviours", "make_behaviour"]

HORIZON_SECONDS = 1.04  # 13 agent steps at action repeat 4: longer than the Point needs to stop
MARGIN, MARGIN_PER_NOISE = 0.04, 0.1  # metres kept from hazards, and more where actions are noisy


@dataclass(frozen=True)
class Request:
    """What a behaviour is built from."""

    rng: np.random.Generator
    noise: float
    speed: float
    action_repeat: int

    def point_model(self) -> PointModel:
        """The Point robot at this action repeat."""
        horizon = round(HORIZON_SECONDS / (PointModel.ENV_STEP * self.action_repeat))
        return PointModel(max(horizon, 2), self.action_repeat)


def safe_point(request: Request) -> Behaviour:
    """Plans around hazards and vases."""
    margin = MARGIN + MARGIN_PER_NOISE * request.noise
    return SafePoint(request.point_model(), request.rng, margin, request.speed)


def unsafe_point(request: Request) -> Behaviour:
    """Drives straight for the goal."""
    return GoalSeekingPoint(request.speed)


def random_point(request: Request) -> Behaviour:
    """Wanders about."""
    return SmoothRandomPoint(request.rng, request.speed)


Builder = Callable[[Request], Behaviour]
BUILDERS: dict[tuple[str, str], dict[str, Builder]] = {
    ("Point", "Goal"): {"safe": safe_point, "unsafe": unsafe_point, "random": random_point},
}
TASK_NAME = re.compile(r"Safety(Point|Car|Doggo|Racecar|Ant)([A-Z][A-Za-z]+?)(?:Easy|Hard)?\d-v0")
SAME_RULES = {"Fading": "Goal"}  # only what the cameras see differs


def builders_of(task: str) -> dict[str, Builder]:
    """How to build each behaviour that can play `task`; empty for an unknown one."""
    match = TASK_NAME.fullmatch(task)
    if match is None:
        return {}
    robot, kind = match.groups()
    return BUILDERS.get((robot, SAME_RULES.get(kind, kind)), {})


def available_behaviours(task: str) -> tuple[str, ...]:
    """Names of the behaviours that can play `task`, or a `UserError` where there is none."""
    names = tuple(builders_of(task))
    if not names:
        kinds = ", ".join(f"Safety{robot}{kind}*" for robot, kind in BUILDERS)
        raise UserError(
            f"no scripted behaviour plays task '{task}'; there are behaviours for {kinds}"
            " and their Fading versions"
        )
    return names


def make_behaviour(
    name: str,
    task: str,
    rng: np.random.Generator,
    noise: float = 0.0,
    speed: float = 1.0,
    action_repeat: int = 4,
) -> Behaviour:
    """The behaviour `name` for `task`.

    noise: standard deviation of the Gaussian noise that is added to each executed action.
    speed: share of the robot's top speed that it keeps to, over 0 and up to 1. (Scaling the forward
        action would change nothing: the motor's force saturates at 5 % of it.)
    action_repeat: simulator steps per agent step, so that plans look equally far in seconds.
    """
    known = available_behaviours(task)
    if name not in known:
        raise UserError(
            f"no behaviour '{name}' for task '{task}'{did_you_mean(name, known)}"
            f" (available: {', '.join(known)})"
        )
    behaviour = builders_of(task)[name](Request(rng, noise, speed, action_repeat))
    return NoisyBehaviour(behaviour, rng, noise) if noise > 0 else behaviour
