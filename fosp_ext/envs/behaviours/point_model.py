"""How the Point robot moves, as a formula: the model that the planner imagines with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fosp_ext.envs.world_state import WorldState


class Rollout(NamedTuple):
    """Imagined motion of P candidates at S = H * substeps moments."""

    position: np.ndarray  # (P, S, 2)
    heading: np.ndarray  # (P, S)


class PointModel:
    """Thrust along the heading against linear drag, v' = thrust * u0 * heading - drag * v.

    The robot slides sideways freely, and its yaw rate follows the second action component at once.
    As v is linear in the thrusts, positions of all moments are two matrix products.
    """

    ENV_STEP = 0.02  # seconds of one simulator step of the Point robot
    THRUST = 2.87  # m/s^2 at full action
    DRAG = 1.9  # 1/s
    YAW_GAIN = 1 / 0.317  # rad/s at full action, before the limit
    YAW_LIMIT = 3.0  # rad/s
    SUBSTEPS = 2  # moments per agent step at which positions are known

    def __init__(self, horizon: int, action_repeat: int, speed: float):
        self.horizon, self.speed, self.yaw_gain = horizon, speed, self.YAW_GAIN
        self.seconds = self.ENV_STEP * action_repeat / self.SUBSTEPS
        moments = np.arange(1, horizon * self.SUBSTEPS + 1)  # (S,)
        fade = np.exp(-self.DRAG * self.seconds)
        gained = (1 - fade) / self.DRAG  # speed per unit of thrust after one substep
        self.coast = (1 - fade**moments) / self.DRAG  # (S,) way per unit of initial speed
        passed = moments[None] - moments[:, None]  # (S, S): from the thrust of row to moment of column
        way = (self.seconds - gained + gained * (1 - fade ** np.maximum(passed, 0))) / self.DRAG
        self.way = np.where(passed >= 0, way, 0.0)  # (S, S)

    @property
    def top_speed(self) -> float:
        """Where thrust and drag balance, m/s."""
        return self.speed * self.THRUST / self.DRAG

    def reach(self, state: WorldState) -> float:
        """How far from its present place the robot can get within the horizon, metres."""
        fastest = max(self.top_speed, float(np.linalg.norm(state.agent_vel)))
        return fastest * self.seconds * len(self.way)

    def rollout(self, state: WorldState, actions: np.ndarray) -> Rollout:
        """Motion from the present state under `actions` (P, H, 2), whose first is scaled by `speed`."""
        thrust = np.repeat(self.speed * self.THRUST * actions[..., 0], self.SUBSTEPS, 1)  # (P, S)
        rate = np.clip(self.YAW_GAIN * actions[..., 1], -self.YAW_LIMIT, self.YAW_LIMIT)
        turned = np.repeat(rate * self.seconds, self.SUBSTEPS, 1)  # (P, S)
        heading = state.agent_heading + np.cumsum(turned, 1)
        middle = heading - turned / 2
        push = np.stack([thrust * np.cos(middle), thrust * np.sin(middle)], 0)  # (2, P, S)
        start = state.agent_pos[:, None, None] + state.agent_vel[:, None, None] * self.coast
        position = start + push @ self.way  # (2, P, S)
        return Rollout(np.moveaxis(position, 0, -1), heading)
