"""Errors of the commands: every mistake is one line and nothing is written.

The exit code is 2, or 4 where a file is no valid dataset.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import eval as evaluation_command
import train
from dreamer.boundary import guarded
from dreamer.errors import DatasetError, UserError
from tests.support.commands import ROOT, offline, snapshot

DEBUG = ["--configs", "fosp_offline", "debug"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--configs fosp_ofline", "'fosp_ofline' is not a preset; did you mean 'fosp_offline'"),
        ("--run.updatse 3", "--run.updatse is not a setting; did you mean 'run.updates'"),
        ("--run.updates many", "--run.updates .*'many'"),
        ("--env.render fats", "--env.render .*'fats'.*'fast'"),
        ("--run.updates", "--run.updates needs a value"),
        ("updates 3", "'updates' is not understood: a setting begins with two dashes, --run.upd"),
        ("run.updates=3", "two dashes, --run.updates=..."),
        ("-seed 3", "two dashes, --seed VALUE"),
        ("--logger tensorbord", "--run.logger .*'tensorbord'"),
        ("--configs seed 3", "'seed' is not understood: a setting begins with two dashes, --seed"),
        ("--seed 3 cpu", "'cpu' .* a preset, .* stand together: --configs fosp_offline debug cpu"),
        ("nonsense", "'nonsense' is not understood; write --configs NAMES or --key value"),
        ("--device cuda:99", "device 'cuda:99' cannot be used here"),
        ("--device gpu", "device 'gpu' cannot be used here"),
        ("--task SafetyPointGaol1-v0", "'SafetyPointGaol1-v0'; did you mean 'SafetyPointGoal1-v0'"),
        ("--env.cameras vision,vision_bak", "'vision_bak'; did you mean 'vision_back'"),
        ("--dataset.path dat.h5", "no dataset dat.h5;.*did you mean 'data.h5'"),
        ("--dataset.path nowhere/data.h5", "no dataset nowhere/data.h5"),
        ("--run.batch_length 300", "205 rows, fewer than one window of 300"),
        ("--dataset.holdout 0.9", "6 episodes and 6 would be held out"),
        ("--logdir data.h5/run", "cannot write to run folder data.h5/run: Not a directory"),
    ],
)
def test_wrong_arguments_are_named(refuse, words, message):
    base = [*DEBUG, "--dataset.path", "data.h5", "--logdir", "run"]
    assert re.search(message, refuse([*base, *words.split()])), words


def test_without_a_size_the_choice_is_said_first(refuse, capsys):
    argv = ["--configs", "fosp_offline", "--task", "SafetyPointGaol1-v0", "--device", "cpu"]
    assert "did you mean" in refuse(argv)
    assert train.main(argv) == 2
    assert "taking size 'cpu' and recipe 'quick'" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task", "SafetyPointGoal2-v0"),
        ("env.cameras", "fixedfar"),
        ("env.action_repeat", "2"),
        ("env.render", "exact"),
        ("env.size", "32"),
    ],
)
def test_a_dataset_for_something_else_is_refused(refuse, setting, value):
    line = refuse([*DEBUG, "--dataset.path", "data.h5", "--logdir", "run", f"--{setting}", value])
    assert f"data.h5 was recorded with {setting.split('.')[-1]}" in line
    assert value in line


def test_damaged_datasets_are_refused(refuse, place):
    whole = (place / "data.h5").read_bytes()
    (place / "short.h5").write_bytes(whole[: len(whole) // 2])
    (place / "foreign.h5").write_text("not HDF5")
    for name in ("short.h5", "foreign.h5"):
        line = refuse(offline(Path(name), Path("run")), code=4)
        assert f"{name} is not a readable HDF5 dataset" in line


def test_an_unreadable_checkpoint_is_refused(refuse, place, toy_run):
    shutil.copytree(toy_run, place / "run")
    newest = place / "run" / "checkpoints" / "step_000000006.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    line = refuse(offline(Path("data.h5"), Path("run")))
    assert f"{newest.relative_to(place)} cannot be read; step_000000003.pt beside it" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
        ("--env.cameras front", "unknown camera 'front'"),
        ("--dataset.mix saef=1", "did you mean 'safe'"),
        ("--dataset.path data.h5", "data.h5 exists already"),
        ("--dataset.path data.h5/x.h5", "data.h5/x.h5"),
    ],
)
def test_collect_refuses_too(refuse, words, message):
    assert message in refuse(["--configs", "collect", "debug", *words.split()])


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []])
def test_help_fits_on_a_screen(argv, place, capsys):
    before = snapshot(place)
    assert train.main(argv) == 0
    out = capsys.readouterr().out
    for word in ("usage: python train.py", "offline", "fosp_offline", "lagrange", "--help SECTION"):
        assert word in out
    assert len(out.splitlines()) < 50
    assert max(map(len, out.splitlines())) <= 100
    assert snapshot(place) == before


def test_help_lists_the_settings_of_a_section(place, capsys):
    assert train.main(["--configs", "fosp_offline", "--help", "run", "lagrange"]) == 0
    keys = {line.split()[0].partition(".")[0] for line in capsys.readouterr().out.splitlines()}
    assert keys == {"--run", "--lagrange"}
    assert train.main(["--help", "general"]) == 0
    assert "--seed" in capsys.readouterr().out
    assert train.main(["--help", "all"]) == 0
    out = capsys.readouterr().out
    assert "--run.updates" in out
    assert "125000" in out
    assert train.main(["--help", "lagrnge"]) == 2
    assert "did you mean 'lagrange'" in capsys.readouterr().err


def test_the_only_policy_is_taken_by_itself(place, capsys):
    own = ["--configs", "collect", "--task", "mine:Env", "--print-config"]
    assert train.main(own) == 0
    out, err = capsys.readouterr()
    assert YAML(typ="safe").load(out)["dataset"]["mix"] == {"random": 1.0}
    assert "'random', the only one for mine:Env" in err
    assert train.main([*own, "--dataset.mix", "safe=1"]) == 0
    assert "safe: 1" in capsys.readouterr().out  # named, and refused when it is recorded
    assert train.main(["--configs", "collect", "--print-config"]) == 0
    assert "near_miss" in capsys.readouterr().out
    assert train.main(["--configs", "fosp_online", "--task", "mine:Env", "--print-config"]) == 0


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_help_does_not_wait_for_torch(script):
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ")
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "dreamer.errors" in modules
    assert not modules & {"torch", "numpy", "mujoco"}


def test_print_config_shows_what_would_run(place, capsys):
    before = snapshot(place)
    assert train.main([*DEBUG, "--seed", "3", "--print-config"]) == 0
    shown = YAML(typ="safe").load(capsys.readouterr().out)
    assert (shown["seed"], shown["size"], shown["run"]["batch_size"]) == (3, "debug", 4)
    assert shown["logdir"] == "logdir/SafetyPointGoal1-v0/fosp_offline-debug-paper/seed3"
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--logdir nowhere", "nowhere does not exist"),
        ("--logdir empty", "empty has no checkpoint yet"),
        ("--checkpoint data.h5", "checkpoint data.h5 cannot be read"),
        ("--checkpoint short.pt", "checkpoint short.pt cannot be read"),
        (
            "--logdir run --task SafetyPointGoal2-v0",
            "for SafetyPointGoal1-v0, not for SafetyPointG",
        ),
        ("--logdir run --task SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
        ("--logdir run --device cuda:99", "device 'cuda:99' cannot be used here"),
    ],
)
def test_eval_refuses_too(refuse, place, toy_run, words, message):
    (place / "empty").mkdir()
    shutil.copytree(toy_run, place / "run")
    whole = (place / "run" / "checkpoints" / "step_000000006.pt").read_bytes()
    (place / "short.pt").write_bytes(whole[: len(whole) // 2])
    assert message in refuse(words.split(), evaluation_command.main)


@pytest.mark.parametrize("words", ["", "--logdir a --checkpoint b", "--logdir run --episodes 0"])
def test_eval_needs_sensible_arguments(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluation_command.main(words.split())
    assert ": error: " in capsys.readouterr().err.splitlines()[-1]


def test_ctrl_c_is_one_line(place, capsys, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fosp_ext.run.modes.record_dataset", interrupted)
    assert train.main(["--configs", "collect"]) == 130
    assert capsys.readouterr().err == "stopped; the same command continues\n"
    monkeypatch.setattr("fosp_ext.run.evaluate.play", interrupted)
    assert evaluation_command.main(["--logdir", "run"]) == 130
    assert capsys.readouterr().err.startswith("stopped; ")


def test_help_may_be_read_in_part():
    command = f"'{sys.executable}' train.py --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: python train.py")
    assert not done.stderr


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UserError("no such task"), "error: no such task", 2),
        (DatasetError("a.h5 is damaged"), "error: a.h5 is damaged", 4),
        (FileNotFoundError(2, "Not there", "a.h5"), "error: a.h5: Not there", 2),
        (BrokenPipeError(32, "Broken pipe"), "error: writing: Broken pipe", 2),
        (OSError("disk is odd"), "error: writing: disk is odd", 2),
        (KeyboardInterrupt(), "stopped; go on", 130),
    ],
)
def test_an_error_is_one_line_and_a_code(error, line, code, capsys):
    def fail() -> int:
        raise error

    assert guarded(fail, "stopped; go on") == code
    assert capsys.readouterr() == ("", f"{line}\n")
