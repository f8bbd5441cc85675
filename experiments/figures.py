"""Figures of a finished run for the documentation: `python -m experiments.figures RUN`.

Writes curves.png (learning curves from metrics.jsonl), open_loop.gif (the newest prediction
video) and policy.gif (every other frame of a video: the newest evaluation's first, or another one).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import av
import matplotlib as mpl
import numpy as np

from dreamer.boundary import Parser, bounded
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.training.video import to_gif
from fosp_ext.report.figures import point_marker
from fosp_ext.report.runs import points, read_metrics

CURVES = {
    "return of evaluations": ["eval/score"],
    "cost of evaluations": ["eval/cost"],
    "image losses": [
        "train/wm/image_loss/vision",
        "heldout/image_loss/vision",
        "train/wm/image_loss/vision_back",
        "heldout/image_loss/vision_back",
    ],
    "reward and cost losses": [
        "train/wm/reward_loss",
        "heldout/reward_loss",
        "train/wm/cost_loss",
        "heldout/cost_loss",
    ],
    "cost decoder on held-out rows": [
        "heldout/cost_recall",
        "heldout/cost_precision",
    ],
    "violation probability and feasibility": [
        "train/reach/violation_probability",
        "train/actor/feasibility",
    ],
}
LOGARITHMIC = ("image losses",)
VIDEO_STRIDE, VIDEO_FPS, VIDEO_FRAMES, VIDEO_WIDTH = 2, 12.5, 100, 512


@bounded
def main(argv: list[str]) -> int:
    """Draw everything; returns the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of train.py")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder to write to")
    parser.add_argument("--video", type=Path, metavar="MP4", help="for policy.gif, of eval.py")
    arguments = parser.parse_args(argv)
    prediction = newest(arguments.run, "open_loop/openl_vision_0*.gif")
    video = arguments.video or newest(arguments.run, "eval/*/videos/ep_000.mp4")
    if not video.is_file():
        raise UserError(f"no video {video}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_curves(read_metrics(arguments.run), arguments.out / "curves.png")
    shutil.copy(prediction, arguments.out / "open_loop.gif")
    with atomic_path(arguments.out / "policy.gif") as part:
        part.write_bytes(to_gif(read_frames(video), VIDEO_FPS))
    print(f"figures: {arguments.out}")
    return 0


def newest(run: Path, pattern: str) -> Path:
    """The file that was written last of those that match."""
    files = sorted(run.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"no {run / pattern} yet")
    return files[-1]


def read_frames(video: Path) -> np.ndarray:
    """Every other frame of a video's beginning, smaller, (T, height, VIDEO_WIDTH, 3) uint8."""
    with av.open(str(video)) as file:
        images = [frame.to_image() for frame in file.decode(video=0)]
    height = round(images[0].height * VIDEO_WIDTH / images[0].width)
    chosen = images[: VIDEO_FRAMES * VIDEO_STRIDE : VIDEO_STRIDE]
    return np.stack([np.asarray(image.resize((VIDEO_WIDTH, height))) for image in chosen])


def draw_curves(rows: list[dict], path: Path) -> None:
    """One panel per group of metrics over gradient updates; points where a metric is rare."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(14, 7), layout="constrained")
    for axis, (title, tags) in zip(axes.flat, CURVES.items(), strict=True):
        for tag in tags:
            steps, values = points(rows, tag)
            axis.plot(steps, values, label=tag, marker=point_marker(steps))
        axis.set(title=title, xlabel="gradient updates")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
        if title in LOGARITHMIC:
            axis.set_yscale("log")
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
