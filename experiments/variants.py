"""Figure of the variants of a task for the docs: `python -m experiments.variants`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from dreamer.errors import UserError, tell_error
from dreamer.files import atomic_path
from fosp_ext.envs import check_task, env_action_size, fitting_variants, make_env

TITLES = {"vision": "front", "vision_back": "back"}  # of cameras whose names do not say it
SIZE = 192
SEED = 112  # a world of SafetyPointGoal1-v0 with hazards on both sides
BEGIN = 3  # steps of the action (0, 1, 0, ...), with which the Point turns until the goal is ahead
ACROSS = 2  # variants beside each other


def main(argv: list[str]) -> int:
    """Draw the figure; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="SafetyPointGoal1-v0")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path("docs/images/variants.png"))
    arguments = parser.parse_args(argv)
    try:
        task = check_task(arguments.task)
        views = {name: views_of(task, name, arguments.seed) for name in fitting_variants(task)}
        draw(views, arguments.out)
    except UserError as error:
        return tell_error(error)
    print(f"figure: {arguments.out}, {arguments.out.stat().st_size / 1000:.0f} kB")
    return 0


def views_of(task: str, variant: str, seed: int) -> dict[str, np.ndarray]:
    """Camera images of one variant and the view of videos: title -> image."""
    env = make_env(task, size=SIZE, render="exact", variant=variant)
    obs, _ = env.reset(seed=seed)
    action = np.eye(env_action_size(env))[1]
    for _ in range(BEGIN):
        obs, *_ = env.step(action)
    above = env.render()
    env.close()
    return {**{TITLES.get(name, name): image for name, image in obs.items()}, "video": above}


def draw(views: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """All views in one labelled figure."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    rows = -(-len(views) // ACROSS)
    figure = plt.figure(figsize=(12.4, 2.25 * rows), layout="constrained")
    panels = figure.subfigures(rows, ACROSS, wspace=0.02).flat
    for panel, (name, images) in zip(panels, views.items(), strict=False):
        panel.suptitle(name, fontweight="bold")
        for axis, (title, image) in zip(
            panel.subplots(1, len(images)), images.items(), strict=True
        ):
            axis.imshow(image)
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
