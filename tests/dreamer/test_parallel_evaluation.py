"""Episodes in several processes at once: those of one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from dreamer.envs.counting import CountingEnv
from dreamer.envs.parallel import ParallelEnvs
from dreamer.training.evaluation import EpisodeResult, Moment, run_episode
from dreamer.training.parallel_evaluation import PlannedEpisode, play_together
from tests.support.agents import INFO, make_agent

CPU = torch.device("cpu")
DEADLY = 666  # the first episode in this world kills its process in its second step


class SeededEnv(CountingEnv):
    """Episodes of 3 to 5 steps, as their seed says."""

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
        return super().step(action)


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
    env = SeededEnv(tmp_path)
    for (result, notes), plan in zip(found, plans, strict=True):
        expected = Notes()
        assert result == run_episode(plan.agent, env, plan.seed, CPU, expected)
        assert notes.frames == expected.frames
        for one, other in zip(notes.moments, expected.moments, strict=True):
            assert (one.step, one.score, one.cost) == (other.step, other.score, other.cost)
            assert one.estimates == pytest.approx(other.estimates, rel=1e-4, abs=1e-5)


def test_the_same_number_of_processes_gives_the_same_numbers(envs):
    agent = make_agent(world_model__rssm__read="sample")  # else nothing is left to chance
    plans = [PlannedEpisode(agent, seed, Notes) for seed in (4, 5, 6)]
    runs = []
    for _ in range(2):
        found, _ = played(envs, plans)
        runs.append([[moment.estimates for moment in notes.moments] for _, notes in found])
        torch.rand(3)  # what is drawn in between does not matter
    assert runs[0] == runs[1]


def test_an_episode_whose_process_dies_is_begun_again(envs):
    plans = [PlannedEpisode(make_agent(), seed, Notes) for seed in (DEADLY, 4, 5)]
    found, _ = played(envs, plans)
    assert [result.seed for result, _ in found] == [DEADLY, 4, 5]
    assert [result.length for result, _ in found] == [3, 4, 5]
    assert [notes.frames for _, notes in found] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
