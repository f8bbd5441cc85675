"""Collecting datasets: the plan, real recordings in two processes, and going on after a stop."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import dreamer.training.progress
from dreamer.data.hdf5 import read_episodes, validate_dataset
from dreamer.errors import UserError
from dreamer.training.progress import Progress
from fosp_ext.dataset.collect import (
    CollectSettings,
    collect_dataset,
    part_file,
    parts_folder,
    plan_episodes,
)

MIX = {"safe": 0.5, "unsafe": 0.3, "random": 0.2}
SETTINGS = CollectSettings(
    task="SafetyPointGoal1-v0",
    cameras=("vision", "vision_back"),
    size=16,
    action_repeat=40,  # 25 agent steps per episode
    render="fast",
    episodes=3,
    mix={"safe": 0.4, "unsafe": 0.3, "random": 0.3},
    noise=0.2,
    min_speed=0.6,
    workers=2,
    seed=5,
)


def settings(**changes) -> CollectSettings:
    return dataclasses.replace(SETTINGS, **changes)


def test_plan_has_the_mix_exactly_and_is_interleaved():
    plan = plan_episodes(settings(episodes=200, mix=MIX))
    names = [recording.policy for recording in plan]
    assert Counter(names) == {"safe": 100, "unsafe": 60, "random": 40}
    for begin in range(0, 200, 20):
        part = Counter(names[begin : begin + 20])
        for name, share in MIX.items():
            assert abs(part[name] - 20 * share) <= 1
    odd = Counter(r.policy for r in plan_episodes(settings(episodes=7, mix=MIX)))
    assert sum(odd.values()) == 7
    assert odd == {"safe": 4, "unsafe": 2, "random": 1}


def test_plan_is_a_function_of_the_settings():
    many = settings(episodes=50, mix=MIX)
    plan = plan_episodes(many)
    assert plan == plan_episodes(many)
    assert plan != plan_episodes(dataclasses.replace(many, seed=6))
    assert [recording.index for recording in plan] == list(range(50))
    assert len({recording.seed for recording in plan}) == 50
    assert min(recording.seed for recording in plan) >= 1_000_000
    noises, speeds = zip(*((r.noise, r.speed) for r in plan), strict=True)
    assert 0 <= min(noises) < 0.05 < 0.15 < max(noises) <= 0.2
    assert 0.6 <= min(speeds) < 0.7 < 0.9 < max(speeds) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mix": {"safe": 0.5, "random": 0.4}}, "sum to 1.*0.9"),
        ({"mix": {"saef": 1.0}}, "'saef'.*did you mean 'safe'"),
        ({"mix": {"safe": 1.5, "random": -0.5}}, "share of 'random' must not be negative"),
        ({"task": "SafetyPointGaol1-v0"}, "did you mean 'SafetyPointGoal1-v0'"),
        ({"task": "SafetyCarPush1-v0"}, r"no policy 'safe' for .*CarPush1.*available: random"),
        ({"cameras": ("visoin",)}, "did you mean 'vision'"),
        ({"render": "nice"}, "render must be one of fast, exact"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"min_speed": 0.0}, "min_speed must lie above 0"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"field_of_view": "eyes"}, "field_of_view must be one of cameras, all, got 'eyes'"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        settings(**change)


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        collect_dataset(path, SETTINGS)
    assert path.read_text() == "precious"
    assert not parts_folder(path).exists()


def test_progress_writes_lines_where_there_is_no_terminal(monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 8.0])
    monkeypatch.setattr(dreamer.training.progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress("recording", 4, "episodes", stream, done=1) as progress:
        for _ in range(3):
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "recording: 3/4 episodes, 0.33 per second, 0:03 left",
        "recording: 4/4 episodes, 0.38 per second, 0:00 left",
    ]


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset of three short episodes, and a copy of its parts as they were before the merge."""
    path = tmp_path_factory.mktemp("collect") / "data.hdf5"
    kept = path.with_name("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fosp_ext.dataset.collect.shutil.rmtree", lambda parts: parts.rename(kept))
        collect_dataset(path, SETTINGS, io.StringIO())
    return path, kept


@pytest.mark.sim
def test_collected_file_follows_the_plan(collected):
    path, _ = collected
    info = validate_dataset(path)
    assert (info.task, info.cameras, info.size) == (SETTINGS.task, SETTINGS.cameras, 16)
    episodes, plan = list(read_episodes(path)), plan_episodes(SETTINGS)
    assert [episode.policy for episode in episodes] == [job.policy for job in plan]
    assert [episode.seed for episode in episodes] == [job.seed for job in plan]
    for episode in episodes:
        assert episode.action.shape == (25, 2)
        assert episode.images["vision_back"].shape == (26, 16, 16, 3)
        assert len(np.unique(episode.images["vision"])) > 10
        assert not episode.terminated
    scores = {episode.policy: episode.score for episode in episodes}
    assert scores["safe"] > scores["random"]


@pytest.mark.sim
def test_a_stopped_collection_records_only_what_is_missing(collected, tmp_path):
    path, kept = collected
    again = tmp_path / "data.hdf5"
    parts = parts_folder(again)
    parts.mkdir()
    plan = plan_episodes(SETTINGS)
    for file in kept.iterdir():
        (parts / file.name).write_bytes(file.read_bytes())
    part_file(parts, plan[1]).unlink()
    stream = io.StringIO()
    with pytest.raises(UserError, match=r"unfinished collection with seed 5, not 6.*remove"):
        collect_dataset(again, settings(seed=6))
    collect_dataset(again, settings(workers=1), stream)
    assert not parts.exists()
    recorded = [line for line in stream.getvalue().splitlines() if line.startswith("recording")]
    assert len(recorded) == 1  # one line: the last of three episodes was the only one to record
    assert recorded[0].startswith("recording: 3/3 episodes")
    for one, other in zip(read_episodes(path), read_episodes(again), strict=True):
        for camera in SETTINGS.cameras:
            np.testing.assert_array_equal(one.images[camera], other.images[camera])
        np.testing.assert_array_equal(one.action, other.action)
        np.testing.assert_array_equal(one.reward, other.reward)
        np.testing.assert_array_equal(one.cost, other.cost)


def test_failing_to_write_keeps_the_parts_and_says_so(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fosp_ext.dataset.collect._record_missing", full_disk)
    path = tmp_path / "data.hdf5"
    with pytest.raises(UserError, match=r"No space left on device.*kept in .*parts.*continue"):
        collect_dataset(path, SETTINGS)
    assert parts_folder(path).is_dir()
    assert not path.exists()


def test_workers_need_no_torch():
    code = "import sys, fosp_ext.dataset.collect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
