"""What an online run refuses: one line, exit code 2, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import train
from dreamer.data.hdf5 import fingerprint, write_dataset
from dreamer.training.run_folder import RunFolder
from tests.support.agents import INFO, make_agent, make_config
from tests.support.policy_sets import expanded
from tests.support.toy_data import TOY_INFO, toy_episode

DEBUG = ("--configs", "fosp_online", "debug", "--logdir", "new")


@pytest.fixture
def run(place: Path, toy_run: Path) -> str:
    """A finished offline run in the folder `run` of the working directory."""
    shutil.copytree(toy_run, place / "run")
    return "run"


def written(place: Path, name: str, preset: str) -> None:
    """A run folder with a checkpoint after 7 updates, of a run on data.h5 here."""
    config = make_config(preset, "debug", logdir=name, dataset__path="data.h5")
    folder = RunFolder(Path(config.logdir), config, 2)
    folder.open()
    agent = expanded() if config.mode == "online" else make_agent()
    folder.save(agent, INFO, 7, fingerprint(place / "data.h5"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task SafetyPointGoal2-v0", "SafetyPointGoal1-v0, this command says SafetyPointGoal2"),
        (
            "--task SafetyDoggoGoal1-v0 --allow-task-mismatch",
            "an action of the environment has 12 numbers, not 2",
        ),
        ("--env.cameras vision", "env.cameras ['vision', 'vision_back'], this command says ['visi"),
        ("--env.action_repeat 2", "env.action_repeat 4, this command says 2; give it the same"),
        ("--env.render exact", "env.render 'fast', this command says 'exact'"),
        ("--dataset.holdout 0.3", "dataset.holdout 0.1, this command says 0.3"),
        ("--configs safedreamer_online debug", "name the preset of its method, fosp_online"),
        ("--configs fosp_online cpu", "name its size preset, debug"),
        ("--configs fosp_online debug no_reachability", "reachability.enabled True, this command"),
        ("--online.offline_frac some", "must be pool or a number in [0, 1], not 'some'"),
        ("--online.offline_frac 1.5", "must be pool or a number in [0, 1], not '1.5'"),
        ("--online.offline_frac nan", "must be pool or a number in [0, 1], not 'nan'"),
        ("--online.envs 0", "--online.envs"),
        ("--online.ratio -1", "--online.ratio"),
        ("--env.variant clusterd", "did you mean 'clustered'"),
        ("--run.batch_length 300", "rows, fewer than one window of 300"),
        ("--logdir run", "run holds a run with mode 'offline', this command says 'online'"),
        ("--logdir data.h5/new", "cannot write to run folder data.h5/new: Not a directory"),
        ("--dataset.path nowhere.h5", "no dataset nowhere.h5; it must be the one"),
    ],
)
def test_what_does_not_fit_the_offline_run(refuse, run, words, message):
    line = refuse([*DEBUG, "--from", run, *words.split()])
    assert message in line, line


@pytest.mark.parametrize("source", ["run", "run/checkpoints/step_000000006.pt"])
def test_without_size_and_recipe_they_are_those_of_the_offline_run(run, capsys, source):
    assert train.main(["--configs", "fosp_online", "--from", source, "--print-config"]) == 0
    out, err = capsys.readouterr()
    assert err == f"taking size 'debug' and recipe 'paper' of {source}\n"
    assert "size: debug\n" in out
    assert f"init_from: {source}\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the policy set needs an offline policy: name its run, --from RUN; to learn from"),
        ("--from", "--from needs a value"),
        ("--from nowhere", "nowhere does not exist"),
        ("--from empty", "empty has no checkpoint yet; is it a run folder of train.py?"),
        ("--from data.h5", "checkpoint data.h5 cannot be read"),
        ("--from other", "other is an online run, --from takes an offline one"),
    ],
)
def test_what_is_no_offline_run(refuse, place, words, message):
    (place / "empty").mkdir()
    written(place, "other", "fosp_online")
    assert message in refuse([*DEBUG, *words.split()])


def test_a_run_whose_dataset_is_not_there(refuse, place):
    """Or another one in its place."""
    written(place, "run", "fosp_offline")
    (place / "data.h5").rename(place / "moved.h5")
    argv = [*DEBUG, "--from", "run"]
    line = refuse(argv)
    assert line == (
        "error: the dataset that run was trained on is not at data.h5; say where it is now with "
        "--dataset.path"
    )
    write_dataset(place / "other.h5", [toy_episode(seed=k) for k in range(3)], TOY_INFO)
    line = refuse([*argv, "--dataset.path", "other.h5"])
    assert line.startswith("error: other.h5 is not the dataset that run was trained on; name")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 1", "new holds a run with seed 0, this command says 1; name another --logdir"),
        ("--online.ratio 1", "new holds a run with online.ratio 0.5, this command says 1.0"),
        ("--dataset.path nowhere.h5", "no dataset nowhere.h5; it must be the one that new was"),
    ],
)
def test_a_second_start_that_is_not_the_same(refuse, place, words, message):
    written(place, "new", "fosp_online")
    assert message in refuse([*DEBUG, *words.split()])


def test_a_second_start_before_the_first_checkpoint(refuse, place, run):
    """The settings in the folder count; without a checkpoint it still needs the offline run."""
    RunFolder(Path("new"), make_config("fosp_online", "debug", logdir="new"), 2).open()
    assert "new holds a run with seed 0" in refuse([*DEBUG, "--from", run, "--seed", "1"])
    assert "--from RUN" in refuse([*DEBUG])


def test_a_recording_goes_on_from_nothing(refuse, place):
    line = refuse(["--configs", "collect", "debug", "--from", "run"])
    assert line.startswith("error: --init_from is not read by collect; it is for offline, online")
