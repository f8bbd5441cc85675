"""Rolling the world model forward under a policy. Time is shifted here, and nowhere later."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamer.distributions import jensen_shannon
from dreamer.functional import discount_weights
from dreamer.networks import Actor
from dreamer.rssm import Imagined
from dreamer.types import Batch, Latent, Trajectory
from dreamer.world_model import WorldModel


class Starts(NamedTuple):
    """Recorded states from which rollouts begin."""

    latent: Latent  # (N,)
    cont: Tensor  # (N,) in {0, 1}: the recorded episode goes on
    cost: Tensor  # (N,) recorded on arriving there


def choose_starts(latent: Latent, batch: Batch, count: int) -> Starts:
    """All B*T rows of a batch as starts, or `count` different ones, at random (0 takes all)."""
    rows = batch.cost.numel()
    if not 0 < count < rows:
        return starts_at(latent, batch)
    return starts_at(latent, batch, torch.randperm(rows, device=batch.cost.device)[:count])


def starts_at(latent: Latent, batch: Batch, index: Tensor | None = None) -> Starts:
    """The rows `index` (N,) of a batch as starts, counted window after window; None is all B*T."""
    starts = latent.merge_time(), (1 - batch.is_terminal).flatten(), batch.cost.flatten()
    if index is None:
        return Starts(*starts)
    states, cont, cost = starts
    return Starts(Latent(*(x[index] for x in states)), cont[index], cost[index])


def imagine(
    world_model: WorldModel,
    actor: Actor,
    starts: Starts,
    horizon: int,
    gamma: float,
    disagreement: float = 0.0,
    worst_cost: bool = False,
) -> Trajectory:
    """Follow `actor` for `horizon` steps from each start (docs/concepts/algorithm.md 2.4).

    Starts (N,) -> Trajectory (N, H). The policy sees detached states; its actions are
    reparameterised and clipped to [-1, 1], so the rollout is differentiable in the policy through
    the dynamics. Each nat by which the priors disagree lowers the reward by `disagreement`. With
    `worst_cost`, costs and violations are the highest that any prior leads to.
    """
    state, feats, steps = starts.latent, [starts.latent.feat()], []
    actions, entropies = [], []
    for _ in range(horizon):
        policy = actor(feats[-1].detach())
        action = policy.sample().clamp(-1, 1)
        steps.append(world_model.rssm.imagine_step(state, action))
        state = steps[-1].latent
        feats.append(state.feat())
        actions.append(action)
        entropies.append(policy.entropy())  # here: the policy is not asked a second time
    feat = torch.stack(feats, 1)  # (N, H+1, F)
    arrived = world_model.predict(feat[:, 1:])  # (N, H) each
    apart = torch.zeros_like(arrived.reward)
    if len(steps[0].prior) > 1:
        every = joined(steps)
        apart = jensen_shannon(every.prior if disagreement else every.prior.detach())
        arrived = arrived._replace(reward=arrived.reward - disagreement * apart)
        if worst_cost:
            costs = world_model.predict_cost(every.members().feat())  # (M, N, H) each
            cost, violation = (x.amax(0) for x in costs)
            arrived = arrived._replace(cost=cost, violation=violation)
    weight = discount_weights(starts.cont, arrived.cont, gamma)
    action, entropy = torch.stack(actions, 1), torch.stack(entropies, 1)
    return Trajectory(feat, action, *arrived, weight, entropy, apart)


def joined(steps: list[Imagined]) -> Imagined:
    """H steps of N rollouts, each (N,), as one bundle (N, H)."""
    latent = Latent(*(torch.stack(x, 1) for x in zip(*(s.latent for s in steps), strict=True)))
    prior = torch.stack([step.prior for step in steps], 2)  # (M, N, H, S, K)
    noise = [step.noise for step in steps if step.noise is not None]
    return Imagined(latent, prior, torch.stack(noise, 1) if noise else None)
