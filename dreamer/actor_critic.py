"""How plain DreamerV3 acts and learns: one actor and one state-value critic in imagination."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn

from dreamer.functional import lambda_return, polyak_
from dreamer.imagination import choose_starts, imagine
from dreamer.moments import Moments
from dreamer.networks import Actor, TwoHotHead
from dreamer.optimizer import Optimizer
from dreamer.settings import ActorSettings, CriticSettings, ImaginationSettings
from dreamer.types import Batch, Latent, Metrics, Trajectory
from dreamer.world_model import WorldModel


class Behavior(Protocol):
    """How to act from a latent, and how to learn from a batch of them."""

    def act(self, feat: Tensor, explore: bool) -> Tensor:
        """Actions (N, A) in [-1, 1] for features (N, F): sampled to explore, else the mean."""

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """What the critics think of states (N, F): name -> (N,), shown by evaluations."""

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One gradient step from posterior states (B, T) and the rows they belong to."""


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that shares nothing with the original and never learns by gradient."""
    return copy.deepcopy(module).requires_grad_(False).eval()


def policy_action(actor: Actor, feat: Tensor, explore: bool) -> Tensor:
    """Actions (N, A) in [-1, 1] of a policy at features (N, F)."""
    policy = actor(feat)
    return (policy.sample() if explore else policy.mean).clamp(-1, 1)


class ActorCritic(nn.Module):
    """DreamerV3's behaviour (docs/algorithm.md 8): V(s) on lambda returns, pathwise gradient."""

    def __init__(
        self,
        feat_size: int,
        action_size: int,
        actor: ActorSettings,
        critic: CriticSettings,
        imagination: ImaginationSettings,
    ):
        super().__init__()
        self.settings, self.critic_settings, self.imagination = actor, critic, imagination
        self.actor = Actor(feat_size, action_size, actor.net)
        self.critic = TwoHotHead(feat_size, critic.net.layers, critic.net.units, outscale=0.0)
        self.slow_critic = frozen_copy(self.critic)
        self.moments = Moments()
        self.actor_optimizer = Optimizer(self.actor.parameters(), actor.optimizer)
        self.critic_optimizer = Optimizer(self.critic.parameters(), critic.optimizer)

    def act(self, feat: Tensor, explore: bool) -> Tensor:
        """Actions (N, A) for features (N, F)."""
        return policy_action(self.actor, feat, explore)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """The value of states (N, F)."""
        return {"value": self.critic(feat).mean()}

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """Imagine, move the actor, then the critic on the same rollout."""
        im = self.imagination
        starts = choose_starts(latent, batch, im.starts)
        traj = imagine(world_model, self.actor, starts, im.horizon, im.gamma)
        value = self.critic(traj.feat).mean()  # (N, H+1)
        returns = lambda_return(traj.reward, traj.cont, value, im.gamma, im.lam)
        actor_metrics = self.update_actor(traj, returns, value.detach())
        critic_metrics = self.update_critic(traj.detach(), returns.detach())
        return {
            **{f"actor/{name}": value for name, value in actor_metrics.items()},
            **{f"critic/{name}": value for name, value in critic_metrics.items()},
        }

    def update_actor(self, traj: Trajectory, returns: Tensor, value: Tensor) -> Metrics:
        """Raise normalised advantages and entropy; returns (N, H), value (N, H+1) detached."""
        self.moments.update(returns.detach())
        advantage = (returns - value[:, :-1]) / self.moments.scale()
        entropy = self.actor(traj.feat[:, :-1].detach()).entropy()
        loss = -(traj.weight * (advantage + self.settings.entropy * entropy)).mean()
        step = self.actor_optimizer.step(loss)
        return {**step, "entropy": entropy.detach().mean(), "scale": self.moments.scale()}

    def update_critic(self, traj: Trajectory, returns: Tensor) -> Metrics:
        """Fit V to the returns (N, H), held near its slow copy; then move the slow copy."""
        feat = traj.feat[:, :-1]
        value = self.critic(feat)
        with torch.no_grad():
            slow = self.slow_critic(feat).mean()
        loss = value.loss(returns) + self.critic_settings.slow_weight * value.loss(slow)
        step = self.critic_optimizer.step((traj.weight * loss).mean())
        polyak_(self.slow_critic, self.critic, self.critic_settings.slow_rate)
        return {**step, "value": value.mean().detach().mean(), "return": returns.mean()}
