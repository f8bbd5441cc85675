"""Films of the runs: where they are from the page, and a small still of each."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from fosp_ext.report.runs import Run, played_by

SHOWN = 3  # films of an evaluation
WIDTH = 360  # pixels of a still


@dataclass(frozen=True)
class FilmLink:
    """A film as the page shows it."""

    href: str  # relative to the page
    caption: str
    still: bytes | None  # JPEG, where the film can be decoded


def films(run: Run, label: str, out: Path) -> list[FilmLink]:
    """The first films of the newest evaluations of a run, for a page in the folder `out`."""
    return [
        FilmLink(
            relative(film, out),
            f"{label}, seed {run.config.seed}, {evaluation.variant}"
            f"{played_by(evaluation.policy)}, {evaluation.updates} updates",
            still(film),
        )
        for evaluation in run.newest()
        for film in evaluation.films[:SHOWN]
    ]


def relative(path: Path, folder: Path) -> str:
    """The path as a link from a page in `folder`."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def still(film: Path) -> bytes | None:
    """A picture from near the beginning of a film; None without a decoder or for a broken file."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(film)) as file:
            picture = next(file.decode(video=0)).to_image()
    except (av.error.FFmpegError, StopIteration, OSError):
        return None
    picture.thumbnail((WIDTH, WIDTH))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
