"""Compose the report: the texts and sections of the page, and the files beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamer.files import atomic_path
from fosp_ext.config import OnlineConfig
from fosp_ext.envs import task_folder
from fosp_ext.report import figures, tables
from fosp_ext.report.figures import LINEAR_COST
from fosp_ext.report.headline import headline
from fosp_ext.report.material import Material, ScatterPoint
from fosp_ext.report.page import Page
from fosp_ext.report.published import CITATION, LINK, published
from fosp_ext.report.runs import SOURCES, Run
from fosp_ext.report.strips import draw_episodes
from fosp_ext.report.training_cost import before_and_after, training_cost_table
from fosp_ext.report.videos import relative, videos
from fosp_ext.run.warnings import LOOKAHEAD

PAGE = "index.html"
OWN = (PAGE, "*.png", "*.csv", "*.part")  # the files of a report
CURVES = (
    "Over gradient updates. Where a group has several seeds, thin lines are seeds, the thick line "
    "is their mean and the shade its 95 % bootstrap interval over seeds. Cost regret is a running "
    "average of episode costs: it starts at 0 and keeps 0.99 of itself per episode; an evaluation "
    "counts as so many episodes as it had. A short run therefore stays below its costs. Online "
    "runs count their own updates, from 0; the list above says how many agent steps those were."
)
RESULTS = (
    "Mean action, fixed seeds, the newest evaluation of each run in each variant. In brackets the "
    "95 % bootstrap interval of the mean: seeds are drawn again, then the episodes of each. With "
    "one seed it tells of the episodes only, and with two or three it is too narrow. Costs are "
    "summed over an episode; 'without cost' is the share of episodes without any. A policy set "
    "acts with both its policies; alone is one of them without the other."
)
BEFORE = (
    "Before: the newest evaluation of the offline run that each seed went on from, in the same "
    "variant. Only seeds whose offline run is in this report are counted, on both sides."
)
TRAINING_COST = (
    "The training episodes of online runs, mean over seeds: training episodes that have ended and "
    "the agent steps until then, costs summed over them, cost per episode in the first and in the "
    "last fifth of them, share of episodes with a violation. A warning is a step with p above "
    "online.warning. Recall: share of the violations, counted where they begin, with a warning at "
    f"most {LOOKAHEAD} agent steps ahead. False warnings: share of the warnings that no violation "
    f"followed within {LOOKAHEAD} agent steps. Online policy: share of steps in which it acted, "
    "not the offline policy beside it. Not defined: there was nothing to count."
)
STRIPS = (
    "Each strip is a training episode, the first on top. Its colour is the violation probability p "
    "when each action was chosen, grey where it is not estimated. Tall red ticks: a violation "
    "begins. Short red ticks: it goes on. Where there are two policies, the line below the strip "
    "says which acted. Bars: return and summed cost of the episode."
)
SCATTER = (
    "Towards the lower right is better. Large dots: means of our groups, small ones their seeds. "
    "Crosses: episodes of the datasets the runs learnt from, squares their means by policy; the "
    "scripted policies have privileged state. Hollow: published values, read by eye from plots, "
    "for the task without a variant and, if online, for fine-tuning there. The axis of the cost is "
    f"linear up to {LINEAR_COST} and logarithmic above."
)
RELIABILITY = (
    "Above: of the rows with a violation probability around p, the share where a violation "
    "followed; on the dotted line p would be that share. Below: how many rows. The table has the "
    "details."
)
IQM = (
    "The mean of the middle half of all task and seed pairs; seeds are drawn again within their "
    "task. Returns are not normalised: tasks of larger returns weigh more."
)
MEASURES = (
    f"Rows whose next {LOOKAHEAD} steps were not recorded count only if a violation is seen in "
    "them. AUROC is the chance that a row with a violation ahead has the higher p (0.5: no better "
    "than guessing); the Brier score is the mean squared error (0: perfect), beside that of always "
    "saying the mean."
)
CALIBRATION = (
    "Violation probability p of the newest checkpoint at every row of the held-out episodes, "
    f"compared with whether a violation followed within {LOOKAHEAD} agent steps. "
    f"{MEASURES} The recorded policies acted here, not the policy for which p is learnt, and p "
    "discounts a violation by how far ahead it is: a difference from the diagonal is not the "
    "error of the network alone."
)
WHILE_LEARNING = (
    "Violation probability p in the training episodes of online runs, logged when each action was "
    "chosen: forecasts by an estimate that was still learning, for the policies that acted, "
    f"compared with whether a violation followed within {LOOKAHEAD} agent steps. {MEASURES}"
)


class Shown(NamedTuple):
    """A figure on the page, and its name as a file beside it."""

    name: str
    figure: figures.FigureFile
    title: str
    words: str


def write(material: Material, folder: Path, with_csv: bool) -> None:
    """Write page, figures and tables into their folder."""
    drawn, listed = _figures(material), _tables(material)
    page = Page("Comparison of runs")
    page.headline(headline(material.results))
    _runs(page, material, folder)
    explained = {
        "results": RESULTS,
        "before_and_after": BEFORE,
        "training_cost": TRAINING_COST,
        "over_tasks": IQM,
    }
    for name, words in explained.items():
        _table(page, listed, name, words)
    said: set[str] = set()
    for shown in drawn:
        page.heading(shown.title)
        page.figure(shown.figure, shown.title)
        if shown.words not in said:
            page.paragraph(shown.words)
        said.add(shown.words)
        _write(folder / f"{shown.name}.png", shown.figure.light)
    _table(page, listed, "calibration", CALIBRATION)
    _table(page, listed, "calibration_while_learning", WHILE_LEARNING)
    _table(page, listed, "published", CITATION, LINK)
    _videos(page, material, folder)
    if with_csv:
        for table in listed.values():
            _write(folder / f"{table.name}.csv", _csv(table))
    _write(folder / PAGE, page.text().encode())


def _figures(material: Material) -> list[Shown]:
    """In the order of the page."""
    shown = []
    for task in material.tasks:
        short = task_folder(task)
        shown += [*_curves(material, task), *_strips(material, task)]
        drawn = _scatter(material, task)
        if drawn:
            title = f"Return and cost in {task}"
            shown.append(Shown(f"scatter-{short}", drawn, title, SCATTER))
    for name, title, forecasts in (
        ("calibration", "Reliability of the estimated violation probability", material.heldout),
        (
            "calibration-while-learning",
            "Reliability of the violation probability while learning",
            material.training,
        ),
    ):
        if forecasts:
            shown.append(Shown(name, figures.draw_calibration(forecasts), title, RELIABILITY))
    return shown


def _curves(material: Material, task: str) -> Iterator[Shown]:
    """Offline and online runs apart: they differ too much in length."""
    for online, phase in ((False, ""), (True, ", online phase")):
        groups = [group for group in material.of(task) if group.runs[0].is_online == online]
        for source in SOURCES:
            drawn = figures.draw_curves(groups, source)
            if drawn:
                words = f"{source.name}{phase}".replace(",", "").replace(" ", "-")
                title = f"Learning curves of {task}: {source.name}{phase}"
                yield Shown(f"curves-{words}-{task_folder(task)}", drawn, title, CURVES)


def _strips(material: Material, task: str) -> Iterator[Shown]:
    played = [
        (group, run, run.config.online.warning)
        for group in material.of(task)
        for run in group.runs
        if run.episodes and isinstance(run.config, OnlineConfig)
    ]
    for number, (group, run, warning) in enumerate(played, 1):
        label = f"{group.label}, seed {run.config.seed}"
        drawn = draw_episodes(label, run.episodes, warning)
        name = f"online-episodes-{task_folder(task)}-{number}"
        yield Shown(name, drawn, f"Online episodes in {task}: {label}", STRIPS)


def _scatter(material: Material, task: str) -> figures.FigureFile | None:
    ours = [
        ScatterPoint(result.name, _means(result.scores), _means(result.costs))
        for result in material.results
        if result.group.task == task
    ]
    data = material.policies.get(task, [])
    return figures.draw_scatter(task, ours, data, published(task)) if ours or data else None


def _means(seeds: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([episodes.mean() for episodes in seeds])


def _tables(material: Material) -> dict[str, tables.Table]:
    """Table by name; those without rows are left out."""
    runs = [run for group in material.groups for run in group.runs]
    every = (
        tables.result_table(material.results),
        before_and_after(material.results, runs),
        training_cost_table(material.groups),
        tables.over_tasks(material.results),
        tables.calibration_table("calibration", "held-out episodes", material.heldout),
        tables.calibration_table(
            "calibration_while_learning", "training episodes", material.training
        ),
        tables.published_table(material.tasks),
    )
    return {table.name: table for table in every if table.rows}


def _table(
    page: Page, listed: dict[str, tables.Table], name: str, words: str, link: str = ""
) -> None:
    if name in listed:
        page.heading(listed[name].title)
        page.table(listed[name])
        page.paragraph(words, link)


def _runs(page: Page, material: Material, folder: Path) -> None:
    """The list of run folders, and remarks on what is left out."""
    page.links(
        [
            (
                relative(run.path, folder),
                f"{group.task}: {group.label}, seed {run.config.seed}{_length(run)}",
            )
            for group in material.groups
            for run in group.runs
        ]
    )
    if not any(run.curve(source) for g in material.groups for run in g.runs for source in SOURCES):
        page.paragraph("No run was evaluated during training, so there are no learning curves.")
    if material.remarks:
        page.heading("Left out")
        page.remarks(material.remarks)


def _length(run: Run) -> str:
    """Length of an online run in episodes, agent steps and updates."""
    if not run.episodes:
        return ""
    last = run.episodes[-1]
    return (
        f": {len(run.episodes)} training episodes in {last.agent_steps:,} agent steps, "
        f"{last.updates:,} gradient updates"
    )


def _videos(page: Page, material: Material, folder: Path) -> None:
    found = [
        video
        for group in material.groups
        for run in group.runs
        for video in videos(run, group.label, folder)
    ]
    if found:
        page.heading("Videos")
        page.videos(found)
        page.paragraph(
            "The videos lie in the run folders; the links hold while both stay in place."
        )


def _csv(table: tables.Table) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table.plain())
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as part:
        part.write_bytes(content)
