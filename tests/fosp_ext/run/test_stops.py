"""Signals are answered within a step of the environment, whatever a command is at; nothing is lost.

Also an environment that fails when it is closed.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as evaluation_command
import train
from dreamer.data.hdf5 import read_episodes, write_dataset
from dreamer.envs.counting import CountingEnv
from dreamer.envs.parallel import ParallelEnvs
from fosp_ext.dataset import __main__ as dataset_command
from tests.support.agents import make_agent, written_run
from tests.support.commands import ROOT, assert_same, metrics, offline, online, saved
from tests.support.stopping import SIGNAL, FailsToClose, signal_until_end
from tests.support.toy_data import TOY_INFO, toy_episode

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]


class Stopping(CountingEnv):
    """Six steps an episode; sends a signal to this process in one of all its steps."""

    def __init__(self, number: int, at: int) -> None:
        super().__init__(6, None, TOY_INFO.cameras)
        self.number, self.at, self.taken = number, at, 0

    def step(self, action):
        self.taken += 1
        if self.taken == self.at:
            os.kill(os.getpid(), self.number)
        return super().step(action)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that can be evaluated."""
    return written_run(tmp_path / "run", make_agent(), "fosp_offline", "debug")


@pytest.fixture
def evaluate(run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[CountingEnv], int]:
    """Two episodes of the run in an environment, the first one with a video."""

    def call(env: CountingEnv) -> int:
        monkeypatch.setattr("fosp_ext.run.evaluate.make_run_env", lambda *_: env)
        words = ("--episodes", "2", "--videos", "1", "--device", "cpu", "--workers", "1")
        return evaluation_command.main(["--logdir", str(run), *words])

    return call


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_an_evaluation_stops_at_the_next_step(run, evaluate, capsys, number, code):
    """The finished episode is kept, until the next evaluation, which takes the same folder."""
    env = Stopping(number, at=9)  # the third step of the second episode
    assert evaluate(env) == code
    assert env.taken == 9
    folder = run / "eval" / "000000007"
    assert len((folder / "episodes.jsonl").read_text().splitlines()) == 1
    assert not (folder / "summary.json").exists()
    kept, last = capsys.readouterr().err.splitlines()[-2:]
    assert kept.startswith(f"1 finished episodes are kept in {folder}/episodes.jsonl")
    assert last == "stopped; the next evaluation begins anew"
    assert evaluate(CountingEnv(6, None, TOY_INFO.cameras)) == 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert json.loads((folder / "summary.json").read_text())["episodes"] == 2
    assert sorted(x.name for x in folder.iterdir()) == ["episodes.jsonl", "summary.json", "videos"]


def test_an_evaluation_without_a_finished_episode_leaves_nothing(run, evaluate):
    assert evaluate(Stopping(signal.SIGTERM, at=2)) == 143
    assert not (run / "eval").exists()


def counting_env(*_: object) -> CountingEnv:
    """Made in a process of its own."""
    return CountingEnv(6, None, TOY_INFO.cameras)


def test_an_evaluation_in_several_processes_stops_too(run, monkeypatch, capsys):
    """While the video of its first episode is written."""
    monkeypatch.setattr("fosp_ext.run.evaluate.make_run_env", counting_env)
    monkeypatch.setattr(
        "fosp_ext.run.play.write_mp4", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    words = ("--episodes", "4", "--videos", "1", "--workers", "2", "--device", "cpu")
    assert evaluation_command.main(["--logdir", str(run), *words]) == 143
    folder = run / "eval" / "000000007"
    assert len((folder / "episodes.jsonl").read_text().splitlines()) == 1
    assert not (folder / "summary.json").exists()
    kept, last = capsys.readouterr().err.splitlines()[-2:]
    assert kept.startswith(f"1 finished episodes are kept in {folder}/episodes.jsonl")
    assert last == "stopped; the next evaluation begins anew"
    assert multiprocessing.active_children() == []


def test_what_an_environment_raises_when_it_is_closed_loses_nothing(run, evaluate, capsys):
    assert evaluate(FailsToClose(6, None, TOY_INFO.cameras)) == 0
    assert json.loads((run / "eval" / "000000007" / "summary.json").read_text())["episodes"] == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == (
        "the environment failed when it was closed: RuntimeError: the robot is gone; nothing is "
        "lost by that"
    )
    assert "return" in said.out


def test_the_same_in_a_training_and_in_a_worker(toy_dataset, tmp_path, monkeypatch, capfd):
    env = FailsToClose(6, None, TOY_INFO.cameras)
    monkeypatch.setattr("fosp_ext.run.offline.evaluation_env", lambda *_: env)
    words = ("--run.updates", "1", "--run.heldout_every", "0", "--run.eval_every", "1")
    assert train.main(offline(toy_dataset, tmp_path, *words)) == 0
    with ParallelEnvs(FailsToClose, 1, warn=print) as envs:
        envs.reset({0: 1})
    said = capfd.readouterr().err
    assert said.count("the environment failed when it was closed: RuntimeError") == 2
    assert "Traceback" not in said


# Trainings


def with_evaluations(dataset: Path, logdir: Path) -> list[str]:
    words = ("--run.heldout_every", "0", "--run.eval_every", "2", "--run.eval_episodes", "2")
    return offline(dataset, logdir, "--run.updates", "4", *words, "--run.save_every", "100")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_training_gives_up_its_evaluation_and_makes_up_for_it(
    toy_dataset, tmp_path, monkeypatch, number, code
):
    def play_in(env: CountingEnv) -> CountingEnv:
        monkeypatch.setattr("fosp_ext.run.offline.evaluation_env", lambda *_: env)
        return env

    play_in(Stopping(number, at=0))
    assert train.main(with_evaluations(toy_dataset, tmp_path / "straight")) == 0
    argv = with_evaluations(toy_dataset, tmp_path / "stopped")
    for _ in range(2):  # and what makes up for it is stopped again
        env = play_in(Stopping(number, at=9))
        assert train.main(argv) == code
        assert env.taken == 9
        assert (saved(tmp_path / "stopped")["step"], env.taken) == (2, 9)
    play_in(Stopping(number, at=0))
    assert train.main(argv) == 0
    one, other = (saved(tmp_path / name) for name in ("straight", "stopped"))
    assert_same(one["agent"], other["agent"])
    assert one.keys() == other.keys()
    for name in ("straight", "stopped"):
        assert evaluations(tmp_path / name) == [(2, 21.0), (4, 21.0)]


def evaluations(logdir: Path) -> list[tuple[int, float]]:
    """Update and return of each evaluation in the metrics."""
    return [(x["step"], x["eval/score"]) for x in metrics(logdir) if "eval/score" in x]


def test_an_online_run_does_so_too(toy_run, tmp_path, quick_world, monkeypatch):
    words = ("--online.steps", "12", "--online.envs", "1", "--online.ratio", "0.5")
    looks = ("--run.eval_every", "3", "--run.eval_episodes", "1", "--run.save_every", "100")

    def start(name: str, env: CountingEnv) -> int:
        monkeypatch.setattr("fosp_ext.run.online.evaluation_env", lambda *_: env)
        return train.main(online(toy_run, tmp_path / name, *words, *looks))

    assert start("straight", Stopping(0, at=0)) == 0
    env = Stopping(signal.SIGHUP, at=3)
    assert start("stopped", env) == 129
    assert env.taken == 3
    assert saved(tmp_path / "stopped")["step"] == 3
    assert start("stopped", Stopping(0, at=0)) == 0
    one, other = (saved(tmp_path / name) for name in ("straight", "stopped"))
    for key in ("agent", "online", "rng"):
        assert_same(one[key], other[key], key)
    assert evaluations(tmp_path / "straight") == evaluations(tmp_path / "stopped")


# Datasets


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("command", ["merge", "split", "convert"])
def test_a_dataset_command_stops_between_two_episodes(
    place, monkeypatch, capsys, command, number, code
):
    write_dataset(place / "other.h5", (toy_episode(seed=k) for k in range(7, 9)), TOY_INFO)
    module = "convert" if command == "convert" else "rearrange"

    def reading(*words):
        for index, episode in enumerate(read_episodes(*words)):
            yield episode
            if index == 1:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(f"fosp_ext.dataset.{module}.read_episodes", reading)
    words = {
        "merge": ["merge", "out.h5", "data.h5", "other.h5"],
        "split": ["split", "data.h5", "out.h5", "--episodes", "5"],
        "convert": ["convert", "data.h5", "out.h5", "--to", "dsrl"],
    }[command]
    assert dataset_command.main(words) == code
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; nothing was left half-written"
    assert sorted(path.name for path in place.iterdir()) == ["data.h5", "other.h5"]


def test_what_a_killed_merge_left_is_removed_by_the_next(place):
    write_dataset(place / "other.h5", [toy_episode(seed=7)], TOY_INFO)
    (place / "out.h5.4711.part").write_text("half of it")
    assert dataset_command.main(["merge", "out.h5", "data.h5", "other.h5"]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["data.h5", "other.h5", "out.h5"]


def record(path: Path, number: int, env: str = "Endless") -> subprocess.Popen:
    """A recording of endless episodes; one of its workers sends it a signal in the third step."""
    words = ("--configs", "collect", "debug", "--task", f"tests.support.stopping:{env}")
    data = ("--dataset.mix", "random=1", "--dataset.workers", "2", "--dataset.path", str(path))
    return subprocess.Popen(
        [sys.executable, "train.py", *words, *data],
        cwd=ROOT,
        env={**os.environ, SIGNAL: f"{int(number)}:{path}.sent"},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_recording_stops_within_a_step(tmp_path, number, code):
    """Its episodes would never end."""
    process = record(tmp_path / "data.h5", number)
    _, said = process.communicate(timeout=600)
    assert (process.returncode, said) == (code, "stopped; the same command continues\n")
    files = [str(x.relative_to(tmp_path)) for x in tmp_path.rglob("*") if x.is_file()]
    assert sorted(files) == ["data.h5.parts/settings.json", "data.h5.sent"]


def test_a_second_ctrl_c_ends_a_recording_at_once(tmp_path):
    """The first one waits for a step that does not end."""
    path = tmp_path / "data.h5"
    process = record(path, signal.SIGINT, "Stuck")
    while not path.with_name("data.h5.sent").exists():
        assert process.poll() is None
        time.sleep(0.05)
    signal_until_end(process)
    said = process.stderr.read()  # until its helpers have ended, too
    assert (process.returncode, said) == (
        130, "stopped at once; what was saved before is whole\n"
    )  # fmt: skip


def test_a_lost_terminal_saves(toy_dataset, tmp_path):
    """As when an ssh session breaks: SIGHUP, and nobody to write to."""
    ours, theirs = pty.openpty()
    latest = tmp_path / "checkpoints" / "latest"
    words = ("--run.updates", "100000", "--run.heldout_every", "0", "--run.save_every", "2")
    process = subprocess.Popen(
        [sys.executable, "train.py", *offline(toy_dataset, tmp_path, *words)],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    while not latest.exists():
        assert process.poll() is None
        select.select([ours], [], [], 0.05)[0] and os.read(ours, 2**16)
    os.close(ours)
    assert process.wait(timeout=600) == 129
    lines = metrics(tmp_path)
    assert saved(tmp_path)["step"] == lines[-1]["step"]


def test_leftovers_of_a_killed_training_are_removed_by_the_next_start(
    toy_dataset, toy_run, tmp_path
):
    """In the folders that a training writes; an evaluation of the run may be at work."""
    logdir = Path(shutil.copytree(toy_run, tmp_path / "run"))
    parts = ("config.yaml.5.part", "checkpoints/step_000000009.pt.5.part", "open_loop/x.gif.5.part")
    foreign = ("eval/000000006/videos/ep_000.mp4.5.part", "notes/a.5.part")
    for name in parts + foreign:
        (logdir / name).parent.mkdir(parents=True, exist_ok=True)
        (logdir / name).write_text("half of it")
    assert train.main(offline(toy_dataset, logdir)) == 0
    assert not [name for name in parts if (logdir / name).exists()]
    assert all((logdir / name).exists() for name in foreign)
