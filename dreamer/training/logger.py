"""Logs of a run: metrics.jsonl, TensorBoard and the like, a line or a bar of progress."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dreamer import distributed
from dreamer.errors import NonFiniteError
from dreamer.files import atomic_path, parse_json, write_text
from dreamer.training.settings import TENSORBOARD
from dreamer.training.sinks import Sink, open_sinks
from dreamer.training.video import to_gif

HEADLINE = ("train/wm/loss", "train/actor/loss", "eval/score", "eval/cost")
Value = Tensor | float


class Logger:
    """Averages metrics between two writes. Adding never waits for the device, writing does.

    Of several processes each has one; all call `write` and `check_finite` at the same updates. The
    averages are those over all processes, and one of them writes and shows everything.
    """

    def __init__(
        self,
        logdir: str | Path,
        quiet: bool = False,
        resume_step: int | None = None,
        total_steps: int | None = None,
        headline: tuple[str, ...] = HEADLINE,
        resume_env_steps: int | None = None,
        shown_in: Sequence[str] = (TENSORBOARD,),
    ) -> None:
        """Log into `logdir`; what was written after `resume_step` is dropped, it will come again.

        So are lines whose `step/env` is above `resume_env_steps`; TensorBoard forgets whole steps
        only, it may show them twice. `headline` names the metrics shown on screen; `quiet` shows
        none. `shown_in` are names of `dreamer.training.sinks.LOGGERS`.
        """
        self.logdir = Path(logdir)
        self._file = self.logdir / "metrics.jsonl"
        self._sinks: list[Sink] = []
        if distributed.is_writer():
            self.logdir.mkdir(parents=True, exist_ok=True)
            if resume_step is not None:
                _drop_lines_after(self._file, resume_step, resume_env_steps)
            self._sinks = open_sinks(shown_in, self.logdir, resume_step)
        self._averages = _Averages()
        self._headline, self._total = headline, total_steps
        self._clock = _Clock(resume_step or 0)
        self._quiet = quiet or not distributed.is_writer()
        self._bar = None
        if not self._quiet and sys.stderr.isatty():
            self._bar = tqdm(
                total=total_steps, initial=resume_step or 0, unit="update", dynamic_ncols=True
            )

    def add(self, metrics: Mapping[str, Value], prefix: str = "") -> None:
        """Take 0-d tensors or floats into the averages of the next write."""
        start = f"{prefix}/" if prefix else ""
        self._averages.add({f"{start}{name}": value for name, value in metrics.items()})

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Log how long the block took, as `time/<name>_s`."""
        begin = time.perf_counter()
        yield
        self.add({f"time/{name}_s": time.perf_counter() - begin})

    def tick(self, step: int) -> None:
        """Move the progress bar to `step`; does nothing where there is none."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def write(self, step: int, env_steps: int | None = None) -> None:
        """Write the averages since the last write; `step` counts gradient updates.

        Everything finite is written before a `NonFiniteError` names the rest.
        """
        metrics = self._averages.take()
        metrics |= self._clock.rates(step, env_steps)
        if env_steps is not None:
            metrics["step/env"] = float(env_steps)
        metrics = distributed.average(metrics)
        if distributed.is_writer():
            self._show(step, self._put(metrics, step))
        _refuse_broken(metrics, step)

    def row(self, metrics: Mapping[str, float], step: int, env_steps: int) -> None:
        """Write these numbers at once, as a line of their own, and `env_steps` as `step/env`.

        Averages and rates of the next `write` do not notice, and nothing is shown. Everything
        finite is written before a `NonFiniteError` names the rest.
        """
        line = {**metrics, "step/env": float(env_steps)}
        self._put(line, step)
        _refuse_broken(line, step)

    def check_finite(self) -> None:
        """Raise `NonFiniteError` if a metric since the last write is not finite; writes nothing."""
        metrics = distributed.average(self._averages.peek())
        broken = sorted(tag for tag, value in metrics.items() if not math.isfinite(value))
        if broken:
            raise NonFiniteError(f"not finite: {', '.join(broken)}")

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """A histogram of `values`."""
        for sink in self._sinks:
            sink.histogram(tag, values, step)

    def video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> bytes:
        """(T, height, width, 3) uint8 frames as the animated GIF it returns."""
        encoded = to_gif(frames, fps)
        for sink in self._sinks:
            sink.gif(tag, encoded, frames.shape, step)
        return encoded

    def message(self, text: str) -> None:
        """One line for the reader, beside the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text)
        elif not self._quiet:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Finish the files and the bar."""
        for sink in self._sinks:
            sink.close()
        if self._bar is not None:
            self._bar.close()

    def _put(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """Write what is finite into both files, and return it."""
        finite = {tag: value for tag, value in metrics.items() if math.isfinite(value)}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        for sink in self._sinks:
            sink.scalars(finite, step)
        return finite

    def _show(self, step: int, metrics: dict[str, float]) -> None:
        shown = {tag: metrics[tag] for tag in self._headline if tag in metrics}
        if self._bar is not None:
            self.tick(step)
            self._bar.set_postfix({tag.split("/", 1)[-1]: f"{v:.3g}" for tag, v in shown.items()})
            return
        rate = metrics.get("fps/updates", 0.0)
        words = [f"update {step}" if self._total is None else f"update {step}/{self._total}"]
        words += [f"{tag} {value:.4g}" for tag, value in shown.items()]
        if rate > 0:
            words.append(f"{rate:.3g} updates/s")
            if self._total is not None:
                words.append(f"{_duration((self._total - step) / rate)} left")
        self.message("  ".join(words))


class _Averages:
    """Running sums; metrics that come together as tensors stay one vector on their device."""

    def __init__(self) -> None:
        self._floats: dict[str, tuple[float, int]] = {}
        self._vectors: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, metrics: dict[str, Value]) -> None:
        """Count these in, each a number or a tensor of one; nothing waits for the device."""
        tensors = {tag: value for tag, value in metrics.items() if isinstance(value, Tensor)}
        if tensors:
            vector = torch.stack([value.detach().float() for value in tensors.values()])
            sums, count = self._vectors.get(tuple(tensors), (torch.zeros_like(vector), 0))
            self._vectors[tuple(tensors)] = (sums + vector, count + 1)
        for tag in metrics.keys() - tensors.keys():
            total, count = self._floats.get(tag, (0.0, 0))
            self._floats[tag] = (total + float(metrics[tag]), count + 1)

    def peek(self) -> dict[str, float]:
        """The averages now; this is where the device is waited for."""
        sums = dict(self._floats)
        for tags, (vector, count) in self._vectors.items():
            for tag, total in zip(tags, vector.tolist(), strict=True):
                before, times = sums.get(tag, (0.0, 0))
                sums[tag] = (before + total, times + count)
        return {tag: total / count for tag, (total, count) in sorted(sums.items())}

    def take(self) -> dict[str, float]:
        """The averages now, which begin anew."""
        averages = self.peek()
        self._floats.clear()
        self._vectors.clear()
        return averages


class _Clock:
    """Steps per second between two writes."""

    def __init__(self, step: int) -> None:
        self._time, self._step = time.perf_counter(), step
        self._env_steps: int | None = None

    def rates(self, step: int, env_steps: int | None) -> dict[str, float]:
        """Updates and agent steps per second since the last call, where there were any."""
        now = time.perf_counter()
        seconds = max(now - self._time, 1e-9)
        rates = {}
        if step > self._step:
            rates["fps/updates"] = (step - self._step) / seconds
        if env_steps is not None and self._env_steps is not None:
            rates["fps/env"] = (env_steps - self._env_steps) / seconds
        if rates:
            self._time = now
        self._step, self._env_steps = step, env_steps
        return rates


def _refuse_broken(metrics: Mapping[str, float], step: int) -> None:
    broken = sorted(tag for tag, value in metrics.items() if not math.isfinite(value))
    if broken:
        raise NonFiniteError(f"not finite at step {step}: {', '.join(broken)}")


def _drop_lines_after(path: Path, step: int, env_steps: int | None) -> None:
    """Keep the whole lines of a metrics file up to both counts; a torn last line goes too."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    with atomic_path(path) as part:
        write_text(part, "".join(f"{x}\n" for x in lines if _came_before(x, step, env_steps)))


def _came_before(line: str, step: int, env_steps: int | None) -> bool:
    try:
        row = parse_json(line)
        return row["step"] <= step and (env_steps is None or row.get("step/env", 0) <= env_steps)
    except (ValueError, LookupError, TypeError, AttributeError):  # no line of ours
        return False


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
