"""Training episodes of an online run, read from the lines of its episodes.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamer.training.episode_log import onsets

LARGEST = 1e100  # beyond it, sums and axes overflow


@dataclass(frozen=True)
class TrainingEpisode:
    """One training episode of T agent steps; arrays are (T,)."""

    number: int
    updates: int  # gradient updates made when it ended
    agent_steps: int  # of all environments together when it ended
    score: float
    cost: float
    violation: np.ndarray  # bool: did the action of this step violate?
    violation_probability: np.ndarray | None  # when the action was chosen; None: not estimated
    online: np.ndarray | None  # bool: did the online policy act? None: there is no policy set
    warned: int  # onsets of violations with a warning before them; 0 without estimates
    judged_warnings: int  # warnings whose next steps are known
    false_warnings: int  # of those, without a violation

    @property
    def onsets(self) -> np.ndarray:
        """Steps at which a violation begins, (T,) bool."""
        return onsets(self.violation)


def training_episode(line: dict[str, Any]) -> TrainingEpisode:
    """Read one line; KeyError, TypeError or ValueError where it is none."""
    violation = bits(line["violation"])
    p = line.get("violation_probability")
    p = None if p is None else np.array(p, np.float64)
    online = bits(line["online"]) if "online" in line else None
    if any(steps is not None and steps.shape != violation.shape for steps in (p, online)):
        raise ValueError("its lists differ in length")
    if p is not None and not np.all((p >= 0) & (p <= 1)):
        raise ValueError("its probabilities lie outside [0, 1]")
    score, cost = float(line["score"]), float(line["cost"])
    if not len(violation) or not abs(score) + abs(cost) < LARGEST:
        raise ValueError("it has no steps, or no finite score and cost")
    return TrainingEpisode(
        number=int(line["episode"]),
        updates=int(line["updates"]),
        agent_steps=int(line["agent_steps"]),
        score=score,
        cost=cost,
        violation=violation,
        violation_probability=p,
        online=online,
        warned=int(line.get("warned", 0)),
        judged_warnings=int(line.get("judged_warnings", 0)),
        false_warnings=int(line.get("false_warnings", 0)),
    )


def bits(text: str) -> np.ndarray:
    """ "0110" -> (4,) bool."""
    return np.array([int(character) for character in text], bool)


def evenly(episodes: Sequence[TrainingEpisode], most: int) -> list[TrainingEpisode]:
    """At most so many of them, from the first to the last."""
    picks = np.linspace(0, len(episodes) - 1, min(most, len(episodes))).round().astype(int)
    return [episodes[k] for k in picks]
