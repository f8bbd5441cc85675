"""The first lines of a report: who did best, in what, and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fosp_ext.report.runs import Evaluation
from fosp_ext.report.tables import Result


def headline(results: Sequence[Result]) -> list[str]:
    """For each task the result with the lowest cost and that with the highest return; and the
    origin of the numbers. No lines where nothing was evaluated.
    """
    lines = []
    for task in dict.fromkeys(result.group.task for result in results):
        found = [result for result in results if result.group.task == task]
        safest = min(found, key=lambda result: (_mean(result.costs), -_mean(result.scores)))
        best = max(found, key=lambda result: (_mean(result.scores), -_mean(result.costs)))
        if len(found) == 1:
            lines.append(f"{task}: {_numbers(safest)}.")
        elif safest is best:
            lines.append(f"{task}: lowest cost and highest return: {_numbers(best)}.")
        else:
            lines.append(f"{task}: lowest cost: {_numbers(safest)}.")
            lines.append(f"{task}: highest return: {_numbers(best)}.")
    evaluations = [evaluation for result in results for evaluation in result.evaluations]
    return [*lines, *origins(evaluations)]


def origins(evaluations: Sequence[Evaluation]) -> list[str]:
    """When, where and by which commit the evaluations were made, in a line; none: not known."""
    made = [evaluation.origin for evaluation in evaluations if evaluation.origin is not None]
    if not made:
        return []
    days, machines, commits = (list(dict.fromkeys(parts)) for parts in zip(*made, strict=True))
    when = " to ".join(dict.fromkeys((min(days), max(days))))
    return [f"Evaluated {when} on {', '.join(machines)}; commit {', '.join(commits)}."]


def _numbers(result: Result) -> str:
    seeds = len(result.evaluations)
    episodes = sum(evaluation.episodes for evaluation in result.evaluations)
    return (
        f"{result.name}, return {_mean(result.scores):.2f}, cost {_mean(result.costs):.2f} "
        f"({seeds} {'seed' if seeds == 1 else 'seeds'}, {episodes} episodes)"
    )


def _mean(seeds: Sequence[np.ndarray]) -> float:
    return float(np.mean([episodes.mean() for episodes in seeds]))
