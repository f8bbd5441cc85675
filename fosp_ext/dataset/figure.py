"""The summary figure of a dataset: returns, costs, actions and images."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer.data.episode import Episode
from dreamer.data.hdf5 import read_episodes
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.outputs import new_output, refuse_existing
from fosp_ext.dataset.summary import DatasetSummary, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLOURS = {"safe": "#0072B2", "near_miss": "#E69F00", "unsafe": "#D55E00", "random": "#8C8C8C"}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#999933", "#56B4E9", "#332288", "#882255")
COSTLY = (208, 0, 0)  # frame around an image that came with a cost
FRAME, CELL = 4, 128  # pixels: width of a frame, least size of an image on the sheet
SHEET_POLICIES = 4  # policies on the contact sheet, those with most episodes
MOMENTS = 10  # images in a row of it
WIDTH = 13.0  # inches
TEXT: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def draw_summary(summary: DatasetSummary, path: str | Path) -> None:
    """Write the figure (PNG) to the new file `path`."""
    refuse_existing(path)
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("a figure needs matplotlib: pip install matplotlib") from error
    rows = _sheet(summary)
    strip = len(summary.info.cameras) * (WIDTH - 0.8) / MOMENTS + 0.3
    heights = [4.6, 2.6, 0.4 + len(rows) * strip]
    with mpl.rc_context(TEXT):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.7), layout="constrained")
        info = summary.info
        changes = info.environment.get("variant", "none")
        variant = "" if changes == "none" else f", variant {changes}"
        figure.suptitle(
            f"{info.task}{variant}: {len(summary.lengths)} episodes, "
            f"{len(summary.actions)} transitions",
            fontsize=15,
            fontweight="bold",
        )
        parts: Any = figure.subfigures(3, 1, height_ratios=heights)  # an array of three
        top, middle, bottom = parts
        groups = summary.by_policy()
        colours = _colours(groups)
        _scatter_and_outcomes(top, groups, colours)
        _actions(middle, summary, colours)
        _contact_sheet(bottom, rows, summary.info.cameras, colours)
        with new_output(path), atomic_path(path) as part:
            figure.savefig(part, format="png", dpi=110, facecolor="white")


def free_figure_path(dataset: Path) -> Path:
    """The dataset's name with .png, or the first of name-2.png, name-3.png, ... that is free."""
    path, number = dataset.with_suffix(".png"), 2
    while path.exists():
        path = dataset.with_name(f"{dataset.stem}-{number}.png")
        number += 1
    return path


def _colours(groups: list[Group]) -> dict[str, str]:
    others = [group.name for group in groups if group.name not in COLOURS]
    return COLOURS | {name: OTHER_COLOURS[k % len(OTHER_COLOURS)] for k, name in enumerate(others)}


def _scatter_and_outcomes(figure: SubFigure, groups: list[Group], colours: dict[str, str]) -> None:
    """Return against cost, one dot for each episode, beside the two histograms."""
    axes = figure.subplot_mosaic([["scatter", "return"], ["scatter", "cost"]], width_ratios=[3, 2])
    for group in groups:
        label = f"{group.name} ({len(group.returns)})"
        axes["scatter"].scatter(
            group.returns, group.costs, s=26, alpha=0.65, linewidths=0, color=colours[group.name],
            label=label,
        )  # fmt: skip
    axes["scatter"].set(xlabel="return of the episode", ylabel="cost of the episode")
    axes["scatter"].set_title("Return and cost", loc="left", fontweight="bold")
    axes["scatter"].legend(frameon=False)
    axes["scatter"].grid(alpha=0.25)
    for name, values in (
        ("return", [group.returns for group in groups]),
        ("cost", [group.costs for group in groups]),
    ):
        shades = [colours[group.name] for group in groups]
        axes[name].hist(values, bins=30, stacked=True, color=shades)
        axes[name].set_title(f"{name.capitalize()} of an episode", loc="left", fontweight="bold")
        axes[name].set_ylabel("episodes")


def _actions(figure: SubFigure, summary: DatasetSummary, colours: dict[str, str]) -> None:
    """Histograms of each number of the action, by policy, and of the costs of steps."""
    shown = min(summary.actions.shape[1], 4)
    axes = figure.subplots(1, shown + 1)
    steps = np.repeat(summary.policy, summary.lengths)  # (N,)
    names = np.unique(summary.policy)
    for k in range(shown):
        for name in names:
            axes[k].hist(
                summary.actions[steps == name, k], bins=41, range=(-1, 1), density=True,
                histtype="step", linewidth=1.6, color=colours[name],
            )  # fmt: skip
        axes[k].set_title(f"Action {k}", loc="left", fontweight="bold")
        axes[k].set(xlabel="value", yticks=[], xlim=(-1.02, 1.02), xticks=[-1, 0, 1])
    axes[0].set_ylabel("share of steps")
    _step_costs(axes[-1], summary.step_costs, steps, colours)


def _step_costs(axes: Axes, costs: np.ndarray, steps: np.ndarray, colours: dict[str, str]) -> None:
    """The cost of single transitions, zero left out."""
    names = [name for name in np.unique(steps) if np.any(costs[steps == name] > 0)]
    values = [costs[(steps == name) & (costs > 0)] for name in names]
    if names:
        axes.hist(values, bins=12, stacked=True, color=[colours[name] for name in names])
    axes.set_title("Cost of a step", loc="left", fontweight="bold")
    axes.set(xlabel=f"cost, where it is above 0: {np.mean(costs > 0):.1%} of steps", ylabel="steps")


def _sheet(summary: DatasetSummary) -> list[Episode]:
    """For each policy, the episode of median return."""
    groups = sorted(summary.by_policy(), key=lambda group: -len(group.returns))
    chosen = []
    for group in groups[:SHEET_POLICIES]:
        indices = np.flatnonzero(summary.policy == group.name)
        chosen.append(int(indices[np.argsort(group.returns)[len(indices) // 2]]))
    by_index = dict(zip(sorted(chosen), read_episodes(summary.path, set(chosen)), strict=True))
    return [by_index[index] for index in chosen]


def _contact_sheet(
    figure: SubFigure,
    episodes: list[Episode],
    cameras: tuple[str, ...],
    colours: dict[str, str],
) -> None:
    """One strip of moments for each episode."""
    figure.suptitle(
        "The episode of median return of each policy. Red frame: this image came with a cost.",
        x=0.008, ha="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    grid = figure.subplots(len(episodes), 1, squeeze=False)[:, 0]
    for axes, episode in zip(grid, episodes, strict=True):
        moments = _moments(episode)
        strip = _strip(episode, cameras, moments)
        axes.imshow(strip, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        height, width = strip.shape[:2]
        for k, moment in enumerate(moments):
            middle = (k + 0.5) * width / MOMENTS
            axes.text(middle, -0.02 * height, f"step {moment}", ha="center", fontsize=8)
        for k, camera in enumerate(cameras):
            middle = (k + 0.5) * height / len(cameras)
            axes.text(-6, middle, camera, rotation=90, ha="right", va="center", fontsize=8)
        axes.set_ylabel(
            f"{episode.policy}\nreturn {episode.score:.1f}, cost {episode.total_cost:.0f}",
            labelpad=16, fontsize=10, fontweight="bold", color=colours[episode.policy],
        )  # fmt: skip


def _moments(episode: Episode) -> list[int]:
    """Evenly spread images; where some of a tenth came with a cost, the one that cost most."""
    came_with = np.append(0, episode.cost)  # (T+1,)
    edges = np.linspace(0, len(came_with), MOMENTS + 1).astype(int)
    moments = []
    for begin, end in itertools.pairwise(edges):
        part = came_with[begin : max(end, begin + 1)]
        offset = int(part.argmax()) if part.max() > 0 else len(part) // 2
        moments.append(min(begin + offset, episode.length))
    return moments


def _strip(episode: Episode, cameras: tuple[str, ...], moments: list[int]) -> np.ndarray:
    """Images (height, width, 3): a row for each camera, enlarged, costly ones framed."""
    came_with = np.append(0, episode.cost)  # (T+1,)
    zoom = max(1, CELL // episode.images[cameras[0]].shape[1])
    rows = []
    for camera in cameras:
        row = []
        for moment in moments:
            image = episode.images[camera][moment].repeat(zoom, 0).repeat(zoom, 1)
            edge = COSTLY if came_with[moment] > 0 else (255, 255, 255)
            side = image.shape[0] + 2 * FRAME
            framed = np.full((side, side, 3), edge, np.uint8)
            framed[FRAME:-FRAME, FRAME:-FRAME] = image
            row.append(framed)
        rows.append(np.concatenate(row, 1))
    return np.concatenate(rows)
