"""What the figures of a report hold."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fosp_ext.report import figures
from fosp_ext.report.material import ScatterPoint


def test_each_dot_of_a_crowded_scatter_looks_different(monkeypatch):
    drawn = Figure()
    monkeypatch.setattr(figures, "draw", lambda shape, paint: paint(drawn))
    ours = [ScatterPoint(f"run {k}", np.array([1.0 * k]), np.array([2.0])) for k in range(20)]
    figures.draw_scatter("SafetyPointGoal1-v0", ours, [], [])
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    looks = {(*dot.get_facecolor()[0], dot.get_paths()[0].vertices.tobytes()) for dot in handles}
    assert labels == [outcome.name for outcome in ours]
    assert len(looks) == len(ours)
