"""Proposals judged by open-loop rollouts over several draws of the state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.distributions import Normal
from dreamer.types import Latent
from dreamer.world_model import Prediction
from fosp_ext.lookahead import action_sequences, look_ahead
from tests.support.agents import INFO
from tests.support.policy_sets import as_latent, disagreeing, features

N, P, H, DRAWS, A = 5, 4, 3, 6, INFO.action_size
GAMMA = 0.9


def states(agent: Agent, count: int = N) -> Latent:
    """Made-up states as they are seen: z is a probability."""
    latent = as_latent(agent, features(agent, count))
    return Latent(latent.deter.tanh(), latent.stoch.softmax(-1))


def proposals(seed: int = 1) -> Tensor:
    """(N, P, A) in [-1, 1]."""
    return torch.rand(N, P, A, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Ledger:
    """Stands in for the RSSM: `deter` sums what was done and `stoch` is drawn, each time anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agent: Agent, cont: float = 1.0) -> None:
        self.agent, self.drawn = agent, []

        def prior_step(state: Latent, action: Tensor) -> Latent:
            self.drawn.append(state.stoch)
            return Latent(state.deter + action.sum(-1, keepdim=True), state.stoch * 0 + 0.25)

        def predict(feat: Tensor) -> Prediction:
            nothing = torch.zeros(feat.shape[:-1])
            return Prediction(feat[..., 0], 2 * feat[..., 0], nothing, nothing + cont)

        monkeypatch.setattr(agent.world_model.rssm, "prior_step", prior_step)
        monkeypatch.setattr(agent.world_model, "predict", predict)


def test_the_sums_by_hand(monkeypatch):
    """Rewards are what was done so far, costs twice that, values 7 and 11."""
    agent = disagreeing()
    Ledger(monkeypatch, agent)
    latent = states(agent)._replace(deter=torch.zeros(N, 16))
    actions = torch.rand(N, P, H, A)
    gain, cost = look_ahead(
        agent.world_model, latent, actions, DRAWS,
        lambda feat: torch.full(feat.shape[:-1], 7.0),
        lambda feat: torch.full(feat.shape[:-1], 11.0),
        GAMMA,
    )  # fmt: skip
    done = actions.sum(3).cumsum(2)  # (N, P, H)
    weights = GAMMA ** torch.arange(H)
    expected = (weights * done).sum(2)
    assert gain.shape == cost.shape == (N, P, DRAWS)
    for draw in range(DRAWS):
        torch.testing.assert_close(gain[:, :, draw], expected + GAMMA**H * 7)
        torch.testing.assert_close(cost[:, :, draw], 2 * expected + GAMMA**H * 11)


def test_after_the_end_of_an_episode_nothing_counts(monkeypatch):
    agent = disagreeing()
    Ledger(monkeypatch, agent, cont=0.0)
    latent = states(agent)._replace(deter=torch.zeros(N, 16))
    actions = torch.rand(N, P, H, A)
    gain, _ = look_ahead(
        agent.world_model, latent, actions, 1, lambda feat: feat[..., 0], lambda feat: feat[..., 0],
        GAMMA,
    )  # fmt: skip
    torch.testing.assert_close(gain[:, :, 0], actions[:, :, 0].sum(2))


def test_all_sequences_meet_the_same_draws_and_draws_differ(monkeypatch):
    agent = disagreeing()
    ledger = Ledger(monkeypatch, agent)
    look_ahead(
        agent.world_model, states(agent), torch.rand(N, P, H, A), DRAWS,
        lambda feat: feat[..., 0], lambda feat: feat[..., 0], GAMMA,
    )  # fmt: skip
    assert len(ledger.drawn) == H
    for stoch in ledger.drawn:
        assert stoch.shape[:3] == (N, P, DRAWS)
        assert set(stoch.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(stoch, stoch[:, :1].expand_as(stoch)), "every proposal"
        assert not torch.equal(stoch[:, :, 0], stoch[:, :, 1])


def test_draws_follow_the_probabilities(monkeypatch):
    agent = disagreeing()
    ledger = Ledger(monkeypatch, agent)
    latent = states(agent, 1)
    look_ahead(
        agent.world_model, latent, torch.zeros(1, 1, 1, A), 20_000,
        lambda feat: feat[..., 0], lambda feat: feat[..., 0], GAMMA,
    )  # fmt: skip
    torch.testing.assert_close(ledger.drawn[0].mean(2)[0, 0], latent.stoch[0], atol=0.015, rtol=0)


@torch.no_grad()
def test_sequences_are_made_once_without_chance():
    """The same whatever random numbers come, and each policy goes on with its own proposals."""
    agent = disagreeing()
    latent, first = states(agent), proposals()
    actors = (agent.policy.offline, agent.policy.actor)
    torch.manual_seed(1)
    one = action_sequences(agent.world_model, latent, first, actors, H)
    torch.manual_seed(2)
    other = action_sequences(agent.world_model, latent, first, actors, H)
    assert one.shape == (N, P, H, A)
    assert torch.equal(one, other)
    assert torch.equal(one[:, :, 0], first)
    step = agent.world_model.rssm.prior_step
    for place in range(P):
        state = latent
        for k in range(1, H):
            state = step(state, one[:, place, k - 1])
            expected = actors[place // 2](state.feat()).mean
            torch.testing.assert_close(one[:, place, k], expected)


def test_actions_do_not_react_to_what_was_drawn(monkeypatch):
    """The policies are asked for the sequences alone, before the first draw."""
    agent = disagreeing(policy_set__score="rollout")
    asked = []

    def policy(feat: Tensor) -> Normal:
        asked.append(feat.shape[:-1])
        return Normal(torch.zeros(*feat.shape[:-1], A), torch.ones(*feat.shape[:-1], A))

    monkeypatch.setattr(agent.policy.offline, "forward", policy)
    monkeypatch.setattr(agent.policy.actor, "forward", policy)
    agent.policy.act(agent.world_model, states(agent), explore=True)
    assert asked == [(N,), (N,)] + 4 * [(N, 1), (N, 1)]


@pytest.mark.parametrize(("cost", "chosen"), [("mean", 1.0), ("max", 0.0)])
def test_a_risk_counts_by_its_mean_or_by_its_worst_draw(monkeypatch, cost, chosen):
    """The learning policy earns 0.5 more and pays 1 in every second draw."""
    agent = disagreeing(
        policy_set__score="rollout", policy_set__draw_cost=cost, policy_set__kappa="0.7",
        policy_set__draws="400", policy_set__horizon="1",
    )  # fmt: skip
    learner = agent.policy.learner
    monkeypatch.setattr(agent.policy.offline, "forward", constant(-1.0))
    monkeypatch.setattr(agent.policy.actor, "forward", constant(1.0))

    def prior_step(state: Latent, action: Tensor) -> Latent:
        return Latent(action[..., :1] + 0 * state.deter, torch.full_like(state.stoch, 0.25))

    def predict(feat: Tensor) -> Prediction:
        bold, unlucky = (feat[..., 0] > 0).float(), feat[..., 16] + feat[..., 17]
        return Prediction(0.5 * bold, bold * unlucky, bold, torch.ones_like(bold))

    monkeypatch.setattr(agent.world_model.rssm, "prior_step", prior_step)
    monkeypatch.setattr(agent.world_model, "predict", predict)
    for critic in (learner.reward_critic, learner.cost_critic):
        monkeypatch.setattr(critic, "value", lambda feat: torch.zeros(feat.shape[:-1]))
    _, told = agent.policy.act(agent.world_model, states(agent), explore=False)
    assert (told["online"] == chosen).all()


def constant(action: float):
    """A policy that always does this."""
    return lambda feat: Normal(
        torch.full((*feat.shape[:-1], A), action), torch.zeros(*feat.shape[:-1], A)
    )


@pytest.mark.parametrize("better", [0.0, 1.0])
def test_the_real_model_finds_what_its_reward_favours(monkeypatch, better):
    """The RSSM itself rolls; reward is how far the states lie where the better policy leads."""
    agent = disagreeing(policy_set__score="rollout", policy_set__kappa="0")
    model, latent = agent.world_model, states(agent)
    policies = (constant(-0.8), constant(0.8))
    monkeypatch.setattr(agent.policy.offline, "forward", policies[0])
    monkeypatch.setattr(agent.policy.actor, "forward", policies[1])
    ends = []
    for policy in policies:
        state = latent
        for _ in range(5):
            state = model.rssm.prior_step(state, policy(state.feat()).mean)
        ends.append(state.deter.mean(0))
    way = (ends[1] - ends[0]) * (2 * better - 1)
    real = model.predict
    monkeypatch.setattr(
        model, "predict", lambda feat: real(feat)._replace(reward=feat[..., :16] @ way)
    )
    _, told = agent.policy.act(model, latent, explore=False)
    assert (told["online"] == better).float().mean() >= 0.8
