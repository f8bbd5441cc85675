"""One definition of a violation, and one setting that moves it: `env.violation`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamer.data.episode import Episode
from dreamer.envs.counting import CountingEnv
from dreamer.functional import violates
from dreamer.training.collector import CollectedEpisode
from dreamer.training.evaluation import run_episode
from fosp_ext.run.episode_log import describe
from fosp_ext.starts import violation_near
from fosp_ext.transitions import real_transitions
from tests.support.agents import INFO, make_agent, make_batch, make_config

CPU = torch.device("cpu")


def test_a_row_violates_from_the_threshold_on():
    assert violates(np.array([0.0, 0.49, 0.5, 4.0]), 0.5).tolist() == [False, False, True, True]
    assert not violates(0.5, 0.6)
    assert make_config("fosp_offline", "debug").env.violation == 0.5


@pytest.mark.parametrize(("threshold", "expected"), [("2", True), ("2.1", False)])
def test_the_setting_reaches_every_part_that_learns(threshold, expected):
    """Of a batch in which every cost is 0 or 2."""
    agent, batch = make_agent(env__violation=threshold), make_batch()
    latent, metrics = agent.world_model.update(batch)
    rate = (batch.cost == 2).float().mean() if expected else torch.tensor(0.0)
    torch.testing.assert_close(metrics["cost_rate"], rate)
    policy, real = agent.policy, real_transitions(latent, batch)
    found = policy.reachability.recorded_violation(real)
    assert found.equal((real.start_cost == 2).float() * expected)
    assert violation_near(batch, policy.violation, 0).any() == expected


@pytest.mark.parametrize(("threshold", "expected"), [(1.0, 5), (1.1, 0)])
def test_evaluations_and_episode_logs_count_by_it(threshold, expected):
    agent = make_agent("dreamerv3", "debug")
    env = CountingEnv(5, None, INFO.cameras, INFO.size, INFO.action_size)
    env.cost_at = lambda count: 1.0
    assert run_episode(agent, env, 0, CPU, violation=threshold).violations == expected
    images = {name: np.zeros((6, 64, 64, 3), np.uint8) for name in INFO.cameras}
    ones = np.ones(5, np.float32)
    episode = Episode(images, np.zeros((5, 2), np.float32), ones, ones, False)
    played = CollectedEpisode(0, episode, {})
    line = describe(played, 0, 0, 5, warning=0.5, violation=threshold).line
    assert line["violations"] == expected
