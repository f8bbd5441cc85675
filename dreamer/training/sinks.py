"""Where numbers and pictures of a run are shown: TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib
import io
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dreamer.config import read_yaml
from dreamer.errors import UserError
from dreamer.training.settings import TENSORBOARD, WANDB

Shape = tuple[int, ...]  # of frames: (T, height, width, 3)


class Sink(Protocol):
    """One program that shows a run. `step` counts gradient updates."""

    def scalars(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers by tag."""

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """How values of any shape are spread."""

    def gif(self, tag: str, encoded: bytes, shape: Shape, step: int) -> None:
        """An animated GIF."""

    def close(self) -> None:
        """Finish the files."""


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        """What was written after `resume_step` is not shown any more."""
        purge = None if resume_step is None else resume_step + 1
        self._events = SummaryWriter(str(folder), purge_step=purge)

    def scalars(self, metrics: Mapping[str, float], step: int) -> None:
        """Each number is a point of its curve."""
        for tag, value in metrics.items():
            self._events.add_scalar(tag, value, step)
        self._events.flush()

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """For the page of histograms."""
        self._events.add_histogram(tag, values.detach().float().cpu(), step)

    def gif(self, tag: str, encoded: bytes, shape: Shape, step: int) -> None:
        """For the page of images."""
        _, height, width, channels = shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encoded
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._events._get_file_writer().add_summary(summary, step)

    def close(self) -> None:
        """Finish the event file."""
        self._events.close()


class WandB:
    """A run of Weights & Biases, with its files in the run folder.

    Its own environment variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline. A run that
    is continued goes on as the same one; steps that come again are shown twice.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        self._library = library()
        place = folder / "wandb"
        place.mkdir(exist_ok=True)
        note = place / "run-id"
        if not note.exists():
            note.write_text(secrets.token_hex(4))
        settings = folder / "config.yaml"
        self._run = self._library.init(
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "dreamer"),
            name="/".join(folder.resolve().parts[-3:]),
            id=note.read_text(),
            resume="allow",
            config=read_yaml(settings) if settings.exists() else {},
            settings=self._library.Settings(silent=True),
        )
        self._run.define_metric("*", step_metric="update")

    def scalars(self, metrics: Mapping[str, float], step: int) -> None:
        """Each number is a point of its curve, over updates."""
        self._run.log({"update": step, **metrics})

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """A histogram over updates."""
        numbers = values.detach().float().cpu().numpy()
        self._run.log({"update": step, tag: self._library.Histogram(numbers)})

    def gif(self, tag: str, encoded: bytes, shape: Shape, step: int) -> None:
        """A video."""
        video = self._library.Video(io.BytesIO(encoded), format="gif")
        self._run.log({"update": step, tag: video})

    def close(self) -> None:
        """Finish, and wait until all is sent."""
        self._run.finish()


SINKS: Mapping[str, Callable[[Path, int | None], Sink]] = {TENSORBOARD: TensorBoard, WANDB: WandB}


def library() -> Any:
    """The module wandb; where it is missing, a `UserError` says how to get it."""
    try:
        return importlib.import_module(WANDB)
    except ImportError as error:
        raise UserError("the logger wandb is not installed: pip install wandb") from error


def check_loggers(names: Sequence[str]) -> None:
    """Refuse a program that is not installed, before anything is written."""
    if WANDB in names:
        library()


def open_sinks(names: Sequence[str], folder: Path, resume_step: int | None) -> list[Sink]:
    """The programs of these names, showing the run of a folder that exists."""
    return [SINKS[name](folder, resume_step) for name in names]
