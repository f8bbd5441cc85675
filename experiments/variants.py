"""Figure of all variants for docs/reference/variants.md: `python -m experiments.variants`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from dreamer.boundary import Parser, bounded
from dreamer.files import atomic_path
from fosp_ext.envs import VARIANTS, make_env

CAMERAS = {"vision": "front", "vision_back": "back"}
SIZE = 192
SEED = 112  # a world of SafetyPointGoal1-v0 with hazards on both sides
TURN = np.tile([[0.0, 1.0]], (3, 1))  # until the goal is ahead
ACROSS = 2  # variants beside each other


@bounded
def main(argv: list[str]) -> int:
    """Draw the figure; returns the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="SafetyPointGoal1-v0")
    parser.add_argument("--out", type=Path, default=Path("docs/images/variants.png"))
    arguments = parser.parse_args(argv)
    views = {name: views_of(arguments.task, name) for name in VARIANTS}
    draw(views, arguments.out)
    print(f"figure: {arguments.out}, {arguments.out.stat().st_size / 1000:.0f} kB")
    return 0


def views_of(task: str, variant: str) -> dict[str, np.ndarray]:
    """Camera images of one variant and the view from above: title -> image."""
    env = make_env(task, tuple(CAMERAS), SIZE, render="exact", variant=variant)
    obs, _ = env.reset(seed=SEED)
    for action in TURN:
        obs, *_ = env.step(action)
    above = env.render()
    env.close()
    return {**{title: obs[camera] for camera, title in CAMERAS.items()}, "from above": above}


def draw(views: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """All views in one labelled figure."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    rows = -(-len(views) // ACROSS)
    figure = plt.figure(figsize=(12.4, 2.25 * rows), layout="constrained")
    for panel, (name, images) in zip(
        figure.subfigures(rows, ACROSS, wspace=0.02).flat, views.items(), strict=True
    ):
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
