"""The tables of a report: the same numbers for the page and for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fosp_ext.report.calibration import auroc, brier
from fosp_ext.report.published import published
from fosp_ext.report.runs import Evaluation, Group, Run, played_by
from fosp_ext.report.statistics import iqm_interval, mean_interval
from fosp_ext.report.violation_probability import Forecast
from fosp_ext.run.warnings import LOOKAHEAD

Cell = str | int | float
Interval = tuple[float, float, float]  # middle, lower end, upper end


@dataclass(frozen=True)
class Table:
    """A heading and rows of the same length; a cell may be a number with its interval."""

    name: str  # of the CSV file
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell | Interval, ...]]
    shares: frozenset[str] = frozenset()  # columns of numbers in [0, 1], on the page in percent

    def plain(self) -> Iterator[list[Cell]]:
        """Heading and rows with an interval in three columns, for CSV."""
        wide = [
            any(isinstance(row[k], tuple) for row in self.rows) for k in range(len(self.columns))
        ]
        heading: list[Cell] = []
        for column, is_wide in zip(self.columns, wide, strict=True):
            heading += [column, f"{column} low", f"{column} high"] if is_wide else [column]
        yield heading
        for row in self.rows:
            yield [x for cell in row for x in (cell if isinstance(cell, tuple) else (cell,))]


@dataclass(frozen=True)
class Result:
    """Results of the seeds of a group in one variant."""

    group: Group
    variant: str
    policy: str
    runs: list[Run]  # the seeds that were evaluated so
    evaluations: list[Evaluation]  # one for each of them

    @property
    def name(self) -> str:
        """The group, with variant and policy where these are not the usual ones."""
        own = self.group.runs[0].variant
        where = "" if self.variant == own else f" in {self.variant}"
        return f"{self.group.label}{where}{played_by(self.policy)}"

    @property
    def scores(self) -> list[np.ndarray]:
        """Returns of the episodes of each seed."""
        return [evaluation.scores for evaluation in self.evaluations]

    @property
    def costs(self) -> list[np.ndarray]:
        """Costs of the episodes of each seed."""
        return [evaluation.costs for evaluation in self.evaluations]


def results(groups: Sequence[Group]) -> list[Result]:
    """One result for each group, variant and policy, from the newest evaluation of each run."""
    found: list[Result] = []
    for group in groups:
        by_kind: dict[tuple[str, str], list[tuple[Run, Evaluation]]] = {}
        for run in group.runs:
            for evaluation in run.newest():
                kind = evaluation.variant, evaluation.policy
                by_kind.setdefault(kind, []).append((run, evaluation))
        for kind, pairs in by_kind.items():
            runs, evaluations = zip(*pairs, strict=True)
            found.append(Result(group, *kind, list(runs), list(evaluations)))
    return found


def result_table(found: Sequence[Result]) -> Table:
    """Mean return and cost of each group, seeds and episodes counted."""
    rows: list[tuple[Cell | Interval, ...]] = []
    for result in found:
        updates = sorted({evaluation.updates for evaluation in result.evaluations})
        rows.append(
            (
                result.group.task,
                result.name,
                " to ".join(str(u) for u in dict.fromkeys((updates[0], updates[-1]))),
                len(result.evaluations),
                sum(evaluation.episodes for evaluation in result.evaluations),
                mean_interval(result.scores),
                mean_interval(result.costs),
                mean_interval([evaluation.safe for evaluation in result.evaluations]),
            )
        )
    columns = ("task", "runs", "updates", "seeds", "episodes", "return", "cost", "without cost")
    return Table("results", "Results", columns, rows, frozenset({"without cost"}))


def over_tasks(found: Sequence[Result]) -> Table:
    """Interquartile means over the tasks and seeds of the groups that have the same name.

    Those of one task and fewer than four seeds are plain means, which `result_table` has.
    """
    by_name: dict[str, list[Result]] = {}
    for result in found:
        by_name.setdefault(result.name, []).append(result)
    rows = [
        (
            name,
            len({result.group.task for result in same}),
            sum(len(result.evaluations) for result in same),
            iqm_interval([result.scores for result in same]),
            iqm_interval([result.costs for result in same]),
        )
        for name, same in by_name.items()
        if len(same) > 1 or len(same[0].evaluations) >= 4
    ]
    columns = ("runs", "tasks", "tasks x seeds", "IQM of return", "IQM of cost")
    return Table("over_tasks", "Interquartile mean over tasks and seeds", columns, rows)


def calibration_table(name: str, episodes: str, forecasts: Sequence[tuple[str, Forecast]]) -> Table:
    """Calibration of the violation probability; the last column is the score of a constant.

    `episodes` names the episodes of the forecasts.
    """
    rows = [
        (
            label,
            forecast.updates,
            forecast.episodes,
            len(forecast.outcome),
            float(forecast.outcome.mean()),
            float(forecast.estimate.mean()),
            auroc(forecast.estimate, forecast.outcome),
            brier(forecast.estimate, forecast.outcome),
            float(forecast.outcome.mean() * (1 - forecast.outcome.mean())),
        )
        for label, forecast in forecasts
    ]
    columns = (
        "run", "updates", episodes, "rows", "violation follows", "mean violation probability",
        "AUROC", "Brier score", "Brier of the mean",
    )  # fmt: skip
    title = f"Violations within {LOOKAHEAD} agent steps, {episodes}"
    shares = frozenset({"violation follows", "mean violation probability"})
    return Table(name, title, columns, rows, shares)


def published_table(tasks: Sequence[str]) -> Table:
    """Published values for these tasks."""
    rows = [(task, p.method, p.phase, p.score, p.cost) for task in tasks for p in published(task)]
    columns = ("task", "method", "phase", "return", "cost")
    return Table("published", "Published values", columns, rows)
