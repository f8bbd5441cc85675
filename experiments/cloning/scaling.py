"""The units in which actions are cloned: as recorded, or as share of what the motors can do."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

SCALINGS = ("raw", "rescaled")
# Recorded number from which on a motor is at its limit: beyond it no trajectory changes.
LIMITS = {"Point": (0.05, 1.0), "Car": (0.02, 0.02)}


class Scaling(NamedTuple):
    """Between recorded actions and the targets of cloning, both (..., A) in [-1, 1]."""

    unit: Tensor  # (A,): the action that a target of 1 stands for

    def target(self, action: Tensor) -> Tensor:
        """What is learned of a recorded action."""
        return (action / self.unit).clamp(-1, 1)

    def action(self, target: Tensor) -> Tensor:
        """What is executed for a prediction of a target."""
        return target.clamp(-1, 1) * self.unit


def make_scaling(name: str, task: str, action_size: int) -> Scaling:
    """One of `SCALINGS` for the robot of a task; without known limits, both are the same."""
    robot = re.match(r"Safety([A-Z][a-z]+)", task)
    known = LIMITS.get(robot[1]) if robot and name == "rescaled" else None
    return Scaling(torch.tensor(known) if known else torch.ones(action_size))
