"""What the campaign works on: a dataset, runs and an exported agent, all of them small."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.campaign.host import Child
from tests.campaign.world import SIDE, TASK

SEEN = ("--task", TASK, "--env.cameras", "vision", "--env.size", str(SIDE))
QUIET = ("--run.log_every", "1", "--run.heldout_every", "0", "--run.eval_every", "0")
RECORDED = ("--dataset.episodes", "6", "--dataset.mix", "random=1", "--dataset.workers", "1")
DATA, RUN, ONLINE, AGENT = "data.h5", "run", "online", "agent.pt"


def record(data: str) -> list[str]:
    """The words of a recording."""
    return ["--configs", "collect", "debug", *SEEN, *RECORDED, "--dataset.path", data]


def offline(data: str, run: str, updates: int = 6, *words: str) -> list[str]:
    """The words of an offline training."""
    return [
        *("--configs", "fosp_offline", "debug", *SEEN, *QUIET, "--dataset.path", data),
        *("--logdir", run, "--run.updates", str(updates), "--run.save_every", "2"),
        *("--device", "cpu", *words),
    ]


def online(source: str, data: str, run: str, steps: int = 24, *words: str) -> list[str]:
    """The words of an online training that goes on from an offline one."""
    return [
        *("--configs", "fosp_online", "debug", *SEEN, *QUIET, "--from", source),
        *("--dataset.path", data, "--logdir", run, "--online.steps", str(steps)),
        *("--online.envs", "1", "--device", "cpu", "--run.save_every", "4", *words),
    ]


def scratch(run: str, steps: int = 60) -> list[str]:
    """The words of the core alone, which plays its running episodes again and goes on exactly."""
    return [
        *("--configs", "debug", "--env.id", "dreamer.envs.reach:Reach", "--env.size", "16"),
        *("--logdir", run, "--online.steps", str(steps), "--online.envs", "1", *QUIET),
        *("--device", "cpu", "--run.save_every", "4", "--online.prefill", "30"),
    ]


def evaluate(run: str, out: str, episodes: int = 3) -> list[str]:
    """The words of an evaluation."""
    return [
        *("--logdir", run, "--episodes", str(episodes), "--videos", "0", "--device", "cpu"),
        *("--out", out, "--task", TASK),
    ]


def prepare(folder: Path) -> Path:
    """Make everything once, in `folder`/material; returns that folder."""
    material = folder / "material"
    if material.exists():
        return material
    part = folder / f"material.{os.getpid()}.part"
    part.mkdir(parents=True)
    steps = [
        ("train", record(DATA)),
        ("train", offline(DATA, RUN)),
        ("train", online(RUN, DATA, ONLINE)),
        ("eval", evaluate(RUN, f"{RUN}/eval/000000006")),
        ("export", [RUN, "--out", AGENT]),
    ]
    for command, words in steps:
        outcome = Child(part, command, words).wait(600)
        if outcome.code:
            raise RuntimeError(f"{command} {' '.join(words)}: {outcome.err}")
    part.rename(material)
    return material


def fresh(material: Path, place: Path, *names: str) -> Path:
    """An empty folder `place` with copies of these parts of the material."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in names:
        source = material / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, place / name)  # type: ignore[operator]
    return place
