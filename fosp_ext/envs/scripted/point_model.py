"""Analytic motion model of the Point robot, for planning."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.robot_model import BodyDisc, Rollout, forward_speed
from fosp_ext.envs.world_state import WorldState


class PointModel:
    """Thrust along the heading against linear drag: v' = thrust * heading - drag * v.

    A thrust u0 of 1 is the motor's limit (`fosp_ext.envs.action_scale`). The robot slides
    sideways freely. Its yaw rate follows u1 at once, less what friction with the floor holds back.
    As v is linear in the thrusts, the positions of all moments are one matrix product.
    """

    ENV_STEP = 0.02  # seconds of one simulator step of the Point robot
    THRUST = 2.83  # m/s^2
    DRAG = 1.89  # 1/s
    YAW_GAIN = 3.36  # rad/s per unit of action beyond the dead zone
    YAW_DEAD_ZONE = 0.066  # action
    YAW_LIMIT = 3.0  # rad/s
    TOP_SPEED = THRUST / DRAG  # m/s
    # The ball, and the arrow up to its corners.
    BODY: tuple[BodyDisc, ...] = (BodyDisc(0.0, 0.1), BodyDisc(0.1, 0.071))
    SUBSTEPS = 2  # moments per agent step at which positions are known

    def __init__(self, horizon: int, action_repeat: int):
        self.horizon, self.moments = horizon, horizon * self.SUBSTEPS
        self.seconds = self.ENV_STEP * action_repeat / self.SUBSTEPS
        moments = np.arange(1, self.moments + 1)  # (S,)
        fade = np.exp(-self.DRAG * self.seconds)
        gained = (1 - fade) / self.DRAG  # speed per unit of thrust after one substep
        self.coast = (1 - fade**moments) / self.DRAG  # (S,) way per unit of initial speed
        passed = moments[None] - moments[:, None]  # (S, S): row pushes, column arrives
        way = (self.seconds - gained + gained * (1 - fade ** np.maximum(passed, 0))) / self.DRAG
        self.way = np.where(passed >= 0, way, 0.0)  # (S, S)

    @classmethod
    def limited(cls, action: np.ndarray, state: WorldState, speed_limit: float) -> np.ndarray:
        """`action` (2,), without thrust where that would push a robot at its speed limit."""
        at_limit = forward_speed(state) * np.sign(action[0]) >= speed_limit
        return action * [0, 1] if at_limit else action

    def reach(self, state: WorldState) -> float:
        """Largest distance from its place that the robot can reach within the horizon, metres."""
        fastest = max(self.TOP_SPEED, float(np.linalg.norm(state.agent_vel)))
        return fastest * self.seconds * len(self.way)

    @classmethod
    def yaw_rate(cls, turn: np.ndarray) -> np.ndarray:
        """Yaw rates that the second action component leads to, rad/s."""
        effective = np.sign(turn) * np.maximum(np.abs(turn) - cls.YAW_DEAD_ZONE, 0)
        return np.clip(cls.YAW_GAIN * effective, -cls.YAW_LIMIT, cls.YAW_LIMIT)

    def rollout(self, state: WorldState, actions: np.ndarray) -> Rollout:
        """Motion from `state` under `actions` (P, H, 2)."""
        actions = np.repeat(actions, self.SUBSTEPS, axis=1)  # (P, S, 2)
        thrust = self.THRUST * np.clip(actions[..., 0], -1, 1)  # (P, S)
        turned = self.seconds * self.yaw_rate(actions[..., 1])  # (P, S)
        heading = state.agent_heading + np.cumsum(turned, 1)
        middle = heading - turned / 2
        push = np.stack([thrust * np.cos(middle), thrust * np.sin(middle)], 0)  # (2, P, S)
        start = state.agent_pos[:, None, None] + state.agent_vel[:, None, None] * self.coast
        position = start + push @ self.way  # (2, P, S)
        return Rollout(np.moveaxis(position, 0, -1), heading)
