"""What an online run tells about each training episode, and what learning has cost so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import NonFiniteError, UserError
from dreamer.files import atomic_path
from dreamer.training.collector import CollectedEpisode
from dreamer.types import VIOLATION
from fosp_ext.run.cost_regret import next_regret
from fosp_ext.run.warnings import judge_warnings, onsets

DECIMALS = 3  # of p; warnings are judged after rounding, so the file says what was judged
Line = dict[str, Any]


def describe(
    played: CollectedEpisode, env: int, updates: int, agent_steps: int, warning: float
) -> Line:
    """The line of an episode of environment `env` that ended after so many updates and steps.

    `warning` is the violation probability p above which a step is a warning. An estimate that is
    not finite is a `NonFiniteError`.
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
        **_story(played, warning),
    }


class EpisodeLog:
    """episodes.jsonl of a run: one line per finished training episode.

    See docs/reference/metrics.md.
    """

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
            "training_cost/total": self._cost,
            "training_cost/violating_episodes": float(self._violating),
            "training_cost/rate": self._cost / self._steps,
            "training_cost/ema": self._regret,
        }


def _story(played: CollectedEpisode, warning: float) -> Line:
    """What the episode came to, and step by step what the policy thought and did."""
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
    if "violation_probability" in estimates:
        violation_probability = np.round(
            estimates["violation_probability"].astype(np.float64), DECIMALS
        )  # (T,)
        warnings = judge_warnings(violation_probability, violations, warning)
        line |= {
            "violation_probability_mean": float(violation_probability.mean()),
            "violation_probability_max": float(violation_probability.max()),
            "warnings": warnings.raised,
            "judged_warnings": warnings.judged,
            "false_warnings": warnings.false,
            "warned": warnings.warned,
            "violation_probability": violation_probability.tolist(),
        }
    return line


def _bits(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _metrics(line: Line) -> dict[str, float]:
    """The numbers of one line; a share of nothing is left out."""
    kept = (
        "score",
        "cost",
        "length",
        "onsets",
        "online_share",
        "violation_probability_mean",
        "violation_probability_max",
    )
    shares = {
        "violation_rate": ("violations", "length"),
        "warning_share": ("warnings", "length"),
        "warning_recall": ("warned", "onsets"),
        "false_warning_share": ("false_warnings", "judged_warnings"),
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
