"""Training episodes of an online run as strips: violation probability, violations, who acted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fosp_ext.report.figures import FigureFile, draw
from fosp_ext.report.learning import TrainingEpisode, evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SHOWN = 60  # strips of a figure
SLOT = 0.17  # inches of a strip and its surroundings
RED = "#E3211C"
ACTED = {"offline": "#8A939B", "online": "#E69F00"}
BANDS = {
    "violation_probability": (-0.42, 0.2),
    "violation": (-0.42, 0.2),
    "policy": (0.26, 0.42),
}  # of a slot


def draw_episodes(label: str, episodes: Sequence[TrainingEpisode], warning: float) -> FigureFile:
    """One strip for each training episode, the first on top; beside it return and cost.

    The colour is the violation probability p when each action was chosen. A tall red tick is a step
    at which a violation begins, a short one where it goes on. The line below says which policy
    acted.
    """
    shown = evenly(episodes, SHOWN)

    def paint(figure: Figure) -> None:
        widths = {"width_ratios": [6, 1, 1]}
        strips, score, cost = figure.subplots(1, 3, sharey=True, gridspec_kw=widths)
        image = None
        for place, episode in enumerate(shown):
            image = _strip(strips, place, episode) or image
        strips.set(
            xlabel="agent steps of the episode",
            ylabel="training episode",
            xlim=(0, max(len(episode.violation) for episode in shown)),
            ylim=(len(shown) - 0.5, -0.5),
        )
        every = -(-len(shown) // 30)
        strips.set_yticks(range(0, len(shown), every), [str(e.number) for e in shown[::every]])
        strips.grid(False)
        strips.set_title(f"{label}: {_counted(len(shown), len(episodes))}", loc="left")
        _bars(score, [episode.score for episode in shown], "#0072B2", "return")
        _bars(cost, [episode.cost for episode in shown], RED, "cost")
        _legend(figure, shown)
        if image is not None:
            bar = figure.colorbar(
                image, ax=cost, label="violation probability p (red line: warning)", aspect=30
            )
            bar.ax.axhline(warning, color=RED, linewidth=2)

    return draw((13, 1.9 + SLOT * max(len(shown), 8)), paint)


def _strip(axis: Axes, place: int, episode: TrainingEpisode) -> AxesImage | None:
    """One episode at height `place`; the image of its violation probability if there is one."""
    image = None
    if episode.violation_probability is None:
        top, bottom = BANDS["violation_probability"]
        length = len(episode.violation)
        axis.fill_between([0, length], place + top, place + bottom, color="grey", alpha=0.2)
    else:
        image = _band(
            axis, place, "violation_probability", episode.violation_probability, "cividis"
        )
    if episode.online is not None:
        from matplotlib.colors import ListedColormap

        _band(axis, place, "policy", episode.online, ListedColormap(list(ACTED.values())))
    top, bottom = BANDS["violation"]
    goes_on = np.flatnonzero(episode.violation & ~episode.onsets) + 0.5
    begins = np.flatnonzero(episode.onsets) + 0.5
    middle = (top + bottom) / 2
    axis.vlines(goes_on, place + middle, place + bottom, color=RED, linewidth=1)
    axis.vlines(begins, place + top, place + bottom, color=RED, linewidth=1.6)
    return image


def _band(
    axis: Axes, place: int, name: str, values: np.ndarray, colours: str | Colormap
) -> AxesImage:
    """Values (T,) in [0, 1] as colours."""
    top, bottom = BANDS[name]
    return axis.imshow(
        values[None].astype(float), cmap=colours, vmin=0, vmax=1, aspect="auto",
        interpolation="nearest", extent=(0, len(values), place + bottom, place + top),
    )  # fmt: skip


def _bars(axis: Axes, values: Sequence[float], colour: str, title: str) -> None:
    axis.barh(range(len(values)), values, height=0.7, color=colour)
    axis.set_title(title, loc="left")
    axis.tick_params(left=False)
    axis.grid(False, axis="y")


def _counted(shown: int, there: int) -> str:
    return f"{there} training episodes" + (f", {shown} of them shown" if shown < there else "")


def _legend(figure: Figure, shown: Sequence[TrainingEpisode]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=RED, marker="|", markersize=11, linestyle="", markeredgewidth=1.6),
        Line2D([], [], color=RED, marker="|", markersize=6, linestyle="", markeredgewidth=1),
    ]
    labels = ["a violation begins", "it goes on"]
    if any(episode.online is not None for episode in shown):
        lines += [Line2D([], [], color=colour, linewidth=3) for colour in ACTED.values()]
        labels += [f"the {policy} policy acts" for policy in ACTED]
    figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
