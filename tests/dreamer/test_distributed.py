"""Two processes that train one agent on the CPU, in one gloo process group."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from dreamer import distributed
from dreamer.agent import Agent
from dreamer.distributions import straight_through
from dreamer.envs.counting import CountingEnv
from dreamer.errors import NonFiniteError, UserError
from dreamer.locks import LOCK, locked
from dreamer.moments import Moments
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.evaluator import Evaluator
from dreamer.training.logger import Logger
from dreamer.training.loops import Budget, Every, Hooks, StopRequest, online_loop
from dreamer.training.run_folder import claimed
from dreamer.types import Batch
from fosp_ext.envs import gl
from fosp_ext.lagrange import AugmentedLagrangian
from fosp_ext.run.online import choose_drawing
from tests.support.agents import INFO, make_agent, make_batch
from tests.support.commands import (
    NO_LOG,
    NUMBERS,
    ROOT,
    assert_same,
    metrics,
    offline,
    online,
    replay,
    saved,
)

ONLINE_PROGRAM = ("-m", "tests.support.toy_online")

# Two processes of this test


def in_two_processes(work: Callable[[Path], dict], folder: Path) -> list[dict]:
    """What `work(folder)` returns in each of two processes of one group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=enter, args=(work, k, port, folder)) for k in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{k}.pt") for k in range(2)]


def enter(work: Callable[[Path], dict], rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with distributed.process_group():
        torch.save(work(folder), folder / f"{rank}.pt")
    threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
    # One that outlives the group can abort the interpreter at its end.
    assert not [name for name in threads if "gloo" in name]


def part(batch: Batch, windows: slice) -> Batch:
    obs = {camera: images[windows] for camera, images in batch.obs.items()}
    return Batch(obs, *(value[windows] for value in batch[1:]))


def likeliest(probs: Tensor, _: Tensor) -> Tensor:
    """In place of a sample: without noise, halves of a batch add up to the whole."""
    return straight_through(probs.argmax(-1), probs)


def world_model_gradient(batch: Batch) -> Tensor:
    """The gradient of the first update on the batch, all in one vector."""
    agent = make_agent(world_model__optimizer__clip="1e9", precision="float32")
    optimizer, seen = agent.world_model.optimizer, []

    def note() -> None:
        seen.extend(p.grad.flatten() for p in agent.world_model.parameters() if p.grad is not None)

    with (
        patch.object(optimizer._adam, "step", note),
        patch("dreamer.rssm.sample_one_hot", likeliest),
    ):
        agent.world_model.update(batch)
    return torch.cat(seen)


def learned(rank: int) -> Agent:
    """An agent after two updates with own batches and own random numbers."""
    agent = make_agent()
    torch.manual_seed(distributed.own_seed(3))
    for step in range(2):
        agent.update(make_batch(seed=10 * rank + step))
    return agent


def multiplier_after(constraint: Tensor) -> Tensor:
    lagrangian = AugmentedLagrangian(multiplier=0.5, penalty=0.25)
    lagrangian.step_(constraint)
    return lagrangian.multiplier


def range_after(signal: Tensor) -> Tensor:
    moments = Moments()
    moments.update_(signal)
    return moments.range


def signals() -> Tensor:
    """Two batches of what a running scale measures, (2, N, H)."""
    scale = torch.tensor([1.0, 30.0]).reshape(2, 1, 1)
    return torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0)) * scale


def everything(folder: Path) -> dict:
    """One visit to each exchange between processes; what comes of it."""
    rank = distributed.rank()
    constraint = torch.tensor(3.0 + rank, requires_grad=True)
    joint = distributed.joint_mean(constraint)
    joint.backward()
    return {
        "gradient": world_model_gradient(part(make_batch(), slice(2 * rank, 2 * rank + 2))),
        "agent": learned(rank).state_dict(),
        "range": range_after(signals()[rank]),
        "joint": (joint.item(), constraint.grad.item()),
        "multiplier": multiplier_after(distributed.joint_mean(torch.tensor(3.0 + rank))),
        "seed": distributed.own_seed(7),
        "average": distributed.average({"both": float(rank), **({} if rank else {"one": 5.0})}),
        "broken": broken_metric(folder / f"log{rank}", rank),
        "stopped": stopped_by_signal(rank),
        "ended": ended_by_one(rank),
        "differs": differing_files(rank),
        "claimed": claimed_twice(folder / "run", rank),
        "acted": acted(rank),
        "evaluated": evaluated(folder / f"evaluated{rank}"),
    }


def broken_metric(folder: Path, rank: int) -> str:
    """A number that only the second process finds broken."""
    logger = Logger(folder, quiet=True)
    logger.add({"loss": torch.tensor([1.0, torch.nan][rank])})
    try:
        logger.check_finite()
    except NonFiniteError as error:
        return str(error)
    finally:
        logger.close()
    return ""


def stopped_by_signal(rank: int) -> int:
    with StopRequest() as stop:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return stop.agreed()


def ended_by_one(rank: int) -> str:
    """An error of the second process alone."""
    try:
        with distributed.collective_errors():
            if rank == 1:
                raise UserError("no such file")
    except (UserError, SystemExit) as end:
        return repr(end)
    return ""


def differing_files(rank: int) -> str:
    try:
        distributed.require_same(rank, "not the same")
    except (UserError, SystemExit) as end:
        return repr(end)
    return ""


def claimed_twice(folder: Path, rank: int) -> list[str]:
    """A run folder that another process has, and then has no more."""
    ends = []
    with locked(folder / LOCK, "it") if rank == 0 else nullcontext():
        distributed.largest(0)
        try:
            with claimed(folder):
                ends.append("claimed")
        except (UserError, SystemExit) as end:
            ends.append(type(end).__name__)
    with claimed(folder):
        distributed.largest(0)
        ends.append(str((folder / LOCK).exists()))
        distributed.largest(0)
    return ends


class Rounds:
    """Stand-in for a collector of two environments; logs the events of the second process."""

    def __init__(self, rank: int) -> None:
        self.agent_steps, self._rank, self._round = 0, rank, 0

    def step(self) -> list[str]:
        self._round += 1
        now = (self._rank, self._round)
        self.agent_steps += 1 if now == (1, 2) else 2  # one environment died
        if now == (1, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return ["episode"] if now == (1, 3) else []


def acted(rank: int) -> dict:
    """An online phase in which only the second process ends an episode, and is asked to stop."""
    told, checkpoints = [], []
    agent = SimpleNamespace(update=lambda _: {})
    hooks = Hooks(None, None, checkpoints.append, lambda _: None, lambda _: nullcontext())
    every, budget = Every(log=1, heldout=0, evaluate=0, save=0), Budget(100, 0.25)
    code = online_loop(
        agent,
        Rounds(rank),
        NUMBERS,
        torch.device("cpu"),
        lambda *now: told.append(now),
        0,
        budget,
        every,
        NO_LOG,
        hooks,
    )
    return {"code": code, "told": told, "checkpoints": checkpoints}


class Seeds(CountingEnv):
    """Notes the worlds it was asked for."""

    def __init__(self) -> None:
        super().__init__(5, None, INFO.cameras, INFO.size, INFO.action_size)
        self.seeds: list[int] = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed)


def evaluated(folder: Path) -> dict:
    """Three episodes of an evaluation: who plays which, and who logs what."""
    env, logger = Seeds(), Logger(folder, quiet=True)
    evaluator = Evaluator(folder, SimpleNamespace(eval_episodes=3), torch.device("cpu"), env)
    evaluator.evaluate(make_agent(), logger)
    logged = logger._averages.take()
    logger.close()
    return {"seeds": env.seeds, "tags": sorted(logged), "score": logged.get("eval/score")}


def test_two_processes_learn_as_one(tmp_path):
    first, second = in_two_processes(everything, tmp_path)
    whole = world_model_gradient(make_batch())
    close = {"rtol": 1e-4, "atol": 1e-6 * whole.abs().max().item()}
    torch.testing.assert_close(first["gradient"], whole, **close)
    assert torch.equal(first["gradient"], second["gradient"])
    half = world_model_gradient(part(make_batch(), slice(2)))
    assert not torch.allclose(half, whole, **close)

    assert_same(first["agent"], second["agent"])
    assert torch.equal(first["range"], second["range"])
    assert torch.equal(first["range"], range_after(signals().flatten(0, 1)))
    assert first["joint"] == second["joint"] == (3.5, 1.0)
    assert first["multiplier"] == second["multiplier"] == multiplier_after(torch.tensor(3.5))

    assert first["seed"] == 7
    assert second["seed"] not in (7, 8)
    assert first["average"] == second["average"] == {"both": 0.5, "one": 5.0}
    assert first["broken"] == second["broken"] == "not finite: loss"
    assert (tmp_path / "log0").exists()
    assert not (tmp_path / "log1").exists()
    assert first["stopped"] == second["stopped"] == 128 + signal.SIGTERM
    assert first["claimed"] == ["UserError", "True"]
    assert second["claimed"] == ["SystemExit", "True"]
    ends = [(one["ended"], one["differs"]) for one in (first, second)]
    assert ends[0] == ("UserError('no such file')", "UserError('not the same')")
    assert ends[1] == ("SystemExit(2)", "SystemExit(2)")

    assert (first["evaluated"]["seeds"], second["evaluated"]["seeds"]) == ([10000, 10002], [10001])
    assert first["evaluated"]["score"] == 15
    assert second["evaluated"]["tags"] == ["time/evaluate_s"]

    # after 4, 7 and 11 agent steps; stopped at 15, where update 4 is due
    for one, finished in ((first, []), (second, ["episode"])):
        assert one["acted"] == {"code": 143, "told": [(finished, 2, 11)], "checkpoints": [3]}


# The command


def torchrun(argv: list[str], program: tuple[str, ...] = ("train.py",), **env) -> subprocess.Popen:
    """train.py, or another program, in two processes."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return subprocess.Popen(
        [sys.executable, *launcher, *program, *argv, "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_a_process_of(launcher: subprocess.Popen) -> None:
    """The last one that it started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def as_it_was(run: Path, step: int, copy: Path) -> Path:
    """A copy of the run folder with nothing newer than its checkpoint at `step`."""
    shutil.copytree(run, copy)
    for file in (copy / "checkpoints").glob("step_*.pt"):
        if file.name > f"step_{step:09d}.pt":
            file.unlink()
    (copy / "checkpoints" / "latest").unlink()
    return copy


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux does")
def test_a_killed_training_of_two_processes_goes_on(toy_dataset, tmp_path, capsys):
    """From its first checkpoint it comes again to where it was killed."""
    logdir, latest = tmp_path / "run", tmp_path / "run" / "checkpoints" / "latest"
    words = ("--run.heldout_every", "0", "--run.save_every", "1", "--run.keep_checkpoints", "9999")
    running = torchrun(offline(toy_dataset, logdir, *words, "--run.updates", "100000"))
    try:
        while not latest.exists() or latest.read_text() < "step_000000003.pt":
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.02)
        kill_a_process_of(running)
        running.communicate(timeout=300)
    finally:
        running.terminate()
    assert running.returncode == 1
    killed = saved(logdir)
    assert killed["step"] >= 3

    again = as_it_was(logdir, 1, tmp_path / "again")
    words = (*words, "--run.updates", str(killed["step"]))
    process = torchrun(offline(toy_dataset, again, *words))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count(f"{again} has 1 updates behind it") == 1
    assert output.count(f"run: {again}") == 1
    assert_same(saved(again)["agent"], killed["agent"])
    assert_same(saved(again)["rng"], killed["rng"])
    assert not torch.equal(killed["rng"][0]["torch"], killed["rng"][1]["torch"])
    assert metrics(again) == [line for line in metrics(logdir) if line["step"] <= killed["step"]]
    assert json.loads((again / "meta.json").read_text())[-1]["processes"] == 2

    assert train.main(offline(toy_dataset, again, *words)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {again} holds a run with processes 2, this command starts 1;")


def play(argv: list[str], signalled: str) -> str:
    """An online run of two processes until the signal ends it; returns what it said."""
    process = torchrun(argv, ONLINE_PROGRAM, SIGNAL=signalled, MUJOCO_GL="osmesa")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    return output


def lines(run: Path) -> list[dict]:
    """Of episodes.jsonl."""
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


def test_a_killed_online_run_of_two_processes_goes_on(toy_run, tmp_path, capsys):
    """From the checkpoint before the last it comes again to where it was killed, and beyond.

    It was killed after update 15; the second process is then asked to stop after update 18.
    """
    logdir, words = tmp_path / "run", ("--online.steps", "200", "--online.ratio", "0.2")
    words += ("--run.save_every", "4", "--run.eval_every", "6", "--run.keep_checkpoints", "9999")
    play(online(toy_run, logdir, *words), "1:15:SIGKILL")
    killed = saved(logdir)
    assert killed["step"] == 12

    again = as_it_was(logdir, 8, tmp_path / "again")
    (again / "replay" / "process_1" / "episode_000099_env2.h5").write_bytes(b"of later")
    output = play(online(toy_run, again, *words), "1:10:SIGTERM")
    assert output.count(f"{again} has 36 agent steps and 8 updates behind it; 164 steps are") == 1
    assert output.count("stopped; the same command continues") == 1
    assert saved(again)["step"] == 18
    repeated = Checkpoint.load(again / "checkpoints" / "step_000000012.pt")
    for key in ("agent", "rng", "online", "info", "dataset"):
        assert_same(repeated[key], killed[key], key)
    assert_continues(again, logdir)
    assert_own_episodes(again)
    weights = [torch.load(again / f"weights_18_{rank}.pt") for rank in range(2)]
    assert_same(weights[0], weights[1])
    assert_same(weights[0], saved(again)["agent"])

    assert train.main(online(toy_run, again, *words)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {again} holds a run with processes 2, this command starts 1;")


def assert_continues(run: Path, killed: Path) -> None:
    """What the killed run wrote, the other one has written too, and more."""
    assert (run / "episodes.jsonl").read_text().startswith((killed / "episodes.jsonl").read_text())
    assert metrics(run)[: len(metrics(killed))] == metrics(killed)
    assert len(metrics(run)) > len(metrics(killed))
    kept, before = replay(run), replay(killed)
    assert kept.keys() > before.keys()
    for name, episode in before.items():
        for field, value in vars(episode).items():
            np.testing.assert_equal(vars(kept[name])[field], value, f"{name}: {field}")


def assert_own_episodes(run: Path) -> None:
    """Two environments in each of two processes; one log, and updates that keep pace with all."""
    kept, told = replay(run), lines(run)
    envs = {name: int(re.search(r"_env(\d)\.h5$", name)[1]) for name in kept}
    assert {envs[name] for name in kept if name.startswith("episode_000")} == {0, 1}
    assert {envs[name] for name in kept if name.startswith("process_1/episode_000")} == {2, 3}
    both = sorted((envs[name], episode.seed) for name, episode in kept.items())
    assert sorted((line["env"], line["seed"]) for line in told) == both
    assert len({episode.seed for episode in kept.values()}) == len(kept) > 8
    assert len({episode.action[:5].tobytes() for episode in kept.values()}) == len(kept)
    assert [line["episode"] for line in told] == list(range(len(told)))
    rows = [row for row in metrics(run) if "training_cost/total" in row]
    assert rows[-1]["training_cost/total"] == sum(
        float(episode.cost.sum()) for episode in kept.values()
    )
    budget = Budget(200, 0.2)
    learned = {row["step"]: int(row["step/env"]) for row in metrics(run) if "train/wm/loss" in row}
    assert list(learned) == list(range(1, 19))
    rounds = [next(s for s in range(0, 200, 4) if budget.updates(s) >= k) for k in learned]
    assert list(learned.values()) == rounds
    evaluated = [row["step"] for row in metrics(run) if "eval/score" in row]
    assert evaluated == [6, 12]  # that of 18 was given up for the signal


def test_recording_takes_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    argv = ["--configs", "collect", "debug"]
    assert train.main(argv) == 2
    assert "mode collect runs in one process" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert train.main(argv) == 2
    assert capsys.readouterr().err == ""  # the first process has said it


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda:0", "cannot share cuda:0"), ("cuda", "a machine with 1 GPUs; start 1")],
)
def test_each_process_has_its_own_gpu(monkeypatch, name, message):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match=message):
        distributed.own_device(torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert distributed.own_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("backend", "broken", "chosen"),
    [("egl", None, "1"), ("egl", 1, None), ("osmesa", None, None)],
)
def test_each_process_draws_on_its_own_gpu(monkeypatch, capsys, backend, broken, chosen):
    """Where EGL can draw there, and the user has not chosen another; never in a run alone."""
    monkeypatch.setattr(gl, "probe", lambda _, gpu: "no such device" if gpu == broken else "")
    monkeypatch.setenv(gl.VARIABLE, backend)
    monkeypatch.delenv(gl.DEVICE, raising=False)
    gpu = torch.device("cuda", 1)
    choose_drawing(gpu)
    assert gl.DEVICE not in os.environ
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    choose_drawing(torch.device("cpu"))
    assert gl.DEVICE not in os.environ
    choose_drawing(gpu)
    said = "process 1: EGL does not draw on GPU 1 (no such device)\n" if broken else ""
    assert capsys.readouterr().err == said
    assert os.environ.pop(gl.DEVICE, None) == chosen
    monkeypatch.setenv(gl.DEVICE, "5")
    choose_drawing(gpu)
    assert os.environ[gl.DEVICE] == "5"
