"""What the page says, and the files beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamer.files import atomic_path
from fosp_ext.envs import task_folder
from fosp_ext.report import figures, tables
from fosp_ext.report.danger import AHEAD
from fosp_ext.report.figures import LINEAR_COST
from fosp_ext.report.films import films, relative
from fosp_ext.report.material import Material, Outcome
from fosp_ext.report.page import Page
from fosp_ext.report.published import CITATION, LINK, published
from fosp_ext.report.runs import SOURCES
from fosp_ext.rollouts import new_folder

CURVES = (
    "Over gradient updates. Where a group has several seeds, thin lines are seeds, the thick line "
    "is their mean and the shade its 95 % bootstrap interval over seeds. Cost regret is a running "
    "average of episode costs: it starts at 0 and keeps 0.99 of itself per episode; an evaluation "
    "counts as so many episodes as it had. A short run therefore stays below its costs."
)
RESULTS = (
    "Mean action, fixed seeds, the newest evaluation of each run in each variant. In brackets the "
    "95 % bootstrap interval of the mean: seeds are drawn again, then the episodes of each. With "
    "one seed it tells of the episodes only, and with two or three it is too narrow. Costs are "
    "summed over an episode; 'without cost' is the share of episodes without any."
)
SCATTER = (
    "Towards the lower right is better. Large dots: means of our groups, small ones their seeds. "
    "Crosses: episodes of the datasets the runs learnt from, squares their means by behaviour; the "
    "behaviours see what no camera shows. Hollow: published values, read by eye from plots, for "
    "the task without a variant and, if online, for fine-tuning there. The "
    f"axis of the cost is linear up to {LINEAR_COST} and logarithmic above."
)
RELIABILITY = (
    "Above: of the rows with a danger around p, the share where a violation followed; on the "
    "dotted line p would be that share. Below: how many rows. The table has the details."
)
IQM = (
    "The mean of the middle half of all task and seed pairs; seeds are drawn again within their "
    "task. Returns are not normalised: tasks of larger returns weigh more."
)
CALIBRATION = (
    f"At every row of the held-out episodes the newest checkpoint is asked for danger p, and the "
    f"record for whether a violation followed within {AHEAD} agent steps. Rows whose next {AHEAD} "
    "steps were not recorded count only if a violation is seen in them. AUROC is the chance that a "
    "row with a violation ahead has the higher p (0.5: no better than guessing); the Brier score "
    "is the mean squared error (0: perfect), beside that of always saying the mean. The recorded "
    "behaviours acted here, not the policy for which p is learnt, and p discounts a violation by "
    "how far ahead it is: a difference from the diagonal is not the error of the network alone."
)


def write(material: Material, out: Path, with_csv: bool) -> Path:
    """Write page, pictures and tables; returns their new folder."""
    pictures, listed = _pictures(material), _tables(material)
    folder = new_folder(out)
    page = Page("Comparison of runs")
    _runs(page, material, folder)
    for name, words in (("results", RESULTS), ("over_tasks", IQM)):
        _table(page, listed, name, words)
    for name, picture, title, words in pictures:
        page.heading(title)
        page.picture(picture, title)
        page.paragraph(words)
        _write(folder / f"{name}.png", picture.light)
    _table(page, listed, "calibration", CALIBRATION)
    _table(page, listed, "published", CITATION, LINK)
    _films(page, material, folder)
    if with_csv:
        for table in listed.values():
            _write(folder / f"{table.name}.csv", _csv(table))
    _write(folder / "index.html", page.text().encode())
    return folder


def _pictures(material: Material) -> list[tuple[str, figures.Picture, str, str]]:
    """(file name, picture, title, explanation) in the order of the page."""
    pictures = []
    for task in material.tasks:
        short = task_folder(task)
        for source in SOURCES:
            drawn = figures.draw_curves(material.of(task), source)
            if drawn:
                name = f"curves-{source.name.replace(' ', '-')}-{short}"
                title = f"Learning curves of {task}: {source.name}"
                pictures.append((name, drawn, title, CURVES))
        drawn = _scatter(material, task)
        if drawn:
            title = f"Return and cost in {task}"
            pictures.append((f"scatter-{short}", drawn, title, SCATTER))
    if material.seen:
        drawn = figures.draw_calibration(material.seen)
        pictures.append(("calibration", drawn, "Reliability of the estimated danger", RELIABILITY))
    return pictures


def _scatter(material: Material, task: str) -> figures.Picture | None:
    ours = [
        Outcome(result.name, _means(result.scores), _means(result.costs))
        for result in material.results
        if result.group.task == task
    ]
    data = material.behaviours.get(task, [])
    return figures.draw_scatter(task, ours, data, published(task)) if ours or data else None


def _means(seeds: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([episodes.mean() for episodes in seeds])


def _tables(material: Material) -> dict[str, tables.Table]:
    """Table by name; those without rows are left out."""
    every = (
        tables.result_table(material.results),
        tables.over_tasks(material.results),
        tables.calibration_table(material.seen),
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
    """Which folders this is about, and what could not be shown."""
    page.links(
        [
            (relative(run.path, folder), f"{group.task}: {group.label}, seed {run.config.seed}")
            for group in material.groups
            for run in group.runs
        ]
    )
    if not any(run.curve(source) for g in material.groups for run in g.runs for source in SOURCES):
        page.paragraph("No run has evaluated on its way, so there are no learning curves.")
    if material.remarks:
        page.heading("Left out")
        page.remarks(material.remarks)


def _films(page: Page, material: Material, folder: Path) -> None:
    found = [
        film
        for group in material.groups
        for run in group.runs
        for film in films(run, group.label, folder)
    ]
    if found:
        page.heading("Films")
        page.films(found)
        page.paragraph("The films lie in the run folders; the links hold while both stay in place.")


def _csv(table: tables.Table) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table.plain())
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as part:
        part.write_bytes(content)
