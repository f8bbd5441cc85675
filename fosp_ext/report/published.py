"""Published results to set beside our own: read by eye from plots, so only about 5 % exact.

Source: the result plots of the FOSP authors (C. Cao et al., "Fine-tuning Offline Safe Policy
through World Models", ICLR 2025), for all methods. Offline after 1,000,000 frames of training,
online after 750,000 frames of fine-tuning; episodes of 1,000 frames.
"""

from __future__ import annotations

from typing import NamedTuple

CITATION = (
    "C. Cao et al., Fine-tuning Offline Safe Policy through World Models, ICLR 2025; "
    "values of all methods read by eye from the authors' plots (about 5 % exact): "
    "offline after 1,000,000 frames, online after 750,000 frames"
)
LINK = "https://openreview.net/forum?id=dbuFJg7eaw"


class Published(NamedTuple):
    """One point of a plot: return and cost of an episode."""

    method: str
    phase: str
    score: float
    cost: float


METHODS = ("FOSP", "SafeDreamer", "DreamerV3")
PHASES = ("offline", "online")
VALUES = {  # task -> (return, cost) for each method: offline, online
    "SafetyPointGoal1-v0": (((18.5, 2), (19.2, 2)), ((10.5, 2), (20, 0)), ((17, 82), (26.2, 54))),
    "SafetyPointButton1-v0": (
        ((13.5, 12), (12.9, 2)), ((9, 10), (8.8, 3)), ((15, 157), (21.5, 113)),
    ),
    "SafetyCarGoal2-v0": (((10.7, 2), (12, 1)), ((7, 1), (8.3, 0)), ((16, 240), (25, 180))),
    "SafetyPointGoal2-v0": (((8, 3), (13.8, 1)), ((2.8, 4), (10.8, 0)), ((9.3, 365), (21.2, 206))),
    "SafetyPointPush1-v0": (
        ((4.5, 10), (15.4, 0.5)), ((1.2, 12), (11.4, 0.5)), ((1.2, 25), (17, 28)),
    ),
}  # fmt: skip


def published(task: str) -> list[Published]:
    """The published values of a task; none for most tasks."""
    return [
        Published(method, phase, *values)
        for method, phases in zip(METHODS, VALUES.get(task, ()), strict=False)
        for phase, values in zip(PHASES, phases, strict=True)
    ]
