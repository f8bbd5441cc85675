"""`python -m benchmarks.learning`: methods, plan, steps, and the whole of it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as evaluation_command
import train
from benchmarks import learning, learning_stages
from benchmarks.learning_plan import (
    Method,
    Plan,
    Speed,
    Wishes,
    describe,
    evaluations,
    load_plan,
    make_plan,
    read_methods,
    save_plan,
)
from benchmarks.learning_stages import Stage, all_stages, past_stages, run_stages
from dreamer.envs.counting import CountingEnv
from dreamer.errors import UserError
from fosp_ext.report import __main__ as report_command

NAMES = ("fosp", "bc", "fosp-no_in_sample")
SPEED = Speed(
    start=8.0,
    first=dict.fromkeys(NAMES, 1.0),
    update={"fosp": 1.2, "bc": 0.6, "fosp-no_in_sample": 1.1},
    episode=2.5,
    length=250,
    cores=2,
)
WISHES = Wishes(
    task="SafetyPointGoal1-v0",
    variant="clustered",
    size="cpu",
    dataset="data.h5",
    recorded=True,
    budget_minutes=60,
    episodes=None,
    eval_episodes=None,
    updates=None,
    online_steps=None,
)


def methods(text: str, size: str = "cpu") -> list[Method]:
    return read_methods(text, size)


def plan(text: str = "fosp,bc", seeds: int = 1, speed: Speed = SPEED, **wishes: object) -> Plan:
    return make_plan(dataclasses.replace(WISHES, **wishes), methods(text), seeds, speed)


# Methods


def test_parts_that_only_the_online_phase_reads_share_the_offline_run():
    found = methods("fosp,fosp-no_policy_set,fosp-no_reachability-no_policy_set, bc,fosp")
    assert [(m.name, m.offline, m.expanded) for m in found] == [
        ("fosp", "fosp", True),
        ("fosp-no_policy_set", "fosp", False),
        ("fosp-no_reachability-no_policy_set", "fosp-no_reachability", False),
        ("bc", "bc", False),
    ]
    assert {(m.envs, m.ratio) for m in found} == {(2, 0.1)}  # of the cpu preset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fops", "no method 'fops'; did you mean 'fosp'"),
        ("fosp,", "no method ''"),
        ("fosp-no_polcy_set", "no part 'no_polcy_set'; did you mean 'no_policy_set'"),
        ("bc-no_reachability", "only fosp has parts"),
    ],
)
def test_unknown_methods(text, message):
    with pytest.raises(UserError, match=message):
        methods(text)


# Planning


@pytest.mark.parametrize("budget", [10, 30, 60, 600])
@pytest.mark.parametrize(
    ("text", "seeds"), [("bc", 1), ("fosp,bc", 1), ("fosp,fosp-no_policy_set", 2)]
)
def test_the_estimate_fits_the_budget_and_uses_it(budget, text, seeds):
    found = plan(text, seeds, budget_minutes=budget)
    spent = sum(found.estimate.values())
    assert found.online_steps % 500 == 0  # whole episodes in both environments
    assert ("longer than --budget-minutes" in describe(found, methods(text), seeds)) == (
        spent > 60 * budget
    )
    if spent > 60 * budget:
        assert (budget, found.updates, found.online_steps) == (10, 20, 500)  # the least
    else:
        assert spent > 0.75 * 60 * budget
        assert found.updates > 20


def test_more_time_and_fewer_runs_give_more_learning():
    usual = plan(seeds=2)
    assert plan(seeds=1).updates > usual.updates
    assert plan(seeds=2, budget_minutes=120).updates > usual.updates
    assert plan("bc", seeds=2).updates > usual.updates
    slower = dataclasses.replace(SPEED, update=dict.fromkeys(NAMES, 3.0))
    assert plan(seeds=2, speed=slower).updates < usual.updates


def test_methods_that_share_an_offline_run_pay_for_it_once():
    both = plan("fosp,fosp-no_policy_set", updates=1000, online_steps=500)
    apart = plan("fosp,fosp-no_in_sample", updates=1000, online_steps=500)
    assert both.estimate["offline training"] == pytest.approx(1200)
    assert apart.estimate["offline training"] == pytest.approx(2300)


def test_with_little_time_there_are_fewer_episodes():
    usual, hurried = plan(budget_minutes=600), plan(budget_minutes=10)
    assert (usual.episodes, usual.eval_episodes, usual.eval_every > 0) == (200, 20, True)
    assert 10 <= hurried.episodes < 200
    assert 5 <= hurried.eval_episodes < 20
    assert hurried.eval_every == 0


def test_what_is_asked_for_counts_whatever_time_it_takes():
    found = plan(budget_minutes=1, episodes=300, eval_episodes=7, updates=1234, online_steps=77)
    assert (found.episodes, found.eval_episodes) == (300, 7)
    assert (found.updates, found.online_steps) == (1234, 77)
    assert sum(found.estimate.values()) > 60
    assert plan(recorded=False).episodes == 0
    less = plan(online_steps=20_000)
    assert less.online_steps == 20_000
    assert less.updates < plan().updates


def test_evaluations_are_counted():
    assert evaluations(methods("fosp,bc"), "clustered") == 2 + 3 + 2 + 1
    assert evaluations(methods("fosp,fosp-no_policy_set"), "clustered") == 2 + 3 + 1
    assert evaluations(methods("bc"), "none") == 1 + 1


def test_a_plan_stays_and_other_wishes_are_refused(tmp_path):
    path = tmp_path / "plan.json"
    assert load_plan(path, WISHES) is None
    saved = plan()
    save_plan(saved, path)
    assert load_plan(path, WISHES) == saved
    assert load_plan(path, dataclasses.replace(WISHES, updates=saved.updates)) == saved
    for change in ({"task": "SafetyPointGoal2-v0"}, {"variant": "belt"}, {"updates": 1}):
        with pytest.raises(UserError, match="name another --out"):
            load_plan(path, dataclasses.replace(WISHES, **change))
    path.write_text("{}")
    with pytest.raises(UserError, match="is no plan"):
        load_plan(path, WISHES)


# Steps


def test_the_steps_of_two_methods_in_order(tmp_path):
    found = [
        stage.name for stage in all_stages(plan(), methods("fosp,fosp-no_policy_set"), 2, tmp_path)
    ]
    one_seed = [
        "fosp-offline-seed0",
        "eval-fosp-offline-seed0",
        "eval-fosp-offline-seed0-clustered",
        "fosp-online-seed0",
        "eval-fosp-online-seed0-clustered",
        "eval-fosp-online-seed0-clustered-online",
        "eval-fosp-online-seed0-clustered-offline",
        "fosp-no_policy_set-online-seed0",
        "eval-fosp-no_policy_set-online-seed0-clustered",
    ]
    second = [name.replace("seed0", "seed1") for name in one_seed]
    assert found == ["dataset", *one_seed, *second, "report"]
    taken = plan(recorded=False)
    assert "dataset" not in [s.name for s in all_stages(taken, methods("bc"), 1, tmp_path)]


def python(code: str, name: str = "step", done: bool = False) -> Stage:
    """A step that runs these lines."""
    return Stage(name, ("-c", code), lambda: done)


def test_output_is_shown_and_kept(tmp_path, capfdbinary):
    stages = [python("print('hello', flush=True)"), python("print('never')", "skipped", done=True)]
    assert run_stages(stages, tmp_path, 1) == 0
    out = capfdbinary.readouterr().out.decode()
    assert out.count("hello\n") == 1
    assert "[2/2] skipped: done before" in out
    log = (tmp_path / "logs" / "step.log").read_text()
    assert log == f"$ {stages[0].command}\nhello\n"
    (row,) = past_stages(tmp_path)
    assert (row["stage"], row["exit_code"], row["command"]) == ("step", 0, stages[0].command)


def test_a_step_that_fails_ends_it(tmp_path, capsys):
    stages = [python("raise SystemExit(3)", "first"), python("print('never')", "second")]
    assert run_stages(stages, tmp_path, 1) == 3
    err = capsys.readouterr().err
    assert err == f"error: first ended with exit code 3; what it said: {tmp_path}/logs/first.log\n"
    assert [row["stage"] for row in past_stages(tmp_path)] == ["first"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_step_once_and_ends_it(tmp_path, capsys, number):
    code = (
        "import signal, sys, time\n"
        "def stop(number, _):\n"
        "    print('heard', int(number), flush=True)\n    sys.exit(128 + number)\n"
        f"signal.signal({int(number)}, stop)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    log = tmp_path / "logs" / "step.log"
    asked = threading.Thread(target=ask_to_stop, args=(log, number))
    asked.start()
    assert (
        run_stages([python(code), python("print('never')", "second")], tmp_path, 1) == 128 + number
    )
    asked.join()
    assert log.read_text().count(f"heard {int(number)}\n") == 1
    assert "the same command continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def ask_to_stop(log: Path, number: int) -> None:
    """Send a signal to this process once the step is ready for it."""
    for _ in range(600):
        if log.exists() and "ready" in log.read_text().splitlines():
            break
        threading.Event().wait(0.05)
    os.kill(os.getpid(), number)


# The whole of it


@pytest.fixture
def here(monkeypatch, quick_world) -> list[str]:
    """Steps run in this process, in a counter with episodes of 8 steps; returns their names.

    Of the report only its words are looked at.
    """
    for module in ("fosp_ext.observer", "fosp_ext.rollouts", "benchmarks.learning_speed"):
        monkeypatch.setattr(f"{module}.make_run_env", lambda *_: CountingEnv(8))
    monkeypatch.setattr("benchmarks.learning_speed.time_imports", lambda: 0.1)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train.py": train.main,
        "eval.py": evaluation_command.main,
        "-m": write_page,
    }
    done: list[str] = []

    def execute(stage: Stage, log: Path, keep_open: tuple[int, ...]) -> int:
        done.append(stage.name)
        return commands[stage.words[0]](list(stage.words[1:]))

    monkeypatch.setattr(learning_stages, "execute", execute)
    return done


def write_page(words: list[str]) -> int:
    """In place of `python -m fosp_ext.report`."""
    options = report_command.parse(words[1:])
    assert all((run / "config.yaml").exists() for run in options.runs)
    options.out.mkdir(exist_ok=True)
    (options.out / "index.html").write_text("a page")
    return 0


def tiny(place: Path, *words: str) -> list[str]:
    """The words of a comparison of no time at all."""
    return [
        *("--size", "debug", "--budget-minutes", "1", "--updates", "2", "--online-steps", "16"),
        *("--eval-episodes", "2", "--out", str(place / "out"), *words),
    ]


def test_from_a_dataset_to_the_report_and_on(here, place, capsys):
    """First one method; then a second one, with an evaluation that was stopped in between."""
    words = tiny(place, "--dataset", "data.h5", "--json", str(place / "numbers.json"), "--methods")
    assert learning.main([*words, "bc"]) == 0
    assert len(here) == len(set(here)) == 1 + 2 + 1 + 1 + 1
    check_bc(json.loads((place / "numbers.json").read_text()), here)
    before = list(here)
    folder = place / "out" / "bc" / "online" / "seed0" / "eval"
    for file in folder.glob("*/summary.json"):
        file.unlink()
    here.clear()
    capsys.readouterr()
    assert learning.main([*words, "fosp,bc"]) == 0
    assert set(here) & set(before) == {"eval-bc-online-seed0-clustered", "report"}
    assert len(here) == 1 + 2 + 1 + 3 + 2
    assert len(list(folder.iterdir())) == 2  # nothing was overwritten
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    heads = [line.split("|")[1].strip() for line in lines]
    assert heads[:4] == ["method", "---", "fosp", "bc"]
    alone = ["fosp, online policy alone", "fosp, offline policy alone"]
    assert heads[4:] == ["method", "---", "fosp", *alone, "bc"]
    assert "36.00 [36.00, 36.00]" in lines[-1]  # 1 + ... + 8, in every episode
    found = json.loads((place / "numbers.json").read_text())
    evaluations = {(r["method"], r["phase"]): r["evaluations"] for r in found["runs"]}
    assert [e["policy"] for e in evaluations["fosp", "online"]] == ["set", "online", "offline"]
    here.clear()
    assert learning.main([*words, "fosp,bc"]) == 0  # the same command has nothing left to do
    assert here == []


def check_bc(found: dict, stages: list[str]) -> None:
    """What the numbers of one method and one seed say."""
    assert found["command"].startswith("python -m benchmarks.learning --size debug")
    assert found["seeds"] == [0]
    assert found["provenance"].keys() >= {"commit", "machine", "processor", "versions"}
    offline, online = found["runs"]
    assert (offline["phase"], online["phase"]) == ("offline", "online")
    assert [e["variant"] for e in offline["evaluations"]] == ["none", "clustered"]
    assert offline["evaluations"][0]["seeds"] == [1000, 1001]
    assert offline["evaluations"][0]["returns"] == [36.0, 36.0]
    assert found["online"][0]["cost_after"] == [2.0, 2.0, 2.0]
    assert found["online"][0]["summed_cost"] == [2 * 2.0, None, None]  # one seed: no interval
    assert {row["stage"] for row in found["stages"]} == set(stages)
    assert set(found["dataset"]["behaviours"]) == {"safe", "unsafe"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
        ("--task my.envs:Mine-v0", "only Safety-Gymnasium tasks have variants"),
        ("--variant clusterd", "did you mean 'clustered'"),
        ("--methods fops", "did you mean 'fosp'"),
        ("--seeds 0", "--seeds must be at least 1, got 0"),
        ("--updates -3", "--updates must be at least 1"),
        ("--budget-minutes 0", "--budget-minutes must be above 0"),
        ("--budget-minutes nan", "--budget-minutes must be above 0"),
        ("--dataset dat.h5", "no dataset dat.h5; did you mean 'data.h5'"),
        ("--dataset data.h5 --episodes 3", "nothing to record"),
        ("--dataset data.h5 --task SafetyPointGoal2-v0", "episodes of SafetyPointGoal1-v0, not of"),
    ],
)
def test_bad_words_are_one_line(refuse, words, message):
    argv = ["--size", "debug", "--budget-minutes", "1", *words.split()]
    assert message in refuse(argv, learning.main)


def test_help_is_for_people(capsys):
    with pytest.raises(SystemExit) as ended:
        learning.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("--budget-minutes M", "fosp-no_policy_set", "examples:", "Exit codes"):
        assert word in out


@pytest.mark.slow
@pytest.mark.sim
def test_everything_in_the_real_simulator(tmp_path, capfdbinary):
    words = tiny(tmp_path, "--methods", "bc", "--episodes", "3", "--online-steps", "520")
    assert learning.main(words) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["offline"]) == len(found["online"]) == 1
    assert all(math.isfinite(x) for x in found["online"][0]["return_after"])
    assert found["online"][0]["training_episodes"] == [2]
    assert [row["exit_code"] for row in found["stages"]] == [0] * 7
    assert "| bc |" in capfdbinary.readouterr().out.decode()
    assert (tmp_path / "out" / "report" / "index.html").exists()
