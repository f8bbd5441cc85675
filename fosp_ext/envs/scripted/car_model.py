"""Analytic motion model of the Car robot, for planning."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.robot_model import BodyDisc, Rollout, forward_speed
from fosp_ext.envs.world_state import WorldState


class CarModel:
    """Two driven wheels behind the middle and a free ball in front; it hardly slides sideways.

    Each action component is the torque of one wheel, the first of the right-hand one; 1 is the
    motor's limit (`fosp_ext.envs.action_scale`). Both wheels forward drive ahead, opposite ones
    turn on the spot, and without torque friction stops the car within 0.2 s. From one simulator
    step to the next, forward speed v and yaw rate w become

        v <- KEEP v + GAIN p |p|                                  p = mean of both torques
        w <- YAW_KEEP w + YAW_GAIN t (1 - YAW_LOSS |v|)           t = half their difference

    KEEP is smallest while the car rolls without drive or against it. The constants were fitted to
    episodes of random wheel signs. There the place 3 agent steps ahead is 0.02 m off and the
    heading 0.05 rad, 16 ahead 0.09 m and 0.17 rad (means).
    """

    ENV_STEP = 0.04  # seconds of one simulator step of the Car robot
    KEEP_AHEAD, KEEP_BACK, KEEP_ROLLING = 0.793, 0.90, 0.67
    GAIN_AHEAD, GAIN_BACK = 0.164, 0.074  # m/s
    YAW_KEEP, YAW_GAIN, YAW_LOSS = 0.37, 0.863, 0.46  # 1, rad/s, s/m
    SLIDE = 0.032  # metres from the point that the car turns around ahead to its centre
    TOP_SPEED = GAIN_AHEAD / (1 - KEEP_AHEAD)  # m/s
    BODY: tuple[BodyDisc, ...] = (BodyDisc(-0.02, 0.203),)  # around both bumpers and wheels
    STRIDE = 2  # simulator steps between two moments at which positions are known

    def __init__(self, horizon: int, action_repeat: int):
        self.horizon, self.action_repeat = horizon, action_repeat
        self.seconds = self.ENV_STEP * self.STRIDE
        self.moments = horizon * action_repeat // self.STRIDE

    @classmethod
    def limited(cls, action: np.ndarray, state: WorldState, speed_limit: float) -> np.ndarray:
        """`action` (2,), or zeros where it would push a car that is at its speed limit already."""
        push = np.clip(action, -1, 1).mean()
        at_limit = forward_speed(state) * np.sign(push) >= speed_limit
        return np.zeros_like(action) if at_limit else action

    def reach(self, state: WorldState) -> float:
        """Largest distance from its place that the robot can reach within the horizon, metres."""
        return self.TOP_SPEED * self.seconds * self.moments

    def rollout(self, state: WorldState, actions: np.ndarray) -> Rollout:
        """Motion from `state` under `actions` (P, H, 2)."""
        speed, rate = self._motion(state, actions)  # (n+1, P): n simulator steps
        ahead = self.ENV_STEP * (speed[1:] + speed[:-1]) / 2  # (n, P)
        turned = self.ENV_STEP * (rate[1:] + rate[:-1]) / 2
        heading = state.agent_heading + np.cumsum(turned, 0)
        middle = heading - turned / 2
        cos, sin = np.cos(middle), np.sin(middle)
        aside = self.SLIDE * turned
        way = np.stack([ahead * cos - aside * sin, ahead * sin + aside * cos], -1)  # (n, P, 2)
        position = state.agent_pos + np.cumsum(way, 0)
        known = slice(self.STRIDE - 1, None, self.STRIDE)
        return Rollout(position[known].swapaxes(0, 1), heading[known].T)

    def _motion(self, state: WorldState, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forward speeds and yaw rates (n+1, P), now and after each of n simulator steps."""
        torques = np.clip(actions, -1, 1)  # (P, H, 2)
        push, twist = torques.mean(-1).T, (torques[..., 0] - torques[..., 1]).T / 2  # (H, P)
        gain = np.where(push > 0, self.GAIN_AHEAD, self.GAIN_BACK) * push * np.abs(push)
        keep_ahead = np.where(push > 0, self.KEEP_AHEAD, self.KEEP_ROLLING)
        keep_back = np.where(push < 0, self.KEEP_BACK, self.KEEP_ROLLING)
        turn = self.YAW_GAIN * twist
        steps = self.horizon * self.action_repeat
        speed, rate = np.empty((2, steps + 1, len(actions)))
        speed[0], rate[0] = forward_speed(state), state.agent_yaw_rate
        for n in range(steps):
            h, v = n // self.action_repeat, speed[n]
            speed[n + 1] = np.where(v > 0, keep_ahead[h], keep_back[h]) * v + gain[h]
            rate[n + 1] = self.YAW_KEEP * rate[n] + turn[h] * (1 - self.YAW_LOSS * np.abs(v))
        return speed, rate
