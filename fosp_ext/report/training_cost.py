"""Tables of the training cost and of the gain of the online phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fosp_ext.report.learning import TrainingEpisode
from fosp_ext.report.runs import Evaluation, Group, Run
from fosp_ext.report.statistics import mean_interval
from fosp_ext.report.tables import Cell, Interval, Result, Table
from fosp_ext.report.violation_probability import Forecast
from fosp_ext.run.warnings import LOOKAHEAD, follows


def while_learning(run: Run) -> Forecast | None:
    """Forecasts in its training episodes, with the outcomes; None where nothing was estimated.

    The violation probability of a step was logged when its action was chosen, so a violation by
    that action is the first that it can predict.
    """
    estimates, outcomes = [], []
    for episode in run.episodes:
        if episode.violation_probability is not None:
            rows = np.concatenate([[False], episode.violation])  # of row t: by the action before it
            following, known = (flags[:-1] for flags in follows(rows, LOOKAHEAD))
            estimates.append(episode.violation_probability[known])
            outcomes.append(following[known])
    estimate, outcome = np.concatenate([[], *estimates]), np.concatenate([[], *outcomes])
    if not len(estimate):
        return None
    return Forecast(run.episodes[-1].updates, len(estimates), estimate, outcome.astype(bool))


def training_cost_table(groups: Sequence[Group]) -> Table:
    """Costs and warnings in the training episodes of each group, mean over its seeds."""
    rows = [
        _training_cost(group, played)
        for group in groups
        if (played := [run for run in group.runs if run.episodes])
    ]
    columns = (
        "task", "runs", "seeds", "episodes", "agent steps", "summed cost",
        "cost, first fifth", "cost, last fifth", "with a violation", "recall", "false warnings",
        "online policy",
    )  # fmt: skip
    shares = frozenset({"with a violation", "recall", "false warnings", "online policy"})
    return Table("training_cost", "Training cost", columns, rows, shares)


def _training_cost(group: Group, runs: Sequence[Run]) -> tuple[Cell | Interval, ...]:
    played = [run.episodes for run in runs]
    fifths = [max(1, len(episodes) // 5) for episodes in played]
    pairs = list(zip(played, fifths, strict=True))
    return (
        group.task,
        group.label,
        len(runs),
        round(np.mean([len(episodes) for episodes in played])),
        round(np.mean([episodes[-1].agent_steps for episodes in played])),
        mean_interval([np.array([_costs(episodes).sum()]) for episodes in played]),
        mean_interval([_costs(episodes[:fifth]) for episodes, fifth in pairs]),
        mean_interval([_costs(episodes[-fifth:]) for episodes, fifth in pairs]),
        float(np.mean([np.mean([e.violation.any() for e in own]) for own in played])),
        _known_mean([_recall(episodes) for episodes in played]),
        _known_mean([_false_warnings(episodes) for episodes in played]),
        _known_mean([_online_share(episodes) for episodes in played]),
    )


def _costs(episodes: Sequence[TrainingEpisode]) -> np.ndarray:
    return np.array([episode.cost for episode in episodes])


def _recall(episodes: Sequence[TrainingEpisode]) -> float:
    """Share of the violations with a warning before them; NaN without violations or estimates."""
    estimated = [episode for episode in episodes if episode.violation_probability is not None]
    onsets = sum(int(episode.onsets.sum()) for episode in estimated)
    return sum(episode.warned for episode in estimated) / onsets if onsets else float("nan")


def _false_warnings(episodes: Sequence[TrainingEpisode]) -> float:
    """Share of the judged warnings that no violation followed; NaN without warnings."""
    judged = sum(episode.judged_warnings for episode in episodes)
    return sum(episode.false_warnings for episode in episodes) / judged if judged else float("nan")


def _online_share(episodes: Sequence[TrainingEpisode]) -> float:
    """Share of all steps in which the online policy acted; NaN without a policy set."""
    acted = [episode.online for episode in episodes if episode.online is not None]
    return float(np.concatenate(acted).mean()) if acted else float("nan")


def _known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def before_and_after(results: Sequence[Result], runs: Sequence[Run]) -> Table:
    """Results of online runs beside those of the offline runs that they went on from."""
    by_place = {run.path.resolve(): run for run in runs}
    rows: list[tuple[Cell | Interval, ...]] = []
    for result in results:
        pairs = [
            (before, after)
            for run, after in zip(result.runs, result.evaluations, strict=True)
            if (before := _before(run, result.variant, by_place)) is not None
        ]
        if pairs:
            scores = [mean_interval([e.scores for e in side]) for side in zip(*pairs, strict=True)]
            costs = [mean_interval([e.costs for e in side]) for side in zip(*pairs, strict=True)]
            rows.append((result.group.task, result.name, len(pairs), *scores, *costs))
    columns = (
        "task",
        "runs",
        "seeds",
        "return before",
        "return after",
        "cost before",
        "cost after",
    )
    return Table("before_and_after", "Before and after the online phase", columns, rows)


def _before(run: Run, variant: str, runs: dict[Path, Run]) -> Evaluation | None:
    """The evaluation of its offline run in this variant, if that run is in the report."""
    if not run.is_online:
        return None
    named = Path(run.config.init_from).resolve()
    folder = named.parent.parent if named.parent.name == "checkpoints" else named
    source = runs.get(folder)
    found = [e for e in source.newest() if e.variant == variant] if source else []
    return found[-1] if found else None
