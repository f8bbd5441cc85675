"""Episodes in several processes at once: those of one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dreamer.envs.counting import CountingEnv
from dreamer.envs.parallel import ParallelEnvs
from dreamer.training.evaluation import EpisodeResult, Moment, run_episode
from dreamer.training.parallel_evaluation import PlannedEpisode, play_together
from fosp_ext.policy_set import choosing_policy
from tests.support.agents import INFO, make_agent, make_config

CPU = torch.device("cpu")
DEADLY = 666  # the first episode in this world kills its process in its second step


class SeededEnv(CountingEnv):
    """Episodes of 3 to 5 steps, as their seed says; the reward is the sum of the action."""

    def __init__(self, folder: Path) -> None:
        super().__init__(9, None, INFO.cameras, INFO.size, INFO.action_size)
        self.killed = folder / "killed"

    def reset(self, *, seed=None, options=None):
        self.seed, self.length = seed, 3 + seed % 3
        return super().reset(seed=seed)

    def step(self, action):
        if self.seed == DEADLY and self.count == 1 and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        obs, _, terminated, truncated, info = super().step(action)
        info["success"] = self.seed % 2 == 0 and self.count == 2
        return obs, float(action.sum()), terminated, truncated, info


class Notes:
    """A spectator that keeps what it saw."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.frames: list[int] = []

    def __call__(self, env, moment: Moment) -> None:
        self.moments.append(moment)
        self.frames.append(int(env.render()[0, 0, 0]))


@pytest.fixture(scope="module")
def envs(tmp_path_factory) -> Iterator[ParallelEnvs]:
    """Two for all tests here: they take seconds to start."""
    warned: list[str] = []
    make = partial(SeededEnv, tmp_path_factory.mktemp("envs"))
    with ParallelEnvs(make, 2, warned.append) as envs:
        yield envs
    assert len(warned) == 1, "one process died, once"


def played(envs: ParallelEnvs, plans: list[PlannedEpisode]) -> tuple[list, list[int]]:
    """Result and notes of each episode, and the order in which they ended."""
    ended = {}

    def finished(number: int, result: EpisodeResult, watched: Notes | None) -> None:
        assert number not in ended
        ended[number] = (result, watched)

    play_together(envs, plans, CPU, finished)
    return [ended[number] for number in range(len(plans))], list(ended)


def test_episodes_are_those_of_one_after_the_other(envs, tmp_path):
    """Up to the rounding of a product of two rows; two agents play, and more than fit at once."""
    agents = [make_agent(precision="float32"), make_agent("bc", precision="float32")]
    plans = [PlannedEpisode(agents[k % 2], 11 + k, Notes) for k in range(5)]
    before = torch.get_rng_state()
    found, order = played(envs, plans)
    assert torch.equal(torch.get_rng_state(), before)
    assert order != sorted(order)
    assert [result.success for result, _ in found] == [False, True, False, True, False]
    env = SeededEnv(tmp_path)
    for (result, notes), plan in zip(found, plans, strict=True):
        expected = Notes()
        alone = run_episode(plan.agent, env, plan.seed, CPU, expected)
        assert result.score == pytest.approx(alone.score, rel=1e-4, abs=1e-5)
        assert replace(result, score=alone.score) == alone
        assert notes.frames == expected.frames
        for one, other in zip(notes.moments, expected.moments, strict=True):
            assert (one.step, one.cost) == (other.step, other.cost)
            assert one.estimates == pytest.approx(other.estimates, rel=1e-4, abs=1e-5)


def test_chance_is_that_of_each_seed(envs, tmp_path):
    """Draws of z, of proposals and of look-aheads; not of the episodes beside it."""
    words = {"policy_set__proposals": "3", "policy_set__score": "rollout"}
    choice = make_config("fosp_online", "debug", policy_set__draws="2", **words).policy_set
    agents = [
        make_agent(world_model__rssm__read="sample", precision="float32"),
        choosing_policy(make_agent(precision="float32"), choice),
    ]
    env = SeededEnv(tmp_path)
    for agent in agents:
        plans = [PlannedEpisode(agent, seed, Notes) for seed in (4, 5, 6)]
        found, _ = played(envs, plans)
        again, _ = played(envs, plans)
        for (_, notes), (_, same), plan in zip(found, again, plans, strict=True):
            expected = Notes()
            run_episode(agent, env, plan.seed, CPU, expected)
            for one, other, third in zip(
                notes.moments, expected.moments, same.moments, strict=True
            ):
                assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-4)
                assert (one.score, one.estimates) == (third.score, third.estimates)


def test_an_episode_whose_process_dies_is_begun_again(envs):
    plans = [PlannedEpisode(make_agent(), seed, Notes) for seed in (DEADLY, 4, 5)]
    found, _ = played(envs, plans)
    assert [result.seed for result, _ in found] == [DEADLY, 4, 5]
    assert [result.length for result, _ in found] == [3, 4, 5]
    assert [notes.frames for _, notes in found] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
