"""Scripted policies that record datasets with the help of privileged state.

`safe` plans around all obstacles; `near_miss` plans too closely around them and takes detours;
`unsafe` ignores them; `random` takes smooth random actions. They read the privileged state alone; a
new robot or kind of task is one more entry of `BUILDERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs.scripted.base import NoisyPolicy, ScriptedPolicy
from fosp_ext.envs.scripted.car_goal_seeking import GoalSeekingCar
from fosp_ext.envs.scripted.car_model import CarModel
from fosp_ext.envs.scripted.car_planner import ManoeuvrePlanner
from fosp_ext.envs.scripted.detour import Detour
from fosp_ext.envs.scripted.field_of_view import FieldOfView, field_of_view_limit
from fosp_ext.envs.scripted.goal_seeking import GoalSeekingPoint
from fosp_ext.envs.scripted.near_miss import NearMiss
from fosp_ext.envs.scripted.planner import CrossEntropyPlanner
from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.scripted.push import HeedlessPusher, SafePusher
from fosp_ext.envs.scripted.push_model import PushModel
from fosp_ext.envs.scripted.reach import NearMissReach, RouteFollower, StraightReach
from fosp_ext.envs.scripted.safe import SafeDriver
from fosp_ext.envs.scripted.smooth_random import SmoothRandom, SmoothRandomDriver
from fosp_ext.envs.tasks import REACH

__all__ = ["ScriptedPolicy", "available_policies", "make_scripted_policy"]

HORIZON_SECONDS = 1.04  # 13 agent steps at action repeat 4: longer than the Point needs to stop
CAR_HORIZON_SECONDS = 1.6  # 10 agent steps; the Car stops within one, so this is for finding ways
PUSH_HORIZON_SECONDS = 1.44  # as long as it takes to go half around the box
# Samples cost little, as numpy's overhead per call dominates; rounds cost in full.
PUSH_SEARCH = {"samples": 256, "rounds": 2, "fresh": 64}
MARGIN, MARGIN_PER_NOISE = 0.04, 0.1  # metres kept from obstacles, more where actions are noisy


@dataclass(frozen=True)
class PolicySpec:
    """The arguments that a scripted policy is built from."""

    rng: np.random.Generator
    noise: float
    speed: float
    action_repeat: int
    action_size: int | None
    cameras: tuple[str, ...]  # field of view of the policy; none: it knows the whole world

    def margin(self) -> float:
        """Metres kept from all that costs."""
        return MARGIN + MARGIN_PER_NOISE * self.noise

    def point_model(self) -> PointModel:
        """The Point robot at this action repeat."""
        horizon = round(HORIZON_SECONDS / (PointModel.ENV_STEP * self.action_repeat))
        return PointModel(max(horizon, 2), self.action_repeat)


Builder = Callable[[PolicySpec], ScriptedPolicy]


def safe_point(spec: PolicySpec) -> ScriptedPolicy:
    """Plans around hazards, vases, wrong buttons and gremlins."""
    model = spec.point_model()
    planner = CrossEntropyPlanner(spec.rng, model.horizon, action_size=2)
    return SafeDriver(model, planner, spec.margin(), spec.speed)


def unsafe_point(spec: PolicySpec) -> ScriptedPolicy:
    """Drives straight for the goal."""
    return GoalSeekingPoint(spec.speed)


def random_point(spec: PolicySpec) -> ScriptedPolicy:
    """Smooth random actions."""
    return SmoothRandomDriver(PointModel, spec.rng, spec.speed)


def safe_car(spec: PolicySpec) -> ScriptedPolicy:
    """Plans around hazards and vases."""
    horizon = max(round(CAR_HORIZON_SECONDS / (CarModel.ENV_STEP * spec.action_repeat)), 2)
    model = CarModel(horizon, spec.action_repeat)
    return SafeDriver(model, ManoeuvrePlanner(spec.rng, horizon), MARGIN, spec.speed)


def unsafe_car(spec: PolicySpec) -> ScriptedPolicy:
    """Turns to the goal and drives straight for it."""
    return GoalSeekingCar(spec.speed)


def random_car(spec: PolicySpec) -> ScriptedPolicy:
    """Smooth random actions."""
    return SmoothRandomDriver(CarModel, spec.rng, spec.speed)


def safe_point_push(spec: PolicySpec) -> ScriptedPolicy:
    """Pushes the box to the goal around hazards and pillars."""
    horizon = round(PUSH_HORIZON_SECONDS / (PointModel.ENV_STEP * spec.action_repeat))
    planner = CrossEntropyPlanner(spec.rng, max(horizon, 2), action_size=2, **PUSH_SEARCH)
    model = PushModel(spec.action_repeat)
    return SafePusher(model, planner, spec.margin(), spec.speed)


def unsafe_point_push(spec: PolicySpec) -> ScriptedPolicy:
    """Pushes the box to the goal through hazards."""
    return HeedlessPusher(safe_point_push(spec))


def safe_reach(spec: PolicySpec) -> ScriptedPolicy:
    """Plans the tool's way around obstacles."""
    return RouteFollower(spec.speed)


def near_miss_reach(spec: PolicySpec) -> ScriptedPolicy:
    """Passes obstacles and targets too closely."""
    return NearMissReach(RouteFollower(spec.speed), spec.rng)


def unsafe_reach(spec: PolicySpec) -> ScriptedPolicy:
    """Moves the tool straight for the target."""
    return StraightReach(spec.speed)


def near_miss(safe: Builder) -> Builder:
    """A safe policy with detours that underestimates the size of obstacles."""
    return lambda spec: Detour(NearMiss(safe(spec), spec.rng), spec.rng)


def by_field_of_view(builder: Builder) -> Builder:
    """The builder's policy, limited to the field of view of the cameras where these are set."""

    def build(spec: PolicySpec) -> ScriptedPolicy:
        policy = builder(spec)
        return FieldOfView(policy, spec.cameras, spec.rng) if spec.cameras else policy

    return build


def random_actions(spec: PolicySpec) -> ScriptedPolicy:
    """Smooth random actions without privileged state; `speed` scales them."""
    assert spec.action_size, "the environment says how long an action is"
    return SmoothRandom(spec.rng, spec.action_size, spec.speed)


POINT: dict[str, Builder] = {
    "safe": by_field_of_view(safe_point),
    "near_miss": by_field_of_view(near_miss(safe_point)),
    "unsafe": by_field_of_view(unsafe_point),
    "random": random_point,
}
PUSHING_POINT: dict[str, Builder] = {
    "safe": safe_point_push,
    "near_miss": near_miss(safe_point_push),
    "unsafe": unsafe_point_push,
    "random": random_point,
}
CAR: dict[str, Builder] = {
    "safe": safe_car,
    "near_miss": near_miss(safe_car),
    "unsafe": unsafe_car,
    "random": random_car,
}
ARM: dict[str, Builder] = {
    "safe": safe_reach,
    "near_miss": near_miss_reach,
    "unsafe": unsafe_reach,
    "random": random_actions,
}
BUILDERS = {
    ("Point", "Goal"): POINT,
    ("Point", "Button"): POINT,
    ("Point", "Push"): PUSHING_POINT,
    ("Car", "Goal"): CAR,
}
TASK_NAME = re.compile(r"Safety(Point|Car|Doggo|Racecar|Ant)([A-Z][A-Za-z]+?)(?:Easy|Hard)?\d-v0")
SAME_RULES = {"Fading": "Goal"}  # only what the cameras see differs


def builders_of(task: str) -> dict[str, Builder]:
    """Builders of the policies that can play `task`; `random` plays every task."""
    if task == REACH:
        return ARM
    match = TASK_NAME.fullmatch(task)
    robot, kind = match.groups() if match else ("", "")
    return BUILDERS.get((robot, SAME_RULES.get(kind, kind)), {"random": random_actions})


def available_policies(task: str) -> tuple[str, ...]:
    """Names of the policies that can play `task`."""
    return tuple(builders_of(task))


def make_scripted_policy(
    name: str,
    task: str,
    rng: np.random.Generator,
    noise: float = 0.0,
    speed: float = 1.0,
    action_repeat: int = 4,
    action_size: int | None = None,
    cameras: Sequence[str] = (),
) -> ScriptedPolicy:
    """The policy `name` for `task`.

    noise: standard deviation of the Gaussian noise that is added to each executed action.
    speed: share of the robot's top speed that it keeps to, over 0 and up to 1.
    action_repeat: simulator steps per agent step, so that plans look equally far in seconds.
    action_size: numbers in an action; needed where `random` is all there is.
    cameras: the field of view of the Point in Goal and Button tasks, where all of them are its
        own. Other policies, and all policies without any `cameras`, know the whole world.
    """
    known = available_policies(task)
    if name not in known:
        raise UserError(
            f"no policy '{name}' for task '{task}'{did_you_mean(name, known)}"
            f" (available: {', '.join(known)})"
        )
    spec = PolicySpec(rng, noise, speed, action_repeat, action_size, field_of_view_limit(cameras))
    policy = builders_of(task)[name](spec)
    return NoisyPolicy(policy, rng, noise) if noise > 0 else policy
