"""`python -m experiments.comparison` from a dataset to its numbers and tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as evaluation_command
import train
from dreamer.envs.counting import CountingEnv
from experiments import diagnose, diagnose_recorded
from experiments.comparison import __main__ as comparison
from experiments.comparison import run as learning_run
from experiments.comparison.jobs import Job
from experiments.comparison.results import training_minutes
from fosp_ext.config import load_config
from fosp_ext.report import __main__ as report_command


@pytest.fixture
def here(monkeypatch, quick_world) -> list[str]:
    """Jobs run in this process, in a counter with episodes of 8 steps; returns their names.

    Of the report only its arguments are checked.
    """
    benchmarks = ("experiments.comparison.speed", "experiments.diagnose_own")
    for module in ("fosp_ext.run.evaluate", *benchmarks):
        monkeypatch.setattr(f"{module}.make_run_env", lambda *_: CountingEnv(8))
    monkeypatch.setattr("fosp_ext.run.evaluate.usual_workers", lambda *_: 1)
    monkeypatch.setattr("experiments.comparison.speed.time_imports", lambda: 0.1)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train.py": train.main,
        "eval.py": evaluation_command.main,
        "fosp_ext.report": write_page,
        "experiments.diagnose": diagnose.main,
    }
    done: list[str] = []

    def launch(job: Job, keep_open: tuple[int, ...]) -> subprocess.Popen:
        done.append(job.name)
        words = [word for word in job.words if word != "-m"]
        code = commands[words[0]](words[1:])
        return subprocess.Popen(
            [sys.executable, "-S", "-c", f"raise SystemExit({code})"], stdout=subprocess.PIPE
        )

    monkeypatch.setattr(learning_run, "launch", launch)
    return done


def write_page(words: list[str]) -> int:
    """In place of `python -m fosp_ext.report`."""
    options = report_command.parse(words)
    assert all((run / "config.yaml").exists() for run in options.runs)
    options.out.mkdir(exist_ok=True)
    (options.out / "index.html").write_text("a page")
    return 0


def tiny(place: Path, *words: str) -> list[str]:
    """The arguments of a tiny comparison."""
    return [
        *("--jobs", "1", "--set", "run.heldout_every=0"),
        *(
            "--size",
            "debug",
            "--recipe",
            "paper",
            "--budget-minutes",
            "1",
            "--updates",
            "2",
            "--online-steps",
            "16",
        ),
        *("--eval-episodes", "2", "--out", str(place / "out"), *words),
    ]


def test_from_a_dataset_to_the_report_and_on(here, place, capsys, monkeypatch):
    """First one method; then a second one, with an evaluation that was stopped in between."""
    monkeypatch.setattr(diagnose_recorded, "WINDOW", 8)  # the recorded episodes have 40 steps
    words = tiny(place, "--dataset", "data.h5", "--json", str(place / "numbers.json"), "--methods")
    assert comparison.main([*words, "bc"]) == 0
    assert len(here) == len(set(here)) == 1 + 2 + 1 + 1 + 1
    check_bc(json.loads((place / "numbers.json").read_text()), here)
    before, kept = list(here), (place / "out" / "plan.json").read_bytes()
    folder = place / "out" / "bc" / "online" / "seed0" / "eval"
    for file in folder.glob("*/summary.json"):
        file.unlink()
    here.clear()
    capsys.readouterr()
    assert comparison.main([*words, "fosp,bc", "--jobs", "2"]) == 0
    assert set(here) & set(before) == {"eval-bc-online-seed0-clustered", "report"}
    assert len(here) == 1 + 2 + 1 + 3 + 1 + 2
    assert len(list(folder.iterdir())) == 2  # nothing was overwritten
    assert (place / "out" / "plan.json").read_bytes() == kept
    check_tables(capsys.readouterr().out)
    check_fosp(json.loads((place / "numbers.json").read_text()))
    here.clear()
    assert comparison.main([*words, "fosp,bc"]) == 0  # the same command has nothing left to do
    assert here == []


def check_bc(found: dict, jobs: list[str]) -> None:
    """The numbers of one method and one seed."""
    assert found["command"].startswith("python -m experiments.comparison --jobs 1 --set")
    assert found["seeds"] == [0]
    assert found["provenance"].keys() >= {"commit", "machine", "processor", "versions"}
    offline, online = found["runs"]
    assert (offline["phase"], online["phase"]) == ("offline", "online")
    assert (offline["agent_steps"], online["agent_steps"]) == (0, 16)
    assert [len(run["training_episodes"]) for run in found["runs"]] == [0, 2]
    assert [e["variant"] for e in found["evaluations"]] == ["none", "clustered", "clustered"]
    assert [e["phase"] for e in found["evaluations"]] == ["offline", "offline", "online"]
    assert found["online"][0]["cost_after"] == [2.0, 2.0, 2.0]
    assert found["online"][0]["summed_cost"] == [2 * 2.0, None, None]  # one seed: no interval
    assert {row["job"] for row in found["jobs"]} == set(jobs)
    assert set(found["dataset"]["policies"]) == {"safe", "unsafe"}
    assert found["dataset"]["policies"]["safe"].keys() == {
        "episodes", "return", "cost", "safe_episodes",
    }  # fmt: skip


def check_tables(out: str) -> None:
    """Markdown: the dataset and the offline runs, then the online runs."""
    lines = [line for line in out[out.index("\nOffline, ") :].splitlines() if line[:1] == "|"]
    heads = [line.split("|")[1].strip() for line in lines]
    data = ["dataset: safe", "dataset: unsafe"]
    assert heads[:6] == ["method", "---", *data, "fosp", "bc"]
    alone = ["fosp, online policy alone", "fosp, offline policy alone"]
    assert heads[6:] == ["method", "---", "fosp", *alone, "bc"]
    assert "36.00 [36.00, 36.00]" in lines[-1]  # 1 + ... + 8, in every episode
    assert {line.count("|") for line in lines[:6]} == {5}
    assert {line.count("|") for line in lines[6:]} == {9}


def check_fosp(found: dict) -> None:
    """Each evaluation says everything about itself; the offline run was diagnosed."""
    own = [e for e in found["evaluations"] if e["method"] == "fosp"]
    phases = ["offline", "offline", "online set", "online alone", "offline alone"]
    assert [e["phase"] for e in own] == phases
    for each in own:
        assert each["seed"] == 0
        assert each["return"] == {"mean": 36.0, "std": 0.0, "ci95": [36.0, 36.0]}
        assert each["cost"]["mean"] == 2.0
        assert (each["safe_episodes"], each["evaluation_seeds"]) == (0.0, [1000, 1001])
        assert each["returns"] == [36.0, 36.0]
        assert each["agent_steps"] == (16 if "online" in each["phase"] or each is own[-1] else 0)
        assert each["updates"] == (2 if each in own[:2] else 1 + 16 // 2)
        assert each["training_minutes"] >= 0
        assert each["commits"]
        assert each["machines"]
        assert all(command.startswith("python ") for command in each["commands"])
    offline, *others = found["runs"]
    assert (offline["method"], offline["phase"]) == ("fosp", "offline")
    assert offline["diagnosis"]["images"]["windows"] == 2
    own = offline["diagnosis"]["own episodes"]  # too short for 15 steps ahead
    assert (own["episodes"], own["return"], own["cost"]) == (5, 36, 2)
    assert not [name for name in own if "steps ahead" in name or "imagined" in name]
    assert [run["diagnosis"] for run in others] == [None] * 3


def test_only_the_offline_phases_with_other_settings(here, place, capsys):
    """Other settings are another comparison."""
    words = tiny(place, "--dataset", "data.h5", "--online-steps", "0", "--variant", "none")
    words += ["--methods", "bc"]
    assert comparison.main([*words, "--set", "actor.optimizer.lr=0.01"]) == 0
    assert here == ["bc-offline-seed0", "eval-bc-offline-seed0", "report"]
    found = json.loads((place / "out" / "results.json").read_text())
    assert found["plan"]["settings"] == {"run.heldout_every": "0", "actor.optimizer.lr": "0.01"}
    assert found["online"] == []
    assert [(e["phase"], e["variant"]) for e in found["evaluations"]] == [("offline", "none")]
    settings = load_config(place / "out" / "bc" / "offline" / "seed0" / "config.yaml")
    assert settings.actor.optimizer.lr == 0.01
    out = capsys.readouterr().out
    assert "actor.optimizer.lr = 0.01" in out
    assert out.count("| method |") == 1
    assert "Settings that were changed: `run.heldout_every` 0, `actor.optimizer.lr` 0.01." in out
    assert comparison.main([*words, "--set", "actor.optimizer.lr=0.02"]) == 2
    assert "name another --out" in capsys.readouterr().err


def test_methods_share_the_pretrained_model(here, place):
    words = tiny(place, "--dataset", "data.h5", "--online-steps", "0", "--variant", "none")
    words += ["--set", "run.pretrain=0.5", "--methods"]
    assert comparison.main([*words, "fosp,bc,dreamerv3"]) == 0
    assert here[0] == "model-seed0"
    found = json.loads((place / "out" / "results.json").read_text())
    assert found["plan"]["model_updates"] == 1
    (model,) = found["models"]
    assert (model["seed"], model["updates"]) == (0, 1)
    assert {run["method"]: run["updates"] for run in found["runs"]} == dict.fromkeys(
        ("fosp", "bc", "dreamerv3"), 2
    )
    for name, source in (("bc", place / "out" / "model" / "seed0"), ("dreamerv3", "")):
        settings = load_config(place / "out" / name / "offline" / "seed0" / "config.yaml")
        assert settings.init_from == str(source)


def test_fine_tuning_in_the_task_as_it_is(here, place, capsys):
    words = tiny(place, "--dataset", "data.h5", "--variant", "none", "--methods", "bc")
    assert comparison.main(words) == 0
    found = json.loads((place / "out" / "results.json").read_text())
    seen = [(e["phase"], e["variant"]) for e in found["evaluations"]]
    assert seen == [("offline", "none"), ("online", "none")]
    assert "16 agent steps in the task as it is." in capsys.readouterr().out


def test_minutes_of_training_come_from_its_rates(tmp_path):
    rows = [
        {"step": 50, "fps/updates": 0.5},
        {"step": 50, "eval/score": 1.0},
        {"step": 80, "fps/updates": 0.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert training_minutes(tmp_path) == round((100 + 120) / 60, 2)
    assert training_minutes(tmp_path, begins=40) == round((20 + 120) / 60, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
        ("--task my.envs:Mine-v0", "only built-in tasks have variants"),
        ("--variant clusterd", "did you mean 'clustered'"),
        ("--methods fops", "did you mean 'fosp'"),
        ("--jobs 0", "--jobs must be at least 1"),
        ("--threads 0", "--threads must be at least 1"),
        ("--online-steps -1", "--online-steps must be at least 0"),
        ("--set lagrange.penlty=1", "did you mean 'lagrange.penalty'"),
        ("--set lagrange.penalty=much", "--lagrange.penalty"),
        ("--set lagrange.penalty", "--set takes KEY=VALUE"),
        ("--set init_from=x", "the comparison sets it itself"),
        ("--set seed=3", "the comparison sets it itself, by --seeds"),
        ("--set critic.imagined_expectile=1 --methods fosp,fosp_release", "preset fosp_release"),
        ("--seeds 0", "--seeds must be at least 1, got 0"),
        ("--updates -3", "--updates must be at least 1"),
        ("--budget-minutes 0", "--budget-minutes must be above 0"),
        ("--budget-minutes nan", "--budget-minutes must be above 0"),
        ("--dataset dat.h5", "no dataset dat.h5; did you mean 'data.h5'"),
        ("--dataset data.h5 --episodes 3", "nothing to record"),
        ("--dataset data.h5 --task SafetyPointGoal2-v0", "episodes of SafetyPointGoal1-v0, not of"),
    ],
)
def test_wrong_arguments_are_one_line(refuse, words, message):
    argv = ["--size", "debug", "--recipe", "paper", "--budget-minutes", "1", *words.split()]
    assert message in refuse(argv, comparison.main)


def test_help_is_for_people(capsys):
    with pytest.raises(SystemExit) as ended:
        comparison.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("--budget-minutes M", "fosp-no_policy_set", "examples:", "Exit codes"):
        assert word in out


@pytest.mark.slow
@pytest.mark.sim
def test_everything_in_the_real_simulator(tmp_path, capfdbinary):
    words = tiny(tmp_path, "--methods", "bc,fosp", "--episodes", "3", "--online-steps", "520")
    assert comparison.main([*words, "--jobs", "2", "--threads", "1"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (len(found["offline"]), len(found["online"])) == (2, 4)
    assert all(math.isfinite(x) for x in found["online"][0]["return_after"])
    assert found["online"][0]["training_episodes"] == [2]
    codes = {row["job"]: row["exit_code"] for row in found["jobs"]}
    assert codes.pop("diagnose-fosp-offline-seed0") in (0, 1)
    assert list(codes.values()) == [0] * (1 + 2 * (1 + 2 + 1) + 1 + 3 + 1)
    assert "| bc |" in capfdbinary.readouterr().out.decode()
    assert (tmp_path / "out" / "report" / "index.html").exists()
