"""Videos of the runs: their links from the page, and a small still of each."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from fosp_ext.report.runs import Run, played_by

SHOWN = 3  # videos of an evaluation
WIDTH = 360  # pixels of a still


@dataclass(frozen=True)
class VideoLink:
    """A video as the page shows it."""

    href: str  # relative to the page
    caption: str
    still: bytes | None  # JPEG, shown until the video plays; None where it cannot be decoded


def videos(run: Run, label: str, out: Path) -> list[VideoLink]:
    """The first videos of the newest evaluations of a run, for a page in the folder `out`."""
    return [
        VideoLink(
            relative(video, out),
            f"{label}, seed {run.config.seed}, {evaluation.variant}"
            f"{played_by(evaluation.policy)}, {evaluation.updates} updates",
            still(video),
        )
        for evaluation in run.newest()
        for video in evaluation.videos[:SHOWN]
    ]


def relative(path: Path, folder: Path) -> str:
    """The path as a link from a page in `folder`."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def still(video: Path) -> bytes | None:
    """An image from near the beginning of a video; None without a decoder or for a broken file."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(video)) as file:
            image = next(file.decode(video=0)).to_image()
    except (av.error.FFmpegError, StopIteration, OSError):
        return None
    image.thumbnail((WIDTH, WIDTH))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
