"""SafeReach through all commands, small: record, train offline, go on in a transfer, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import eval as evaluation_command
import train
from dreamer.config import load_presets
from dreamer.data.hdf5 import read_episodes, validate_dataset
from fosp_ext.config import resolve_config
from fosp_ext.envs import REACH
from fosp_ext.envs.tasks import usual_action_repeat, usual_cameras
from fosp_ext.run.presets import PRESETS
from tests.support.commands import metrics

TASK = ("--task", REACH)
PRESET = load_presets(PRESETS)


@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", REACH])
def test_a_task_brings_its_cameras_and_action_repeat(task):
    config = resolve_config(PRESET, ["fosp_offline", "cpu", "quick"], {"task": task})
    assert config.env.cameras == usual_cameras(task)
    assert config.env.action_repeat == usual_action_repeat(task)


def test_the_preset_of_a_task_is_its_name_and_gives_way_to_words():
    named = resolve_config(PRESET, ["collect", REACH], {})
    assert named == resolve_config(PRESET, ["collect"], {"task": REACH})
    front = resolve_config(PRESET, ["collect"], {"task": REACH, "env.cameras": "front"})
    assert front.env.cameras == ("front",)


def test_the_printed_configuration_says_where_values_come_from(capsys):
    assert train.main(["--configs", "collect", *TASK, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert f"preset {REACH}" in printed


@pytest.mark.sim
def test_no_dataset_is_left_of_a_wrong_camera(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--configs", "collect", "debug", *TASK, "--env.cameras", "vision"]
    assert train.main(words) == 2
    assert "unknown camera 'vision' (known: front, wrist)" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `data.h5`, the runs `offline` and `online`, and an evaluation."""
    place = tmp_path_factory.mktemp("reach")
    data, run, online = (str(place / name) for name in ("data.h5", "offline", "online"))
    where = ["--dataset.path", data]
    collect = ["--configs", "collect", "debug", *TASK, *where, "--dataset.episodes", "4"]
    assert train.main([*collect, "--dataset.workers", "1"]) == 0
    short = ["--run.updates", "4", "--run.heldout_every", "0", "--run.log_every", "2"]
    learn = ["--configs", "fosp_offline", "debug", *TASK, *where, "--logdir", run, *short]
    assert train.main([*learn, "--run.eval_every", "4"]) == 0
    adapt = ["--configs", "fosp_online", "debug", *TASK, "--from", run, "--logdir", online]
    adapt += [*where, "--env.variant", "slabs", "--online.envs", "1", "--online.steps", "120"]
    assert train.main([*adapt, "--online.ratio", "0.02", "--run.heldout_every", "0"]) == 0
    play = ["--logdir", online, "--episodes", "2", "--videos", "1", "--variant", "ball_goal"]
    assert evaluation_command.main([*play, "--task", REACH]) == 0
    return place


@pytest.mark.sim
def test_the_dataset_is_of_all_policies(job):
    info = validate_dataset(job / "data.h5")
    assert (info.task, info.cameras, info.action_repeat) == (REACH, ("front", "wrist"), 1)
    assert (info.size, info.action_size, info.action_scale) == (64, 3, (1.0, 1.0, 1.0))
    episodes = list(read_episodes(job / "data.h5"))
    assert {episode.policy for episode in episodes} >= {"safe", "near_miss", "random"}
    for episode in episodes:
        assert episode.images["front"].std() > 10
        assert episode.images["wrist"].std() > 10
        assert episode.terminated == (episode.reward[-1] > 1)


@pytest.mark.sim
def test_training_evaluates_success(job):
    (line,) = [line for line in metrics(job / "offline") if "eval/score" in line]
    assert line["eval/success"] in (0, 1)
    assert line["eval/safe_success"] <= line["eval/success"]
    assert line["eval/violating_episodes"] in (0, 1)


@pytest.mark.sim
def test_the_online_phase_plays_in_the_transfer(job):
    lines = [json.loads(x) for x in (job / "online" / "episodes.jsonl").read_text().splitlines()]
    assert lines
    assert all(line["length"] <= 100 for line in lines)


@pytest.mark.sim
def test_the_summary_has_success_with_intervals(job, capsys):
    (folder,) = (job / "online" / "eval").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["task"], summary["variant"]) == (REACH, "ball_goal")
    for name in ("success", "violating_episodes", "safe_success"):
        low, high = summary[name]["ci95"]
        assert 0 <= low <= summary[name]["mean"] <= high <= 1
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert {row["success"] for row in rows} <= {True, False}
    assert list((folder / "videos").iterdir())
