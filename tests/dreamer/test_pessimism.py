"""What the disagreement of the priors does to imagined rewards and costs."""

from __future__ import annotations

import pytest
import torch

from dreamer.agent import Agent
from dreamer.imagination import choose_starts, imagine
from dreamer.types import Trajectory
from tests.support.agents import make_agent, make_batch

M, H = 3, 5


def torn_agent(priors: int = M) -> Agent:
    """An agent whose priors differ, and whose heads do not start at zero."""
    agent = make_agent(world_model__rssm__priors=str(priors))
    model = agent.world_model
    if priors > 1:
        torch.nn.init.normal_(model.rssm.prior_net.output, std=1.0)
    for head in (model.reward_head, model.cost_head):
        torch.nn.init.normal_(head.mlp[-1].weight, std=0.5)
    return agent


def rollout(agent: Agent, **pessimism: float) -> Trajectory:
    """The same rollout whatever the pessimism: nothing is drawn for it."""
    batch = make_batch()
    with torch.no_grad():
        pixels = agent.world_model.encoder(batch.obs)
        torch.manual_seed(1)
        latent = agent.world_model.rssm.observe(pixels, batch.action, batch.is_first).latent
    starts = choose_starts(latent, batch, 0)
    torch.manual_seed(2)
    return imagine(agent.world_model, agent.policy.actor, starts, H, 0.9, **pessimism)


def changed(one: Trajectory, other: Trajectory) -> set[str]:
    pairs = zip(one._fields, one, other, strict=True)
    return {name for name, left, right in pairs if not left.equal(right)}


def actor_gradient(agent: Agent, value: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(value.sum(), list(agent.policy.actor.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


def test_one_prior_agrees_with_itself():
    """Nothing changes, and no random number is drawn."""
    agent = torn_agent(priors=1)
    plain = rollout(agent)
    after = torch.rand(1)
    assert changed(plain, rollout(agent, disagreement=9.0, worst_cost=True)) == set()
    assert torch.rand(1).equal(after)
    assert (plain.disagreement == 0).all()


def test_disagreement_lowers_the_reward_by_the_setting_and_nothing_else():
    agent = torn_agent()
    plain, lowered = rollout(agent), rollout(agent, disagreement=2.5)
    assert changed(plain, lowered) == {"reward"}
    assert (plain.disagreement > 0).all()
    torch.testing.assert_close(lowered.reward, plain.reward - 2.5 * plain.disagreement)


def test_disagreement_is_about_the_state_arrived_at():
    agent = torn_agent()
    traj, D = rollout(agent), agent.world_model.rssm.initial_deter.numel()
    probs = agent.world_model.rssm.prior(traj.feat[:, 3, :D])  # (M, N, S, K)
    mean = probs.mean(0)
    by_hand = (probs * (probs / mean).log()).sum(-1).mean((0, -1))
    torch.testing.assert_close(traj.disagreement[:, 2], by_hand)


def test_the_highest_cost_of_any_member_counts():
    agent = torn_agent()
    plain, worst = rollout(agent), rollout(agent, worst_cost=True)
    assert changed(plain, worst) == {"cost", "violation"}
    for name in ("cost", "violation"):
        own, highest = getattr(plain, name), getattr(worst, name)
        assert (highest >= own - 1e-6).all()
        assert (highest > own + 1e-3).any()


def test_members_that_agree_make_no_cost_worse():
    """The highest of several draws would be worse even so: all members share the noise."""
    agent = torn_agent()
    net = agent.world_model.rssm.prior_net
    for parameter in net.parameters():
        parameter.data.copy_(parameter.data[:1].expand_as(parameter))
    plain, worst = rollout(agent), rollout(agent, worst_cost=True)
    torch.testing.assert_close(worst.cost, plain.cost)
    torch.testing.assert_close(plain.disagreement, torch.zeros(32, H), atol=1e-6, rtol=0)


def test_costs_are_those_of_each_members_own_features(monkeypatch):
    """The head is asked about M states, and the highest of its answers is taken."""
    agent, asked = torn_agent(), []
    predict_cost = agent.world_model.predict_cost

    def spy(feat):
        asked.append((feat, predict_cost(feat)[0]))
        return asked[-1][1], asked[-1][1]

    monkeypatch.setattr(agent.world_model, "predict_cost", spy)
    traj = rollout(agent, worst_cost=True)
    (own, _), (feats, costs) = asked
    assert feats.shape == (M, *own.shape)
    assert traj.cost.equal(costs.amax(0))
    assert (traj.cost >= costs).all()
    drawn = (feats == own).all(-1)  # (M, N, H)
    assert drawn.any(0).all(), "the state that was drawn is one of them"
    assert not drawn.all()
    # its gradient is the highest member's alone
    (grad,) = torch.autograd.grad(traj.cost.sum(), feats)
    reached = grad.abs().sum(-1) > 0
    alone = (costs == traj.cost).sum(0) == 1
    assert alone.any()
    assert reached.transpose(0, -1)[alone.T].sum(-1).eq(1).all()


@pytest.mark.parametrize("signal", ["disagreement", "cost"])
def test_pessimism_reaches_the_policy(signal):
    """Through the probabilities of the members, by the actions that led there."""
    agent = torn_agent()
    cautious = rollout(agent, disagreement=1.0, worst_cost=True)
    gradient = actor_gradient(agent, getattr(cautious, signal))
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-6
    if signal == "cost":
        plain = actor_gradient(agent, rollout(agent).cost)
        assert not gradient.allclose(plain)


@pytest.mark.parametrize("method", ["dreamerv3", "safedreamer", "fosp_offline"])
def test_every_method_that_imagines_reads_its_settings(method, monkeypatch):
    safe = {} if method == "dreamerv3" else {"imagination__worst_cost": "true"}
    settings = {"world_model__rssm__priors": "3", "imagination__disagreement": "4.0", **safe}
    agent, seen = make_agent(method, "debug", **settings), []
    place = (
        "dreamer.actor_critic"
        if method == "dreamerv3"
        else ("fosp_ext.baselines" if method == "safedreamer" else "fosp_ext.actor_critic")
    )

    def spy(*args):
        seen.append((args, imagine(*args)))
        return seen[-1][1]

    monkeypatch.setattr(f"{place}.imagine", spy)
    metrics = agent.update(make_batch())
    ((args, traj),) = seen
    assert args[5:] == ((4.0,) if method == "dreamerv3" else (4.0, True))
    torch.testing.assert_close(metrics["imagination/disagreement"], traj.disagreement.mean())
