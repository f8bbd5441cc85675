"""The main job, small, in the real simulator: record, train offline, go on, evaluate, watch."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import eval as evaluation_command
import train
from dreamer.data.hdf5 import read_episodes, validate_dataset
from fosp_ext import export
from tests.support.commands import metrics, saved

pytestmark = pytest.mark.sim

TASK = "SafetyPointGoal1-v0"
STEPS = 250  # agent steps of an episode: 1000 simulator steps, four at a time
CAMERAS = ("vision", "vision_back")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `data.h5`, the run `run` of two starts and its evaluation."""
    place = tmp_path_factory.mktemp("job")
    data, run = str(place / "data.h5"), str(place / "run")
    collect = ["--configs", "collect", "debug", "--dataset.path", data]
    assert train.main([*collect, "--dataset.episodes", "3", "--dataset.workers", "2"]) == 0
    learn = ["--configs", "fosp_offline", "debug", "--dataset.path", data, "--logdir", run]
    learn += ["--run.eval_every", "4", "--run.heldout_every", "0", "--run.log_every", "2"]
    assert train.main([*learn, "--run.updates", "4"]) == 0
    assert train.main([*learn, "--run.updates", "6", "--run.eval_every", "0"]) == 0
    play = ["--logdir", run, "--episodes", "2", "--videos", "1", "--task", TASK]
    play += ["--workers", "1"]  # so that an episode is the same alone
    assert evaluation_command.main(play) == 0
    return place


@pytest.fixture
def evaluation(job: Path) -> Path:
    (folder,) = (job / "run" / "eval").iterdir()
    return folder


def test_the_dataset_is_valid_and_real(job):
    info = validate_dataset(job / "data.h5")
    assert (info.task, info.cameras, info.action_repeat, info.size) == (TASK, CAMERAS, 4, 64)
    episodes = list(read_episodes(job / "data.h5"))
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.length == STEPS
        assert not episode.terminated
        assert episode.images["vision"].std() > 10
    assert not list(job.glob("*.parts"))


def test_training_evaluates_and_goes_on(job):
    lines = metrics(job / "run")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line for line in lines if "eval/score" in line] == [lines[1]]
    assert lines[1]["eval/length"] == STEPS
    assert np.isfinite(lines[1]["eval/score"])
    assert lines[1]["eval/cost"] >= 0
    assert 0 <= lines[1]["eval/violation_rate"] <= 1
    assert saved(job / "run")["step"] == 6


def test_the_summary_says_everything(job, evaluation):
    assert evaluation.name == "000000006"
    summary = json.loads((evaluation / "summary.json").read_text())
    assert (summary["task"], summary["updates"], summary["episodes"]) == (TASK, 6, 2)
    assert summary["seeds"] == [1000, 1001]
    assert summary["checkpoint"] == str(job / "run")
    assert 0 <= summary["safe_episodes"] <= 1
    for name in ("return", "cost", "length", "violation_rate"):
        assert summary[name].keys() == {"mean", "std", "ci95"}
        low, high = summary[name]["ci95"]
        assert low <= summary[name]["mean"] <= high
    assert summary["versions"]["safety-gymnasium"] == "1.0.0"
    rows = [json.loads(line) for line in (evaluation / "episodes.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [1000, 1001]
    assert [row["length"] for row in rows] == [STEPS, STEPS]
    scores = [row["score"] for row in rows]
    assert summary["return"]["mean"] == pytest.approx(np.mean(scores))
    assert scores[0] != scores[1]


def test_the_video_can_be_watched(evaluation):
    (file,) = (evaluation / "videos").iterdir()
    with av.open(str(file)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert float(video.streams.video[0].average_rate) == 12.5
    assert len(frames) == STEPS
    height, width, _ = frames[0].shape
    assert (width, height > 256) == (3 * 256, True)
    for begin in (0, 256, 512):  # overhead, front and back are images, and no two alike
        assert frames[0][:256, begin : begin + 256].std() > 5
    front, back = frames[0][:256, 256:512].astype(int), frames[0][:256, 512:].astype(int)
    assert np.abs(front - back).mean() > 1
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 1
    assert frames[0][260:].max() > 200  # the overlay's letters


def test_the_same_seed_is_the_same_episode(job, evaluation):
    """In a new environment, and whatever was played before."""
    again = job / "again"
    argv = ["--checkpoint", str(job / "run" / "checkpoints" / "step_000000006.pt")]
    argv += ["--episodes", "1", "--seed", "1001", "--videos", "0", "--out", str(again)]
    argv += ["--workers", "1"]
    assert evaluation_command.main(argv) == 0
    wanted = (evaluation / "episodes.jsonl").read_text().splitlines()[1]
    assert (again / "episodes.jsonl").read_text().splitlines() == [wanted]
    assert not (again / "videos").exists()


def test_an_exported_agent_plays_too(job, monkeypatch, capsys):
    monkeypatch.chdir(job)
    assert export.main(["run", "--out", "agents/mine.pt"]) == 0
    argv = ["--checkpoint", "agents/mine.pt", "--episodes", "1", "--videos", "0"]
    assert evaluation_command.main(argv) == 0
    folder = Path("logdir/mine/eval/000000006")
    assert f"summary.json: {folder / 'summary.json'}\n" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["task"], summary["length"]["mean"]) == (TASK, STEPS)
    assert [path.name for path in Path("agents").iterdir()] == ["mine.pt"]
