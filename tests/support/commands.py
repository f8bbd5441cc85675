"""The commands as the tests call them: in this process, or in one that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
import torch

import train
from dreamer.agent import Agent
from dreamer.data.episode import Episode
from dreamer.data.hdf5 import read_episodes
from dreamer.envs.parallel import ParallelEnvs
from dreamer.training.checkpoint import Checkpoint

ROOT = Path(train.__file__).parent
TIMED = ("time/", "fps/")  # metrics that no two runs share


def offline(dataset: Path, logdir: Path, *words: str) -> list[str]:
    """The words of a tiny offline training; later words win."""
    return [
        *("--configs", "fosp_offline", "debug"),
        *("--dataset.path", str(dataset), "--logdir", str(logdir)),
        *("--run.updates", "6", "--run.log_every", "1", "--run.heldout_every", "3"),
        *("--run.save_every", "3", *words),
    ]


def online(source: Path, logdir: Path, *words: str) -> list[str]:
    """The words of a tiny online run that goes on from `source`; later words win."""
    return [
        *("--configs", "fosp_online", "debug", "--device", "cpu"),
        *("--from", str(source), "--logdir", str(logdir)),
        *("--run.log_every", "1", "--run.heldout_every", "0", *words),
    ]


def start(argv: list[str], code: str | None = None) -> subprocess.Popen:
    """train.py, or Python `code`, with these words in a process of its own."""
    script = [str(ROOT / "train.py")] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *script, *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def saved(logdir: Path) -> dict:
    """The newest checkpoint of a run."""
    return Checkpoint.load(Checkpoint(logdir / "checkpoints", 1).latest())


def metrics(logdir: Path) -> list[dict]:
    """The lines of metrics.jsonl without timings."""
    lines = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(TIMED)} for line in lines]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, to see that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def after_update(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[dict[str, Any]], None]
) -> None:
    """Let `act` see, and change, the metrics of the update with this number in this process."""
    plain, count = Agent.update, 0

    def update(self, batch, update_policy=True, update_model=True):
        nonlocal count
        count += 1
        result = plain(self, batch, update_policy, update_model)
        if count == number:
            act(result)
        return result

    monkeypatch.setattr(Agent, "update", update)


def act_in(monkeypatch: pytest.MonkeyPatch, make: Callable[[], gymnasium.Env]) -> None:
    """Let online runs act, and be evaluated, in environments that `make` makes."""

    def begin(_: Callable, count: int, warn: Callable) -> ParallelEnvs:
        return ParallelEnvs(make, count, warn)

    monkeypatch.setattr("dreamer.training.online.ParallelEnvs", begin)
    monkeypatch.setattr("fosp_ext.run.online.evaluation_env", lambda *_: make())


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit: tensors and plain values, also in dicts and lists."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


# stands for a logger that writes nothing
NO_LOG = SimpleNamespace(
    timer=lambda _: torch.no_grad(),  # any context will do
    add=lambda *_, **__: None,
    tick=lambda _: None,
    write=lambda *_: None,
    check_finite=lambda: None,
)


# stands for a stream: batches are their numbers
NUMBERS = SimpleNamespace(ready=lambda: True, batch=lambda index, device: index)


def replay(run: Path) -> dict[str, Episode]:
    """Each kept episode of a run by the name of its file, below the folder of its process."""
    episodes = {}
    for file in sorted((run / "replay").rglob("*.h5")):
        (episodes[str(file.relative_to(run / "replay"))],) = read_episodes(file)
    return episodes
