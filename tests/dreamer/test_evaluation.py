"""Episodes of an agent in the counting environment, and the numbers and videos made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.envs.counting import CountingEnv
from dreamer.training.evaluation import (
    EpisodeResult,
    Moment,
    VideoRecorder,
    means,
    result_row,
    run_episode,
    share,
    spread,
    summarize,
)
from fosp_ext.run.evaluate import default_folder, print_summary
from tests.support.agents import INFO, make_agent

CPU = torch.device("cpu")


class NotingEnv(CountingEnv):
    """Also remembers the actions it was given."""

    def __init__(self, length: int = 10, end: int | None = None) -> None:
        super().__init__(length, end, INFO.cameras, INFO.size, INFO.action_size)
        self.actions: list[np.ndarray] = []

    def step(self, action):
        self.actions.append(action)
        return super().step(action)


@pytest.fixture(scope="module")
def agent():
    return make_agent()


# Numbers


def test_spread_by_hand():
    row = spread([1, 2, 3, 4])
    assert row["mean"] == 2.5
    assert row["std"] == pytest.approx((5 / 3) ** 0.5)
    # 256 equally likely resamples: 1 of them has mean 1, 4 have 1.25, 10 have 1.5; 2.5 % is 6.4
    assert row["ci95"] == [1.5, 3.5]
    assert spread([7.0]) == {"mean": 7.0, "std": 0.0, "ci95": [7.0, 7.0]}
    coins = spread([0.0, 1.0] * 200)
    assert coins["ci95"] == pytest.approx([0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], abs=0.004)


def test_summary_by_hand():
    summary = summarize(
        [
            EpisodeResult(seed=5, score=2.0, cost=0.0, length=10, violations=0, terminated=False),
            EpisodeResult(seed=6, score=4.0, cost=6.0, length=20, violations=5, terminated=True),
        ]
    )
    assert (summary["episodes"], summary["seeds"], summary["safe_episodes"]) == (2, [5, 6], 0.5)
    means = {"return": 3.0, "cost": 3.0, "length": 15.0, "violation_rate": 0.125}
    assert {name: summary[name]["mean"] for name in means} == means
    assert summary["return"]["std"] == pytest.approx(2**0.5)
    assert summary["return"]["ci95"] == [2.0, 4.0]


def test_shares_of_success_have_wilson_intervals():
    """Where all episodes say whether they succeeded; a safe success has no cost at all."""
    common = {"score": 1.0, "length": 10, "terminated": True}
    results = [
        EpisodeResult(0, cost=0.0, violations=0, success=True, **common),
        EpisodeResult(1, cost=3.0, violations=3, success=True, **common),
        EpisodeResult(2, cost=0.25, violations=0, success=True, **common),
        EpisodeResult(3, cost=0.0, violations=0, success=False, **common),
    ]
    summary = summarize(results)
    means = {"success": 0.75, "violating_episodes": 0.25, "safe_success": 0.25}
    assert {name: summary[name]["mean"] for name in means} == means
    assert summary["success"]["ci95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert result_row(results[3])["success"] is False
    unsaid = EpisodeResult(4, cost=0.0, violations=0, **common)
    assert "success" not in summarize([*results, unsaid])
    assert "success" not in result_row(unsaid)


def test_intervals_of_certain_shares_have_a_width():
    assert share([True] * 100) == {"mean": 1.0, "ci95": pytest.approx([0.9630, 1.0], abs=1e-4)}
    assert share([False] * 100)["ci95"] == pytest.approx([0.0, 0.0370], abs=1e-4)


# Episodes


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (None, EpisodeResult(3, score=55, cost=3, length=10, violations=3, terminated=False)),
        (7, EpisodeResult(3, score=28, cost=2, length=7, violations=2, terminated=True)),
    ],
)
def test_an_episode_is_counted_right(agent, end, expected):
    result = run_episode(agent, NotingEnv(end=end), 3, CPU)
    assert result == expected
    assert result_row(result)["violations"] == expected.violations


def test_the_seed_decides_the_episode_and_nothing_else_moves():
    agent = make_agent(world_model__rssm__read="sample")  # else nothing is left to chance
    env, before = NotingEnv(), torch.get_rng_state()
    for seed in (1, 1, 2):
        run_episode(agent, env, seed, CPU)
        torch.rand(seed)  # what is drawn in between does not matter
    torch.set_rng_state(before)
    run_episode(agent, env, 1, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other, last = np.array(env.actions).reshape(4, 10, 2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, last)
    assert np.any(first != other)
    assert first.dtype == np.float32


def test_the_spectator_sees_each_image_before_the_next_action(agent):
    moments: list[Moment] = []
    run_episode(agent, NotingEnv(), 0, CPU, lambda _, moment: moments.append(moment))
    assert [moment.step for moment in moments] == list(range(10))
    for n, moment in enumerate(moments):
        for camera, name in enumerate(INFO.cameras):
            assert np.all(moment.obs[name] == CountingEnv.pixel(n, camera))
        assert moment.score == sum(CountingEnv.reward_at(k) for k in range(1, n + 1))
        assert moment.cost == sum(CountingEnv.cost_at(k) for k in range(1, n + 1))
        assert moment.estimates.keys() == {"value", "cost_value", "violation_probability"}
        assert 0 <= moment.estimates["violation_probability"] <= 1


def test_the_agent_gets_its_state_back_and_a_first_flag_once():
    class Noting:
        def __init__(self) -> None:
            self.asked: list[tuple] = []

        def initial(self, count: int) -> int:
            return 0

        def act(self, obs, is_first, state, explore):
            pixel = int(obs["vision"][0, 0, 0, 0])
            self.asked.append((pixel, float(is_first), state, explore))
            return torch.full((1, 2), 0.5), state + 1, {}

    agent = Noting()
    for _ in range(2):
        run_episode(agent, NotingEnv(length=3), 0, CPU)
    episode = [(0, 1.0, 0, False), (1, 0.0, 1, False), (2, 0.0, 2, False)]
    assert agent.asked == episode * 2


def test_means_over_seeds(agent):
    assert means([run_episode(agent, NotingEnv(), seed, CPU) for seed in range(2)]) == {
        "score": 55.0,
        "cost": 3.0,
        "length": 10.0,
        "violation_rate": pytest.approx(0.3),
        "safe_episodes": 0.0,
    }


# Videos and folders


def test_a_video_has_overhead_and_cameras_side_by_side(agent):
    video = VideoRecorder()
    run_episode(agent, NotingEnv(length=4), 0, CPU, video)
    frames = video.stack()
    text = frames.shape[1] - VideoRecorder.SIDE
    assert frames.shape == (4, VideoRecorder.SIDE + text, 3 * VideoRecorder.SIDE, 3)
    assert frames.dtype == np.uint8
    assert 20 < text < 60
    for n, frame in enumerate(frames):
        views = np.split(frame[: VideoRecorder.SIDE], 3, axis=1)
        for view, camera in zip(views, (0, 0, 1), strict=True):  # overhead has camera 0's colour
            assert np.all(view == CountingEnv.pixel(n, camera))
        assert frame[VideoRecorder.SIDE :].max() > 200  # letters


def test_where_evaluations_go(tmp_path):
    """Beside a run's checkpoints, but never beside a file that lies alone."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    wanted = run / "eval" / "000000007"
    assert default_folder(run, 7) == wanted
    assert default_folder(run / "checkpoints" / "step_000000007.pt", 7) == wanted
    assert default_folder(tmp_path / "alone.pt", 7) == Path("logdir/alone/eval/000000007")


def test_the_summary_names_only_what_was_written():
    result = EpisodeResult(seed=0, score=1.5, cost=2.0, length=10, violations=2, terminated=False)
    summary = {**summarize([result]), "task": "T", "variant": "none", "updates": 7}
    stream = io.StringIO()
    print_summary(summary, Path("nowhere"), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "T, 7 updates, 1 episodes"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["return", "1.500"],
        ["cost", "2.000"],
        ["length", "10.000"],
        ["violation_rate", "0.200"],
        ["safe_episodes", "0.000"],
    ]
