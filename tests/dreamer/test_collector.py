from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch

from dreamer.agent import AgentState
from dreamer.envs.counting import CountingEnv
from dreamer.envs.parallel import ParallelEnvs
from dreamer.errors import NonFiniteError, UserError
from dreamer.training.checkpoint import _check_plain, rng_state, set_rng_state
from dreamer.training.collector import CollectedEpisode, Collector
from dreamer.types import Latent
from dreamer.utils import seed_everything
from fosp_ext.envs import make_env
from tests.support.agents import make_agent
from tests.support.envs import SeededEnv

CPU = torch.device("cpu")
WORKERS = 2


class Teller:
    """Stand-in for an agent: action and estimates encode the image and the state they are from."""

    def initial(self, count: int) -> AgentState:
        none = torch.full((count, 1), 7.0)  # must be masked by is_first
        return AgentState(Latent(none, none.unsqueeze(-1)), torch.zeros(count, 2))

    def act(self, obs, is_first, state, explore):
        assert explore
        asked = state.latent.deter[:, 0] * (1 - is_first)  # actions of this episode so far
        estimates = {"seen": obs["vision"][:, 0, 0, 0], "behind": obs["vision_back"][:, 1, 1, 1]}
        action = torch.stack([estimates["seen"] / 100, -asked / 50], 1)
        latent = Latent((asked + 1).unsqueeze(1), state.latent.stoch)
        return action, AgentState(latent, action), estimates


def fail(line: str) -> None:
    raise AssertionError(f"unexpected warning: {line}")


def start(envs: ParallelEnvs, seed: int = 3, agent=None, warn: Callable[[str], None] = fail):
    """A collector of the debug agent with all generators seeded."""
    agent = agent or make_agent()
    seed_everything(seed)
    return Collector(envs, agent, seed, CPU, warn)


def play(collector: Collector, steps: int) -> list[CollectedEpisode]:
    return [played for _ in range(steps) for played in collector.step()]


def saved(state: dict) -> dict:
    """Through a file, as a checkpoint would."""
    _check_plain(state, "state")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one: CollectedEpisode, other: CollectedEpisode) -> bool:
    """Whether every number of two collected episodes is equal, bit for bit."""
    a, b = one.episode, other.episode
    facts = [
        (x.worker, x.episode.seed, x.episode.terminated, x.episode.policy) for x in (one, other)
    ]
    pairs = [(a.action, b.action), (a.reward, b.reward), (a.cost, b.cost)]
    pairs += [(a.images[name], b.images[name]) for name in a.images]
    pairs += [(one.estimates[name], other.estimates[name]) for name in one.estimates]
    keys = a.images.keys() == b.images.keys() and one.estimates.keys() == other.estimates.keys()
    arrays = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
    return facts[0] == facts[1] and keys and arrays


def assert_same(ones: list[CollectedEpisode], others: list[CollectedEpisode]) -> None:
    assert len(ones) == len(others) > 0
    assert all(same(one, other) for one, other in zip(ones, others, strict=True))


@pytest.fixture(scope="module")
def envs() -> Iterator[ParallelEnvs]:
    """Shared: a new collector begins with a reset, so it does not matter who played before."""
    with ParallelEnvs(SeededEnv, WORKERS, fail) as envs:
        yield envs


def kill(envs: ParallelEnvs, worker: int) -> None:
    """As the system does when memory runs out."""
    process = envs._workers[worker].process
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def seeds_of(played: list[CollectedEpisode], worker: int) -> list[int]:
    return [each.episode.seed for each in played if each.worker == worker]


# --- what an episode holds ---


def test_every_row_of_an_episode_holds_the_action_at_its_image():
    with ParallelEnvs(partial(CountingEnv, length=6, size=8), WORKERS, fail) as envs:
        collector = start(envs, agent=Teller())
        assert collector.agent_steps == 0
        assert play(collector, 5) == []
        assert [each.worker for each in collector.step()] == [0, 1]
        played = play(collector, 6)
    assert [each.worker for each in played] == [0, 1]
    assert collector.agent_steps == 12 * WORKERS
    for each in played:
        episode, counts = each.episode, np.arange(7)
        assert (episode.policy, episode.terminated, episode.length) == ("agent", False, 6)
        for camera, name in enumerate(("vision", "vision_back")):
            assert episode.images[name].shape == (7, 8, 8, 3)
            assert (episode.images[name][:, 3, 3, 0] == counts + 100 * camera).all()
        assert episode.reward.tolist() == [1, 2, 3, 4, 5, 6]
        assert episode.cost.tolist() == [0, 0, 1, 0, 0, 1]
        asked = counts[:6].astype(np.float32)
        assert np.array_equal(episode.action, np.stack([asked / 100, -asked / 50], 1))
        assert each.estimates.keys() == {"seen", "behind"}
        assert np.array_equal(each.estimates["seen"], asked)
        assert np.array_equal(each.estimates["behind"], asked + 100)
        assert {x.dtype for x in each.estimates.values()} == {np.dtype(np.float32)}


def test_every_episode_has_a_world_of_its_own(envs):
    played = play(start(envs), 40)
    seeds = {worker: seeds_of(played, worker) for worker in range(WORKERS)}
    assert min(map(len, seeds.values())) >= 3
    everything = seeds[0] + seeds[1]
    assert len(set(everything)) == len(everything)
    assert all(0 <= seed < 2**31 for seed in everything)
    for worker, own in seeds.items():
        draws = [np.random.SeedSequence([3, worker, k]).generate_state(1)[0] for k in range(99)]
        assert own == [int(draw) >> 1 for draw in draws[: len(own)]]
    for each in played:  # and that is where it was played
        seed, episode = each.episode.seed, each.episode
        assert (episode.length, episode.terminated) == (5 + seed % 7, seed % 2 == 1)
        assert each.estimates.keys() >= {"value", "cost_value", "violation_probability"}
        assert all(x.shape == (episode.length,) for x in each.estimates.values())


def test_the_seed_decides_everything_and_saving_disturbs_nothing(envs):
    one, collector, again = play(start(envs), 25), start(envs), []
    for _ in range(25):
        again += collector.step()
        collector.state_dict()
    assert_same(one, again)
    assert collector.agent_steps == 25 * WORKERS
    other = play(start(envs, seed=4), 25)
    assert not {each.episode.seed for each in one} & {each.episode.seed for each in other}


# --- going on from a saved state ---


def test_a_continued_collector_plays_the_same_episodes(envs):
    straight = start(envs)
    ended = [straight.step() for _ in range(60)]  # what each step ended
    uneven = next(k for k in range(30, 60) if len(ended[k - 1]) == 1)  # then one has no episode
    collector, states = start(envs), {}
    for k in range(1, uneven + 1):
        collector.step()
        if k in (25, uneven):
            states[k] = saved({"collector": collector.state_dict(), "rng": rng_state()})
    assert None not in states[25]["collector"]["running"]
    assert states[uneven]["collector"]["running"].count(None) == 1
    with ParallelEnvs(SeededEnv, WORKERS, fail) as new_envs:
        for k, state in states.items():
            collector = start(new_envs)
            collector.load_state_dict(state["collector"])
            torch.rand(5)  # meanwhile the new process has drawn something else
            set_rng_state(state["rng"])
            assert collector.agent_steps == k * WORKERS
            assert_same(play(collector, 60 - k), list(itertools.chain(*ended[k:])))


def test_a_state_loaded_and_saved_is_the_same_state(envs):
    collector = start(envs)
    play(collector, 3)
    state = saved(collector.state_dict())
    other = start(envs)
    other.load_state_dict(state)
    assert repr(other.state_dict()) == repr(state)


def test_an_episode_that_comes_out_differently_is_dropped(envs):
    warnings = []
    collector = start(envs)
    play(collector, 3)
    state = saved(collector.state_dict())
    seed = state["running"][1]["seed"]
    state["running"][1]["earned"][0, 2] += 1e-9  # the reward of its third step
    expected = play(collector, 30)
    collector = start(envs, warn=warnings.append)
    collector.load_state_dict(state)
    (line,) = warnings
    assert line.startswith(f"environment 1: its running episode (world seed {seed}) came out diff")
    played = play(collector, 30)
    assert seeds_of(played, 0)[:2] == seeds_of(expected, 0)[:2]
    assert seeds_of(expected, 1)[0] == seed
    assert seeds_of(played, 1)[:2] == seeds_of(expected, 1)[1:3]


def test_without_replay_running_episodes_are_dropped_and_nothing_is_played(envs, monkeypatch):
    collector = start(envs)
    play(collector, 3)
    state, lines = collector.state_dict(), []
    monkeypatch.setattr(envs, "replay", lambda recorded: pytest.fail("nothing may be played"))
    later = start(envs, warn=lines.append)
    later.load_state_dict(state, replay=False)
    assert len(lines) == WORKERS
    assert all("is dropped" in line for line in lines)
    assert later.agent_steps == collector.agent_steps
    later.step()
    seeds = [running["seed"] for running in later.state_dict()["running"]]
    assert set(seeds).isdisjoint(running["seed"] for running in state["running"])


def test_numbers_that_are_not_finite_are_named():
    class Lost(Teller):
        def act(self, obs, is_first, state, explore):
            action, state, estimates = super().act(obs, is_first, state, explore)
            return action, state, {**estimates, "behind": estimates["behind"] * torch.nan}

    with ParallelEnvs(partial(CountingEnv, size=8), 1, fail) as envs:
        collector = start(envs, agent=Lost())
        with pytest.raises(NonFiniteError, match=r"^not finite while acting: behind$"):
            collector.step()


def test_an_episode_that_ends_sooner_is_dropped():
    warnings = []
    with ParallelEnvs(partial(CountingEnv, length=9, size=8), 1, fail) as envs:
        collector = start(envs, agent=Teller())
        play(collector, 4)
        state = collector.state_dict()
    with ParallelEnvs(partial(CountingEnv, length=4, size=8), 1, fail) as envs:
        collector = start(envs, agent=Teller(), warn=warnings.append)
        collector.load_state_dict(state)
        assert len(warnings) == 1
        (played,) = play(collector, 4)
    assert played.episode.images["vision"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert collector.agent_steps == 8


def test_another_number_of_environments_is_refused(envs):
    state = start(envs).state_dict()
    state["numbers"] = [0, 0, 0]
    with pytest.raises(UserError, match="plays 3 environments at once, this one 2"):
        start(envs).load_state_dict(state)


# --- a worker that dies ---


def test_the_episode_of_a_killed_worker_is_dropped(envs):
    straight = play(start(envs), 30)
    warnings = []
    with ParallelEnvs(SeededEnv, WORKERS, warnings.append) as fragile:
        collector = start(fragile)
        assert play(collector, 3) == []
        kill(fragile, 1)
        assert collector.step() == []
        assert collector.agent_steps == 3 * WORKERS + 1
        played = play(collector, 26)
    assert len(warnings) == 1
    assert collector.agent_steps == 30 * WORKERS - 1
    assert seeds_of(played, 1)[:2] == seeds_of(straight, 1)[1:3]
    assert_same(*([each for each in them if each.worker == 0] for them in (straight, played)))


def test_a_worker_may_die_in_a_reset_or_while_it_plays_again(envs):
    straight, warnings = start(envs), []
    play(straight, 3)
    state, expected = saved(straight.state_dict()), play(straight, 30)
    with ParallelEnvs(SeededEnv, WORKERS, warnings.append) as fragile:
        collector, played = start(fragile), []
        kill(fragile, 0)
        collector.load_state_dict(state)  # without 0, which goes on with its second episode
        while not seeds_of(played, 1):
            played = collector.step()
        kill(fragile, 1)
        played += play(collector, 25)  # 1 dies in the reset of its second and plays its third
    assert [line[:13] for line in warnings] == ["environment 0", "environment 1"]
    assert seeds_of(played, 0)[:2] == seeds_of(expected, 0)[1:3]
    assert seeds_of(played, 1)[:2] == seeds_of(expected, 1)[0:3:2]


# --- the real simulator ---


@pytest.mark.sim
def test_going_on_in_the_real_simulator():
    make = partial(make_env, "SafetyPointGoal1-v0", action_repeat=100)  # ten steps an episode
    with ParallelEnvs(make, 1, fail) as envs:
        collector = start(envs)
        assert play(collector, 4) == []
        state = saved({"collector": collector.state_dict(), "rng": rng_state()})
        expected = play(collector, 8)
    with ParallelEnvs(make, 1, fail) as envs:
        collector = start(envs)
        collector.load_state_dict(state["collector"])
        set_rng_state(state["rng"])
        assert_same(play(collector, 8), expected)
    (played,) = expected
    assert played.episode.images["vision"].shape == (11, 64, 64, 3)
    assert len(np.unique(played.episode.reward)) == 10, "something happens"
