"""Agents with a policy set for the tests: two policies that differ, critics with opinions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.agent import Agent
from dreamer.types import Latent
from tests.support.agents import make_agent


def expanded(*names: str, **settings: str) -> Agent:
    """A debug agent of the online phase, as it is at first: both policies are the same."""
    return make_agent(*(names or ("fosp_online", "debug")), **settings)


def disagreeing(*names: str, **settings: str) -> Agent:
    """The same, but the policies differ, and the critics judge each action in its own way."""
    agent = expanded(*names, **settings)
    learner = agent.policy.learner
    torch.manual_seed(4)
    for critic in (learner.reward_critic, learner.cost_critic):
        for net in (critic.q_net, critic.target_q_net):
            nn.init.normal_(net.mlp[-1].weight, std=0.3)
    nn.init.normal_(learner.actor.mlp[-1].weight)
    return agent


def features(agent: Agent, count: int, seed: int = 0) -> Tensor:
    """Features of made-up states, (count, F)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, agent.world_model.feat_size, generator=generator)


def act(agent: Agent, feat: Tensor, explore: bool, seed: int = 0) -> tuple[Tensor, dict]:
    """What the agent's policy does, with random numbers of its own."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return agent.policy.act(agent.world_model, as_latent(agent, feat), explore)


def as_latent(agent: Agent, feat: Tensor) -> Latent:
    """The states that have these features (N, F)."""
    rssm = agent.world_model.rssm
    deter, stoch = feat.split([rssm.initial_deter.numel(), rssm.stoch * rssm.classes], 1)
    return Latent(deter, stoch.unflatten(1, (rssm.stoch, rssm.classes)))
