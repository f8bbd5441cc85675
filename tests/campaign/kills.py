"""Signals at random times: the same commands, given again, must end as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dreamer.data.hdf5 import fingerprint, read_episodes
from dreamer.training.checkpoint import Checkpoint
from tests.campaign import material as made
from tests.campaign.host import Child, Outcome

SIGNALS = {signal.SIGKILL: 137, signal.SIGTERM: 143, signal.SIGINT: 130}


class Stage(NamedTuple):
    """A command that can be disturbed, and what has to be the same at its end."""

    command: str
    words: list[str]
    needs: tuple[str, ...]  # parts of the material
    result: Callable[[Path], Any]
    again: bool = True  # does the same command go on? Else it begins anew, beside what is there


def recording(place: Path) -> Any:
    """Every number and every image of the dataset."""
    images = [episode.images["vision"].tobytes() for episode in read_episodes(place / "new.h5")]
    return fingerprint(place / "new.h5"), images


def checkpoint(place: Path) -> Any:
    """All that the newest checkpoint holds, but for the settings, which name folders."""
    state = Checkpoint.load(Checkpoint(place / "new" / "checkpoints", 1).latest())
    return {key: value for key, value in state.items() if key != "config"}


def episodes(place: Path) -> Any:
    """The episodes of the newest whole evaluation."""
    folders = sorted(place.glob("new*/summary.json"), key=lambda path: path.stat().st_mtime)
    summary = json.loads(folders[-1].read_text())
    lines = (folders[-1].parent / "episodes.jsonl").read_text()
    return lines, {key: summary[key] for key in ("return", "cost", "length", "seeds")}


STAGES = {
    "kill recording": Stage("train", made.record("new.h5"), (), recording),
    "kill offline": Stage("train", made.offline(made.DATA, "new"), (made.DATA,), checkpoint),
    "kill online": Stage("dreamer", made.scratch("new"), (), checkpoint),
    "kill evaluation": Stage(
        "eval", made.evaluate(made.RUN, "new", 6), (made.RUN,), episodes, again=False
    ),
}


class Undisturbed:
    """The ends of the stages when nobody disturbs them, and how long they take."""

    def __init__(self, material: Path, folder: Path) -> None:
        self._material, self._folder = material, folder
        self._known: dict[str, tuple[Any, float]] = {}

    def of(self, name: str) -> tuple[Any, float]:
        """(result, seconds) of a stage."""
        if name not in self._known:
            stage, place = STAGES[name], self._folder / f"straight-{name.split()[1]}"
            made.fresh(self._material, place, *stage.needs)
            outcome = Child(place, stage.command, stage.words).wait(600)
            if outcome.code:
                raise RuntimeError(f"{name}: {outcome.err}")
            self._known[name] = stage.result(place), outcome.wall
            shutil.rmtree(place)
        return self._known[name]


class Disturbed(NamedTuple):
    """A stage that was disturbed."""

    signals: list[str]
    outcome: Outcome  # of the last start
    wrong: list[str]


def disturb(name: str, straight: Undisturbed, place: Path, rng: random.Random) -> Disturbed:
    """Start a stage, end it by signals, start it again, and compare its end."""
    stage, (wanted, seconds) = STAGES[name], straight.of(name)
    made.fresh(straight._material, place, *stage.needs)
    sent, wrong = [], []
    for _ in range(rng.choice((1, 1, 2))):
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, *SIGNALS))
        child = Child(place, stage.command, stage.words)
        time.sleep(rng.uniform(0, seconds))
        child.signal(number)
        outcome = child.wait()
        sent.append(f"{signal.Signals(number).name} {outcome.wall:.2f} s")
        early = number == signal.SIGKILL or outcome.code == 0
        if not early and outcome.code not in (SIGNALS[number], -number):
            wrong.append(f"{sent[-1]}: exit code {outcome.code}")
        if "Traceback" in outcome.err and number != signal.SIGINT:
            wrong.append(f"{sent[-1]}: traceback")
    outcome = Child(place, stage.command, stage.words).wait()
    wrong += outcome.faults()
    if outcome.code:
        wrong.append(f"it does not go on: {outcome.err[-200:]}")
    elif not same(stage.result(place), wanted):
        wrong.append("another end than undisturbed")
    left = [path.name for path in place.rglob("*.part")]
    if left:
        wrong.append(f"left behind: {left[:3]}")
    return Disturbed(sent, outcome, wrong)


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
