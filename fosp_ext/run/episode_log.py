"""What an online run tells about each training episode, and what learning has cost so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import NonFiniteError, UserError
from dreamer.files import atomic_path
from dreamer.training.collector import Played
from dreamer.types import VIOLATION
from fosp_ext.report.statistics import next_regret
from fosp_ext.run.warnings import judge_alarms, onsets

DECIMALS = 3  # of p; alarms are judged after rounding, so the file says what was judged
Line = dict[str, Any]


def describe(played: Played, env: int, updates: int, agent_steps: int, alarm: float) -> Line:
    """The line of an episode of environment `env` that ended after so many updates and steps.

    `alarm` is the danger p above which a step is an alarm. An estimate that is not finite is a
    `NonFiniteError`.
    """
    for name, values in played.estimates.items():
        if not np.all(np.isfinite(values)):
            raise NonFiniteError(
                f"an episode of environment {env}: the estimate '{name}' is not finite"
            )
    return {
        "env": env,
        "seed": played.episode.seed,
        "updates": updates,
        "agent_steps": agent_steps,
        **_story(played, alarm),
    }


class EpisodeLog:
    """episodes.jsonl of a run: one line per finished training episode (docs/metrics.md)."""

    def __init__(self, path: Path, resume_steps: int) -> None:
        """Go on with the file at `path`, or begin it, at `resume_steps` agent steps.

        Episodes that ended later are dropped, they will come again, and so is a last line that a
        crash cut off. A `UserError` names any other line that cannot be read.
        """
        self._path, self._price = path, _Price()
        for line in _keep_lines(path, resume_steps):
            self._price.add(line)

    def __len__(self) -> int:
        """Episodes in the file; the number of the next one."""
        return self._price.episodes

    def add(self, line: Line) -> dict[str, float]:
        """Write what `describe` says of an episode, with the number that it has in the file.

        Returns its metrics, tags `episode/...`, and the sums over all so far, `price/...`.
        """
        numbered = {"episode": len(self), **line}
        with self._path.open("a") as file:
            file.write(json.dumps(numbered, allow_nan=False) + "\n")
        self._price.add(line)
        return _metrics(line) | self._price.metrics()


class _Price:
    """Running sums of what the episodes came to, the same whether played or read back."""

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
            "price/cost": self._cost,
            "price/violating_episodes": float(self._violating),
            "price/cost_rate": self._cost / self._steps,
            "price/cost_ema": self._regret,
        }


def _story(played: Played, alarm: float) -> Line:
    """What the episode came to, and step by step what the behaviour thought and did."""
    episode, estimates = played.episode, played.estimates
    violations = episode.cost >= VIOLATION  # (T,)
    line: Line = {
        "score": episode.score,
        "cost": episode.total_cost,
        "length": episode.length,
        "terminated": bool(episode.terminated),
        "violations": int(violations.sum()),
        "onsets": int(onsets(violations).sum()),
        "violation": _bits(violations),
    }
    if "online" in estimates:
        online = estimates["online"] > 0.5  # it is 0.0 or 1.0, (T,)
        line |= {"online_share": float(online.mean()), "online": _bits(online)}
    if "danger" in estimates:
        danger = np.round(estimates["danger"].astype(np.float64), DECIMALS)  # (T,)
        alarms = judge_alarms(danger, violations, alarm)
        line |= {
            "danger_mean": float(danger.mean()),
            "danger_max": float(danger.max()),
            "alarms": alarms.raised,
            "judged_alarms": alarms.judged,
            "false_alarms": alarms.false,
            "foreseen": alarms.foreseen,
            "danger": danger.tolist(),
        }
    return line


def _bits(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _metrics(line: Line) -> dict[str, float]:
    """The numbers of one line; a share of nothing is left out."""
    kept = ("score", "cost", "length", "onsets", "online_share", "danger_mean", "danger_max")
    shares = {
        "violation_rate": ("violations", "length"),
        "alarm_share": ("alarms", "length"),
        "foreseen_share": ("foreseen", "onsets"),
        "false_alarm_share": ("false_alarms", "judged_alarms"),
    }
    metrics = {name: float(line[name]) for name in kept if name in line}
    for name, (part, whole) in shares.items():
        if part in line and line[whole] > 0:
            metrics[name] = line[part] / line[whole]
    return {f"episode/{name}": value for name, value in metrics.items()}


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
