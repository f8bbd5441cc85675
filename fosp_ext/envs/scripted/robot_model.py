"""The protocol of motion models: outline and motion of a robot."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fosp_ext.envs.world_state import WorldState


class BodyDisc(NamedTuple):
    """A part of a robot seen from above, as a disc on the robot's long axis."""

    ahead: float  # of the robot's centre, metres; negative behind it
    radius: float  # metres


class Rollout(NamedTuple):
    """Imagined motion of P candidates at S = H * substeps moments."""

    position: np.ndarray  # (P, S, 2)
    heading: np.ndarray  # (P, S)


def forward_speed(state: WorldState) -> float:
    """Speed along the heading, m/s; negative backwards."""
    look = np.array([np.cos(state.agent_heading), np.sin(state.agent_heading)])
    return float(look @ state.agent_vel)


class RobotModel(Protocol):
    """Imagines where action sequences lead."""

    TOP_SPEED: float  # m/s
    BODY: tuple[BodyDisc, ...]  # the first is the disc that also counts where no heading is known
    horizon: int  # agent steps that are imagined
    moments: int  # S of a rollout
    seconds: float  # between two moments of a rollout; the first is this long after the present

    @classmethod
    def limited(cls, action: np.ndarray, state: WorldState, speed_limit: float) -> np.ndarray:
        """`action` (A,), without what would push a robot that is at its speed limit already."""

    def rollout(self, state: WorldState, actions: np.ndarray) -> Rollout:
        """Motion from `state` under `actions` (P, H, A)."""

    def reach(self, state: WorldState) -> float:
        """Largest distance from its place that the robot can reach within the horizon, metres."""
