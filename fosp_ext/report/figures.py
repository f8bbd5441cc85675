"""The figures of a report, each drawn for a light and for a dark page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.errors import UserError
from fosp_ext.report.calibration import Bins, reliability
from fosp_ext.report.material import ScatterPoint
from fosp_ext.report.published import METHODS, Published
from fosp_ext.report.runs import Curve, Group, Source
from fosp_ext.report.statistics import band, on_common_steps
from fosp_ext.report.violation_probability import Forecast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = {"light": "#1f2328", "dark": "#e6edf3"}, {"light": "#ffffff", "dark": "#161b22"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D")
DOTS = "oD^vp"  # of ours; the next one where the colours begin again
MARKERS = dict(zip(METHODS, "*PX", strict=True))  # of published values
PANELS = {"return of an episode": "score", "cost of an episode": "cost", "cost regret": "regret"}
LINEAR_COST = 10  # up to here the axis of the cost is linear, above it logarithmic
DPI = 110


class FigureFile(NamedTuple):
    """The same drawing twice, as PNG."""

    light: bytes
    dark: bytes


def draw(shape: tuple[float, float], paint: Callable[[Figure], None]) -> FigureFile:
    """Let `paint` fill a figure of so many inches, once for each kind of page."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("a report needs matplotlib: pip install matplotlib") from error
    figures = []
    for theme in FigureFile._fields:
        with mpl.rc_context(_style(INK[theme], PAPER[theme])):
            figure, file = Figure(figsize=shape, layout="constrained"), io.BytesIO()
            paint(figure)
            figure.savefig(file, format="png", dpi=DPI)
            figures.append(file.getvalue())
    return FigureFile(*figures)


def draw_curves(groups: Sequence[Group], source: Source) -> FigureFile | None:
    """Return, cost and cost regret over gradient updates; None where no run has two points."""
    curves = [(g.label, [c for run in g.runs if (c := run.curve(source))]) for g in groups]
    if all(len(curve.updates) < 2 for _, own in curves for curve in own):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, len(PANELS))
        for axis, (title, quantity) in zip(axes, PANELS.items(), strict=True):
            for colour, (label, own) in enumerate(curves):
                _seeds(axis, own, quantity, COLOURS[colour % len(COLOURS)], label)
            axis.set_title(f"{title}, {source.name}", loc="left")
            axis.set_xlabel("gradient updates")
            if quantity != "score":
                axis.set_ylim(bottom=0)
        _legend_below(figure, axes[0])

    return draw((13, 4.3), paint)


def draw_scatter(
    task: str,
    ours: Sequence[ScatterPoint],
    data: Sequence[ScatterPoint],
    others: Sequence[Published],
) -> FigureFile:
    """Return against cost: dots of ours, small crosses of the data, hollow published values."""

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        for k, policy in enumerate(data):
            grey = str(0.45 + 0.12 * (k % 4))
            axis.scatter(policy.scores, policy.costs, s=10, marker="x", alpha=0.35, color=grey)
            _mean(axis, policy, "s", grey, f"data: {policy.name}")
        for k, outcome in enumerate(ours):
            colour, dot = COLOURS[k % len(COLOURS)], DOTS[k // len(COLOURS) % len(DOTS)]
            axis.scatter(
                outcome.scores, outcome.costs, s=22, alpha=0.5, marker=dot, color=colour,
                linewidths=0,
            )  # fmt: skip
            _mean(axis, outcome, dot, colour, outcome.name)
        for point in others:
            axis.scatter(
                point.score, point.cost, s=130, marker=MARKERS[point.method], facecolors="none",
                edgecolors=COLOURS[5 if point.phase == "offline" else 6], linewidths=1.5,
                label=f"published: {point.method} {point.phase}", zorder=3,
            )  # fmt: skip
        axis.set_yscale("symlog", linthresh=LINEAR_COST)
        axis.set_ylim(bottom=-0.6)
        ticks = [0, 2, 4, 6, 8, 10, 20, 50, 100, 200, 500]
        axis.set_yticks([tick for tick in ticks if tick <= axis.get_ylim()[1]])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set(xlabel="return of an episode", ylabel="cost of an episode")
        axis.set_title(f"Return and cost in {task}", loc="left")
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)

    return draw((11, 5.6), paint)


def draw_calibration(runs: Sequence[tuple[str, Forecast]]) -> FigureFile:
    """Reliability diagram, above how many rows have which estimate: one line for each run."""

    def paint(figure: Figure) -> None:
        diagram, rows = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        diagram.plot([0, 1], [0, 1], linestyle=":", color="grey", label="perfect")
        for k, (label, seen) in enumerate(runs):
            bins = reliability(seen.estimate, seen.outcome)
            _reliability(diagram, rows, bins, COLOURS[k % len(COLOURS)], label)
        diagram.set(ylabel="share where a violation followed", ylim=(-0.02, 1.02), xlim=(0, 1))
        diagram.set_title("Violation probability and what followed", loc="left")
        rows.set(
            xlabel="estimated violation probability p, mean of its tenth",
            ylabel="rows",
            yscale="log",
        )
        _legend_below(figure, diagram)

    return draw((7, 7), paint)


def _seeds(axis: Axes, curves: Sequence[Curve], quantity: str, colour: str, label: str) -> None:
    """Thin lines for seeds; their mean with its interval where there are two or more."""
    lines = [(curve.updates, getattr(curve, quantity)) for curve in curves]
    several = len(lines) > 1
    for steps, values in lines:
        style = {"alpha": 0.35, "linewidth": 0.8} if several else {"label": label}
        axis.plot(steps, values, color=colour, marker=point_marker(steps), **style)
    if not several:
        return
    steps, values = on_common_steps(lines)
    mean, low, high = band(values)
    axis.plot(
        steps, mean, color=colour, marker=point_marker(steps), label=f"{label} ({len(lines)} seeds)"
    )
    axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def point_marker(steps: np.ndarray) -> str:
    """Dots for curves of few points."""
    return "." if len(steps) < 30 else ""


def _mean(axis: Axes, outcome: ScatterPoint, marker: str, colour: str, label: str) -> None:
    axis.scatter(
        outcome.scores.mean(), outcome.costs.mean(), s=90, marker=marker, color=colour,
        label=label, zorder=2,
    )  # fmt: skip


def _reliability(diagram: Axes, rows: Axes, bins: Bins, colour: str, label: str) -> None:
    diagram.plot(bins.estimate, bins.share, marker="o", color=colour, label=label)
    rows.plot(bins.estimate, bins.rows, marker="o", color=colour)


def _legend_below(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() // 4)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def _style(ink: str, paper: str) -> dict[Any, Any]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, ink),
        "figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper,
        "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "grid.color": ink,
    }  # fmt: skip
