"""Fixtures of all tests: a small dataset, runs on it, an environment, refused commands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import train
from dreamer.data.hdf5 import write_dataset
from dreamer.envs.counting import CountingEnv
from tests.support.commands import act_in, offline, snapshot
from tests.support.toy_data import TOY_INFO, toy_episode

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of 40 steps with two 64x64 cameras; the last one truly ended."""
    path = tmp_path_factory.mktemp("dataset") / "toy.hdf5"
    write_dataset(path, (toy_episode(seed=k, terminated=k == 5) for k in range(6)), TOY_INFO)
    return path


@pytest.fixture
def place(tmp_path: Path, toy_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset `data.h5` in it."""
    shutil.copy(toy_dataset, tmp_path / "data.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def toy_run(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished offline training of six updates. Copy it before changing it."""
    logdir = tmp_path_factory.mktemp("runs") / "straight"
    assert train.main(offline(toy_dataset, logdir)) == 0
    return logdir


@pytest.fixture(scope="session")
def brief_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An offline run like `toy_run`, of one update, whose episodes are 50 agent steps long."""
    folder = tmp_path_factory.mktemp("brief")
    info = replace(TOY_INFO, action_repeat=20)
    write_dataset(folder / "toy.h5", (toy_episode(seed=k) for k in range(6)), info)
    words = ("--run.updates", "1", "--run.heldout_every", "0", "--env.action_repeat", "20")
    assert train.main(offline(folder / "toy.h5", folder / "run", *words)) == 0
    return folder / "run"


@pytest.fixture
def quick_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online runs act in a counter with episodes of 8 steps, which is made in no time."""
    act_in(monkeypatch, partial(CountingEnv, 8))  # with the cameras and actions of TOY_INFO


@pytest.fixture
def refuse(place: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Call a command that must refuse its words, and return the message."""

    def call(
        argv: list[str], command: Callable[[list[str]], int] = train.main, code: int = 2
    ) -> str:
        before = snapshot(place)
        capsys.readouterr()
        assert command(argv) == code
        out, err = capsys.readouterr()
        assert not out
        assert "Traceback" not in err
        lines = err.splitlines()
        assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
        assert snapshot(place) == before
        return lines[-1]

    return call
