"""The log of training episodes, episodes.jsonl, and the training cost so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.data.episode import VIOLATION
from dreamer.errors import NonFiniteError, UserError
from dreamer.files import atomic_path
from dreamer.functional import violates
from dreamer.training.collector import CollectedEpisode

REGRET_DECAY = 0.99  # share of the cost regret that stays after one more episode
Line = dict[str, Any]


class EpisodeRecord(NamedTuple):
    """A finished training episode, for the logs."""

    line: Line  # of episodes.jsonl, as JSON
    metrics: dict[str, float]  # tags `episode/...`


def describe(
    played: CollectedEpisode,
    env: int,
    updates: int,
    agent_steps: int,
    violation: float = VIOLATION,
) -> EpisodeRecord:
    """The episode of environment `env` that ended after so many updates and agent steps.

    A step violates from the cost `violation` on.
    An estimate that is not finite is a `NonFiniteError`.
    """
    for name, values in played.estimates.items():
        if not np.all(np.isfinite(values)):
            raise NonFiniteError(
                f"an episode of environment {env}: the estimate '{name}' is not finite"
            )
    episode = played.episode
    violations = violates(episode.cost, violation)  # (T,)
    line: Line = {
        "env": env,
        "seed": episode.seed,
        "updates": updates,
        "agent_steps": agent_steps,
        "score": episode.score,
        "cost": episode.total_cost,
        "length": episode.length,
        "terminated": bool(episode.terminated),
        "violations": int(violations.sum()),
        "onsets": int(onsets(violations).sum()),
        "violation": bits(violations),
    }
    metrics = {f"episode/{name}": float(line[name]) for name in ("score", "cost", "length")}
    metrics["episode/violation_rate"] = line["violations"] / line["length"]
    metrics["episode/onsets"] = float(line["onsets"])
    return EpisodeRecord(line, metrics)


def onsets(violations: np.ndarray) -> np.ndarray:
    """Onsets of violations: steps with one after a step without; (T,) bool -> (T,) bool."""
    return violations & ~np.append(False, violations[:-1])


def bits(flags: np.ndarray) -> str:
    """(T,) bool as T characters, 0 or 1."""
    return "".join("1" if flag else "0" for flag in flags)


def next_regret(regret: float, cost: float, episodes: int = 1) -> float:
    """The cost regret after `episodes` more episodes of this mean cost."""
    keep = REGRET_DECAY**episodes
    return keep * regret + (1 - keep) * cost


class EpisodeLog:
    """episodes.jsonl of a run: one line per finished training episode.

    See docs/reference/metrics.md.
    """

    def __init__(self, path: Path, resume_steps: int) -> None:
        """Go on with the file at `path`, or begin it, at `resume_steps` agent steps.

        Episodes that ended later are dropped, they will come again, and so is a last line that a
        crash cut off. A `UserError` names any other line that cannot be read.
        """
        self._path, self._cost = path, _TrainingCost()
        for line in _keep_lines(path, resume_steps):
            self._cost.add(line)

    def __len__(self) -> int:
        """Episodes in the file; the number of the next one."""
        return self._cost.episodes

    def add(self, record: EpisodeRecord) -> dict[str, float]:
        """Write the episode's line, with the number that it has in the file.

        Returns its metrics, and the sums over all so far, `training_cost/...`.
        """
        numbered = {"episode": len(self), **record.line}
        with self._path.open("a") as file:
            file.write(json.dumps(numbered, allow_nan=False) + "\n")
        self._cost.add(record.line)
        return record.metrics | self._cost.metrics()


class _TrainingCost:
    """Running sums over the episodes, the same whether played or read back."""

    def __init__(self) -> None:
        self.episodes = 0
        self._steps, self._cost, self._violating, self._regret = 0, 0.0, 0, 0.0

    def add(self, line: Line) -> None:
        self.episodes += 1
        self._steps += line["length"]
        self._cost += line["cost"]
        self._violating += line["violations"] > 0
        self._regret = next_regret(self._regret, line["cost"])

    def metrics(self) -> dict[str, float]:
        return {
            "training_cost/total": self._cost,
            "training_cost/violating_episodes": float(self._violating),
            "training_cost/rate": self._cost / self._steps,
            "training_cost/ema": self._regret,
        }


def _keep_lines(path: Path, steps: int) -> list[Line]:
    """The episodes up to `steps` agent steps; the file is rewritten if it holds anything else."""
    if not path.exists():
        return []
    text = path.read_text()
    found = text.splitlines()
    kept = []
    for number, words in enumerate(found, 1):
        try:
            line = _parse(words)
        except ValueError as error:
            if number < len(found):
                raise UserError(
                    f"{path}: line {number} is damaged; restore the file, or delete it: "
                    "then its sums begin at 0 again"
                ) from error
            continue
        if line["agent_steps"] <= steps:
            kept.append((words, line))
    whole = "".join(f"{words}\n" for words, _ in kept)
    if whole != text:
        with atomic_path(path) as part:
            part.write_text(whole)
    return [line for _, line in kept]


def _parse(words: str) -> Line:
    """One line of the file; a `ValueError` where it lacks what the sums need."""
    line = json.loads(words)
    needed = ("agent_steps", "length", "cost", "violations")
    if not isinstance(line, dict) or not all(
        isinstance(line.get(name), int | float) for name in needed
    ):
        raise ValueError(f"no numbers {', '.join(needed)}")
    return line
