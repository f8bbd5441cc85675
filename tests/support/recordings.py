"""Small recordings of the real simulator."""

from __future__ import annotations

from pathlib import Path

from fosp_ext.dataset.collect import collect_dataset
from fosp_ext.dataset.collect_plan import CollectSettings


def record_goal(path: Path, mix: dict[str, float]) -> Path:
    """Two episodes of 50 long steps in PointGoal1 by these policies, as a dataset file."""
    settings = CollectSettings(
        task="SafetyPointGoal1-v0", cameras=("vision", "vision_back"), size=64, action_repeat=20,
        render="fast", episodes=2, mix=mix, noise=0.3, min_speed=0.5, workers=1, seed=0,
        variant="none", field_of_view="cameras",
    )  # fmt: skip
    with open("/dev/null", "w") as silent:
        collect_dataset(path, settings, silent)
    return path
