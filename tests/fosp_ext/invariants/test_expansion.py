"""Invariants of the choice between two policies (docs/concepts/algorithm.md, 6 and Invariants)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dreamer.agent import Agent, AgentState
from dreamer.imagination import choose_starts, imagine
from dreamer.training.checkpoint import Checkpoint
from fosp_ext.build import begin_online
from fosp_ext.transitions import real_transitions
from tests.support.agents import INFO, make_agent, make_batch, make_config
from tests.support.policy_sets import act, as_latent, disagreeing, expanded, features

N = 64


def updated(agent: Agent, times: int = 2) -> Agent:
    """The agent after a few gradient steps with fixed random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        for seed in range(times):
            agent.update(make_batch(seed=seed))
    return agent


def content(module: nn.Module) -> dict[str, Any]:
    """Everything that a checkpoint would hold, as it is now."""
    return copy.deepcopy(module.state_dict())


def same(one: Any, other: Any) -> bool:
    """Are two nested states equal bit for bit?"""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def storages(value: Any) -> set[int]:
    """The memory behind all tensors of a nested state."""
    if isinstance(value, Tensor):
        return {value.untyped_storage().data_ptr()}
    parts = value.values() if isinstance(value, dict) else value
    return set().union(*map(storages, parts)) if isinstance(value, dict | list | tuple) else set()


@pytest.mark.invariant(33)
def test_equal_proposals_are_equally_likely_and_others_are_not():
    agent = disagreeing()
    feat = features(agent, N)
    act(agent, feat, explore=True)  # else nobody knows what much is
    _, unlike = act(agent, feat, explore=False)
    assert (unlike["p_online"] != 0.5).all()
    assert (unlike["p_online"] - 0.5).abs().mean() > 0.05
    agent.policy.learner.actor.load_state_dict(agent.policy.offline.state_dict())
    _, alike = act(agent, feat, explore=False)
    assert (alike["p_online"] == 0.5).all()


@pytest.mark.invariant(33)
@pytest.mark.parametrize("explore", [True, False])
def test_the_executed_action_is_the_proposal_that_was_judged(explore):
    agent = disagreeing()
    choice, seen = agent.policy.choice, []
    score = choice.score
    choice.score = lambda model, latent, actions, *rest: (
        seen.append(actions.clone()) or score(model, latent, actions, *rest)
    )
    obs = {name: image[:, 0] for name, image in make_batch(B=N).obs.items()}
    before = AgentState(as_latent(agent, features(agent, N)), torch.zeros(N, INFO.action_size))
    action, state, chosen = agent.act(obs, torch.zeros(N), before, explore)
    (proposals,) = seen
    assert proposals.shape == (N, 2, INFO.action_size)
    assert proposals.abs().max() <= 1
    assert (proposals[:, 0] != proposals[:, 1]).any(1).float().mean() > 0.9
    assert 0 < chosen["online"].sum() < N, "or only one policy is tested"
    expected = torch.where(chosen["online"].bool().unsqueeze(1), proposals[:, 1], proposals[:, 0])
    assert torch.equal(action, expected)
    assert torch.equal(state.action, action), "the model remembers what was done"


@pytest.mark.invariant(33)
@pytest.mark.parametrize("explore", [True, False])
def test_each_environment_chooses_for_itself(explore):
    agent = disagreeing()
    feat = features(agent, N)
    act(agent, features(agent, N, seed=2), explore=True)
    action, chosen = act(copy.deepcopy(agent), feat, explore)
    assert 0 < chosen["online"].sum() < N
    others = features(agent, N, seed=1)
    for row in range(0, N, 8):
        mixed = others.clone()
        mixed[row] = feat[row]
        again, chosen_again = act(copy.deepcopy(agent), mixed, explore)
        assert torch.equal(again[row], action[row])
        assert all(torch.equal(chosen_again[name][row], chosen[name][row]) for name in chosen)


@pytest.mark.invariant(34)
def test_the_frozen_policy_stays_and_shares_nothing_while_the_other_learns():
    agent = expanded()
    policy_set, feat = agent.policy, features(agent, N)
    offline, learner = policy_set.offline, policy_set.learner
    assert torch.equal(offline(feat).mean, policy_set.actor(feat).mean)
    assert torch.equal(offline(feat).std, policy_set.actor(feat).std)
    assert not offline.training
    assert not any(parameter.requires_grad for parameter in offline.parameters())
    before, learned = content(offline), content(learner.actor)
    updated(agent, times=3)
    assert same(content(offline), before)
    after = content(policy_set.actor)
    assert not any(torch.equal(after[name], learned[name]) for name in after)
    rest = {name: x for name, x in agent.state_dict().items() if ".offline." not in name}
    assert not storages(offline.state_dict()) & storages(rest)


@pytest.mark.invariant(34)
def test_an_online_agent_begins_with_everything_of_the_offline_one():
    offline = updated(make_agent())
    before = content(offline)
    agent = begin_online(make_config("fosp_online", "debug"), INFO, offline)
    assert same(content(agent.policy.learner), content(offline.policy))
    assert same(content(agent.world_model), content(offline.world_model))
    assert same(content(agent.policy.offline), content(offline.policy.actor))
    assert not storages(agent.state_dict()) & storages(offline.state_dict())
    updated(agent)
    assert same(content(offline), before)


@pytest.mark.invariant(34)
def test_a_checkpoint_restores_everything_that_moves(tmp_path):
    agent, fresh = updated(disagreeing()), expanded()
    act(agent, features(agent, N), explore=True)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    path = Checkpoint(tmp_path, keep_last=1).save(2, {"agent": agent.state_dict()})
    saved = content(agent)
    for part in (
        "offline.mlp.0.weight",
        "learner.actor.mlp.0.weight",
        "learner.lagrangian.multiplier",
        "learner.lagrangian.penalty",
        "learner.reward_critic.moments.range",
        "learner.cost_critic.moments.range",
        "learner.reachability.target_net.mlp.0.weight",
        "choice.spread.total",
        "choice.spread.weight",
        "learner.optimizer._extra_state",
    ):
        assert f"policy.{part}" in saved
        assert not same(saved[f"policy.{part}"], fresh.state_dict()[f"policy.{part}"]), part
    fresh.load_state_dict(Checkpoint.load(path)["agent"])
    assert same(content(fresh), saved)
    assert same(content(updated(fresh)), content(updated(agent)))
    assert not same(content(agent), saved)


@pytest.mark.invariant(25)
def test_the_loss_with_a_frozen_policy_beside_moves_the_learning_one_alone():
    agent, batch = disagreeing(), make_batch()
    learner = agent.policy.learner
    latent, _ = agent.world_model.update(batch)
    traj = imagine(agent.world_model, learner.actor, choose_starts(latent, batch, 0), 5, 0.9)
    before = {name: p.clone() for name, p in agent.named_parameters()}
    learner.update_actor(traj, learner.rollout_values(traj), real_transitions(latent, batch))
    moved = {name for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"policy.learner.actor.{name}" for name in learner.actor.state_dict()}
    assert all(parameter.grad is None for parameter in agent.parameters())


@pytest.mark.invariant(25)
def test_what_is_learned_does_not_depend_on_the_frozen_policy():
    one, other = disagreeing(), disagreeing()
    for parameter in other.policy.offline.parameters():
        nn.init.normal_(parameter)
    assert same(content(updated(one).policy.learner), content(updated(other).policy.learner))
    assert all(parameter.grad is None for parameter in one.parameters())


@pytest.mark.invariant(35)
@pytest.mark.parametrize("explore", [True, False])
def test_choosing_leaves_what_it_is_given_unchanged(explore):
    agent, batch = disagreeing(), make_batch()
    obs = {name: image[:, 0] for name, image in batch.obs.items()}
    first = torch.ones(4)
    _, state, _ = agent.act(obs, first, agent.initial(4), explore)
    given = [*state.latent, state.action, *obs.values(), first]
    kept, before = [x.clone() for x in given], content(agent)
    agent.act(obs, torch.zeros(4), state, explore)
    assert all(map(torch.equal, given, kept))
    after = content(agent)
    moved = {name for name, x in after.items() if not same(x, before[name])}
    spread = {"policy.choice.spread.total", "policy.choice.spread.weight"}
    assert moved == (spread if explore else set())
