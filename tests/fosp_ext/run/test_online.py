"""Fine-tuning in the real simulator: what a run leaves behind, and going on after every stop."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from dreamer.config import to_dict
from dreamer.data.hdf5 import validate_dataset
from dreamer.training.collector import POLICY, Collector
from fosp_ext.config import load_config
from tests.support.commands import (
    after_update,
    assert_same,
    metrics,
    online,
    replay,
    saved,
    snapshot,
    start,
)

pytestmark = pytest.mark.sim

STEPS, RATIO, UPDATES = 230, 0.05, 12  # agent steps, updates per step, 1 + floor(230 * 0.05)
LENGTH = 50  # agent steps of an episode: 1000 simulator steps, 20 at a time
WORDS = (
    *("--env.action_repeat", "20", "--env.variant", "clustered"),
    *("--online.steps", str(STEPS), "--online.ratio", str(RATIO)),
    *("--run.save_every", "4", "--run.eval_every", "8", "--run.eval_episodes", "1"),
)
KILLED = """
import os, signal, sys, pytest, train
from tests.support.commands import after_update
after_update(pytest.MonkeyPatch(), 8, lambda _: os.kill(os.getpid(), signal.SIGKILL))
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def straight(brief_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two environments, without an interruption. Copy it before changing it."""
    logdir = tmp_path_factory.mktemp("online") / "straight"
    assert train.main(online(brief_run, logdir, *WORDS)) == 0
    return logdir


def log(logdir: Path) -> list[dict]:
    """The lines of episodes.jsonl."""
    return [json.loads(line) for line in (logdir / "episodes.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal in everything but timings, places and starts."""
    before, after = saved(one), saved(other)
    for key in ("agent", "rng", "online", "info", "dataset", "step"):
        assert_same(before[key], after[key], key)
    assert metrics(one) == metrics(other)
    assert (one / "episodes.jsonl").read_text() == (other / "episodes.jsonl").read_text()
    kept, again = replay(one), replay(other)
    assert kept.keys() == again.keys()
    for name, episode in kept.items():
        for field, value in vars(episode).items():
            np.testing.assert_equal(vars(again[name])[field], value, f"{name}: {field}")


# What a run leaves behind


@pytest.mark.invariant(37)
def test_updates_keep_pace_with_the_steps(straight):
    """1 + floor(ratio * steps), at the end and at every update on the way."""
    state = saved(straight)
    assert (state["step"], state["online"]["collector"]["agent_steps"]) == (UPDATES, STEPS)
    learned = [line for line in metrics(straight) if "train/wm/loss" in line]
    assert [line["step"] for line in learned] == list(range(1, UPDATES + 1))
    # two environments: update k comes at the first even number of steps at which it is due
    assert [line["step/env"] for line in learned] == [20.0 * k for k in range(UPDATES)]


def test_the_training_cost_is_the_sum_of_all_episodes(straight):
    lines, episodes = log(straight), list(replay(straight).values())
    rows = [line for line in metrics(straight) if "training_cost/total" in line]
    assert len(lines) == len(rows) == len(episodes) == 4
    assert [line["agent_steps"] for line in lines] == [100, 100, 200, 200]
    costs = [line["cost"] for line in lines]
    assert sum(costs) > 0, "a sum of zeros would prove nothing"
    assert costs == [row["episode/cost"] for row in rows] == [x.cost.sum() for x in episodes]
    assert [row["training_cost/total"] for row in rows] == np.cumsum(costs).tolist()
    assert [row["step/env"] for row in rows] == [line["agent_steps"] for line in lines]
    assert [row["step"] for row in rows] == [line["updates"] for line in lines] == [5, 5, 10, 10]


def test_the_kept_episodes_are_datasets(straight):
    names = [f"episode_{k:06d}_env{k % 2}.h5" for k in range(4)]
    episodes = replay(straight)
    assert list(episodes) == names
    for line, (name, episode) in zip(log(straight), episodes.items(), strict=True):
        info = validate_dataset(straight / "replay" / name)
        assert (info.task, info.environment["variant"], info.action_repeat) == (
            *("SafetyPointGoal1-v0", "clustered", 20),
        )
        assert (episode.length, episode.policy) == (LENGTH, POLICY)
        assert (episode.seed, episode.length) == (line["seed"], line["length"])
        assert episode.score == pytest.approx(line["score"])
        assert "".join("01"[int(cost >= 1)] for cost in episode.cost) == line["violation"]
        assert set(line["online"]) <= {"0", "1"}
        assert len(line["online"]) == len(line["violation_probability"]) == LENGTH


def test_the_frozen_policy_stays_and_the_learning_one_moves(straight, brief_run):
    source, agent = saved(brief_run)["agent"], saved(straight)["agent"]
    before = part(source, "policy.actor.")
    assert before
    assert_same(part(agent, "policy.offline."), before)
    after = part(agent, "policy.learner.actor.")
    assert all(not torch.equal(before[name], after[name]) for name in before)


def part(state: dict, prefix: str) -> dict:
    """The entries of a state below `prefix`, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def test_evaluations_of_the_set_and_of_each_policy(straight):
    rows = [line for line in metrics(straight) if "eval/score" in line]
    assert [row["step"] for row in rows] == [8, UPDATES]
    for row in rows:
        for who in ("eval", "eval/online_only", "eval/offline_only"):
            assert row[f"{who}/length"] == LENGTH
            assert row[f"{who}/cost"] >= 0
    old = [row["eval/offline_only/score"] for row in rows]
    new = [row["eval/online_only/score"] for row in rows]
    assert len({*old, *new}) == 4, "the world model moves under both, the policy under one"


@pytest.mark.invariant(38)
def test_a_run_says_nothing_of_recorded_terms(straight):
    """Only the reachability estimate learns from recorded rows."""
    tags = {tag for line in metrics(straight) for tag in line}
    assert {tag for tag in tags if "/real_" in tag} == {"train/reach/real_loss"}
    assert not any("in_sample" in tag for tag in tags)


def test_the_folder_says_what_made_it(straight, brief_run):
    config = load_config(straight / "config.yaml")
    assert config.init_from == str(brief_run)
    assert config.dataset.path == load_config(brief_run / "config.yaml").dataset.path
    state = saved(straight)
    assert state["config"] == to_dict(config)
    assert state["info"]["environment"]["variant"] == "clustered"
    for file in (straight / "checkpoints").glob("*.pt"):
        assert torch.load(file, weights_only=True)["step"] in (8, UPDATES)
    (started,) = json.loads((straight / "meta.json").read_text())
    assert started["versions"]["torch"] == torch.__version__
    tags = EventAccumulator(str(straight)).Reload().Tags()["scalars"]
    written = {tag for line in metrics(straight) for tag in line} - {"step"}
    assert set(tags) >= written
    assert written >= {
        "train/wm/loss",
        "episode/score",
        "training_cost/total",
        "step/env",
        "eval/cost",
    }


# Going on


@pytest.mark.invariant(34)
@pytest.mark.invariant(37)
def test_stopped_twice_equals_straight(straight, brief_run, tmp_path, monkeypatch, capsys):
    """SIGTERM in the middle of the first episodes, SIGINT of the second ones."""
    argv = online(brief_run, tmp_path, *WORDS)
    for number, code, updates, steps in (
        (signal.SIGTERM, 143, 3, 40),
        (signal.SIGINT, 130, 7, 120),
    ):
        before = signal.getsignal(number)
        done = 0 if updates == 3 else 3
        with monkeypatch.context() as patch:
            after_update(patch, updates - done, lambda _, n=number: os.kill(os.getpid(), n))
            assert train.main(argv) == code
        assert signal.getsignal(number) == before
        assert capsys.readouterr().err.endswith("stopped; the same command continues\n")
        state = saved(tmp_path)
        assert (state["step"], state["online"]["collector"]["agent_steps"]) == (updates, steps)
        assert all(one is not None for one in state["online"]["collector"]["running"])
    assert len(log(tmp_path)) == 2
    assert train.main(argv) == 0
    said = capsys.readouterr().err
    assert "has 120 agent steps and 7 updates behind it; 110 steps are left" in said
    assert_same_run(straight, tmp_path)
    assert not multiprocessing.active_children()


@pytest.mark.invariant(34)
def test_a_killed_run_goes_on_without_its_offline_run(straight, brief_run, tmp_path):
    """Killed after the first episodes, back to a checkpoint before them; its source is gone.

    Update 5 came at 80 agent steps, the episodes ended at 100, before update 6.
    """
    source = shutil.copytree(brief_run, tmp_path / "offline")
    logdir = tmp_path / "run"
    argv = online(source, logdir, *WORDS, "--run.save_every", "5")
    process = start(argv, KILLED)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, output
    assert saved(logdir)["step"] == 5
    assert [(line["updates"], line["agent_steps"]) for line in log(logdir)] == [(5, 100)] * 2
    shutil.rmtree(source)
    for name, torn in (("episodes", '{"episode": 2, "se'), ("metrics", '{"step": 8, "tra')):
        with (logdir / f"{name}.jsonl").open("a") as file:
            file.write(torn)
    (logdir / "replay" / "episode_000001_env1.h5").write_bytes(b"half")
    (logdir / "replay" / "episode_000002_env0.h5.1.part").write_bytes(b"half")
    assert train.main(argv) == 0
    assert_same_run(straight, logdir)


def test_a_finished_run_says_so_and_more_steps_go_on(straight, brief_run, tmp_path, capsys):
    """Even without its log, whose sums then begin anew: kept episodes are not written over."""
    logdir = Path(shutil.copytree(straight, tmp_path / "run"))
    kept = ("checkpoints", "replay")
    before = [snapshot(logdir / name) for name in kept], metrics(logdir), log(logdir)
    argv = online(brief_run, logdir, *WORDS)
    assert train.main(argv) == 0
    assert "the run is finished, raise online.steps" in capsys.readouterr().err
    assert ([snapshot(logdir / name) for name in kept], metrics(logdir), log(logdir)) == before
    (logdir / "episodes.jsonl").unlink()
    assert train.main([*argv, "--online.steps", "300"]) == 0
    state = saved(logdir)
    assert (state["step"], state["online"]["collector"]["agent_steps"]) == (16, 300)
    assert [line["agent_steps"] for line in log(logdir)] == [300, 300]
    files = snapshot(logdir / "replay")
    assert len(files) == 6
    assert before[0][1].items() <= files.items()


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [
        ("online.ratio", "0.1", "0.05"),
        ("online.envs", "1", "2"),
        ("online.offline_frac", "0.5", "'pool'"),
        ("policy_set.kappa", "0.2", "0.1"),
        ("env.variant", "none", "'clustered'"),
        ("seed", "1", "0"),
        ("run.batch_size", "2", "4"),
    ],
)
def test_other_settings_are_refused(straight, brief_run, capsys, key, value, before):
    files = snapshot(straight)
    assert train.main(online(brief_run, straight, *WORDS, f"--{key}", value)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {straight} holds a run with {key} {before}, this command says")
    assert snapshot(straight) == files


# Other ways


def test_an_environment_that_dies_costs_one_episode(brief_run, tmp_path, monkeypatch, capfd):
    def kill_one(_: object) -> None:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    words = ("--run.eval_every", "0", "--online.envs", "2")
    after_update(monkeypatch, 4, kill_one)  # after 60 steps, 30 in each environment
    assert train.main(online(brief_run, tmp_path, *WORDS, *words)) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "failed" in line]
    assert len(said) == 1
    dead = int(re.match(r"environment (\d) failed: its process was killed", said[0])[1])
    lost = int(np.random.SeedSequence([0, dead, 0]).generate_state(1)[0] >> 1)
    lines, episodes = log(tmp_path), replay(tmp_path)
    assert lost not in {line["seed"] for line in lines}
    assert lost not in {episode.seed for episode in episodes.values()}
    ended = [(line["env"], line["agent_steps"]) for line in lines]
    # the lost action is not counted; the new episode began one round later
    assert ended == [(1 - dead, 99), (dead, 161), (1 - dead, 199)]
    state = saved(tmp_path)
    steps = state["online"]["collector"]["agent_steps"]
    assert steps == STEPS + 1
    assert state["step"] == UPDATES


def test_another_task_if_that_is_meant(brief_run, tmp_path):
    """From a checkpoint file. The last metrics are written, though its update has its line."""
    task = "SafetyPointGoal2-v0"
    checkpoint = brief_run / "checkpoints" / "step_000000001.pt"
    words = ("--task", task, "--allow-task-mismatch", "--env.variant", "none")
    short = ("--online.steps", "60", "--online.envs", "1", "--online.ratio", "0")
    looks = ("--run.eval_every", "0", "--run.heldout_every", "5")
    assert train.main(online(checkpoint, tmp_path, *WORDS, *words, *short, *looks)) == 0
    assert saved(tmp_path)["info"]["task"] == task
    assert validate_dataset(tmp_path / "replay" / "episode_000000_env0.h5").task == task
    assert "heldout/cost_recall" in metrics(tmp_path)[-1]
    assert len(list((tmp_path / "open_loop").glob("openl_*.gif"))) == 2


def test_stopped_while_acting_and_by_nan(toy_run, tmp_path, quick_world, monkeypatch, capsys):
    """Going on from each last checkpoint equals a run in which that never happened."""
    words = ("--online.steps", "20", "--online.ratio", "0.5", "--online.offline_frac", "0.5")
    words += ("--run.save_every", "4", "--run.log_every", "2")
    straight, broken, pool = (tmp_path / name for name in ("straight", "broken", "pool"))
    assert train.main(online(toy_run, straight, *words)) == 0
    assert train.main(online(toy_run, pool, *words, "--online.offline_frac", "pool")) == 0
    argv = online(toy_run, broken, *words, "--run.log_every", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "step", terminated_at(6, Collector.step))
        assert train.main(argv) == 143
    state = saved(broken)
    assert (state["step"], state["online"]["collector"]["agent_steps"]) == (3, 6), "update 4 is due"
    with monkeypatch.context() as patch:
        broke = {"wm/loss": torch.tensor(torch.nan)}
        after_update(patch, 5, lambda result: result.update(broke))  # number 8
        assert train.main(argv) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("train/wm/loss; the last checkpoint is intact")
    assert saved(broken)["step"] == 4
    assert train.main(argv) == 0
    assert_same(saved(straight)["agent"], saved(broken)["agent"])
    assert_same(saved(straight)["online"], saved(broken)["online"])
    same = [one == other for one, other in zip(metrics(straight), metrics(pool), strict=True)]
    assert same == [True] * 6 + [False] * 2, "the share counts once there are own episodes"


def terminated_at(steps: int, play: Callable[[Collector], list]) -> Callable[[Collector], list]:
    """The collector's `step`, with a SIGTERM while it takes the agent step of this number."""

    def step(collector: Collector) -> list:
        ended = play(collector)
        if collector.agent_steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return ended

    return step
