"""How plain DreamerV3 acts and learns: one actor and one state-value critic in imagination."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar

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

M = TypeVar("M", bound=nn.Module)


class PolicyLearner(Protocol):
    """How to act from a latent, and how to learn from a batch of them."""

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) in [-1, 1] for states (N,): sampled to explore, else the mean.

        Beside them the `estimates` of these states, and what a policy tells of its choice.
        """

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """Value estimates of states (N, F), which evaluations show: name -> (N,)."""

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One gradient step from posterior states (B, T) and the rows they belong to."""


def frozen_copy(module: M) -> M:
    """A copy that shares nothing with the original and never learns by gradient."""
    return copy.deepcopy(module).requires_grad_(False).eval()


def policy_action(actor: Actor, feat: Tensor, explore: bool) -> Tensor:
    """Actions (N, A) in [-1, 1] of a policy at features (N, F)."""
    policy = actor(feat)
    return (policy.sample() if explore else policy.mean).clamp(-1, 1)


class StateCritic(nn.Module):
    """V(s) of one signal under the current policy, on lambda returns.

    See docs/concepts/algorithm.md 8.

    deviates (D30): it reads the state alone. A baseline that sees the action biases the policy.
    """

    def __init__(self, feat_size: int, settings: CriticSettings, imagination: ImaginationSettings):
        super().__init__()
        self.settings, self.imagination = settings, imagination
        self.net = TwoHotHead(feat_size, settings.net.layers, settings.net.units, outscale=0.0)
        self.target_net = frozen_copy(self.net)
        self.optimizer = Optimizer(self.net.parameters(), settings.optimizer)

    def value(self, feat: Tensor) -> Tensor:
        """V of states: (..., F) -> (...)."""
        return self.net(feat).mean()

    def returns(self, traj: Trajectory, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Lambda returns (N, H) of a signal (N, H), and the values (N, H+1) they end in."""
        im, value = self.imagination, self.value(traj.feat)
        return lambda_return(signal, traj.cont, value, im.gamma, im.lam), value

    def update(self, traj: Trajectory, returns: Tensor) -> Metrics:
        """Fit V to the returns (N, H), held near the target network, which then moves."""
        feat = traj.feat[:, :-1]
        value = self.net(feat)
        with torch.no_grad():
            target_value = self.target_net(feat).mean()
        loss = value.loss(returns) + self.settings.target_weight * value.loss(target_value)
        step = self.optimizer.step((traj.weight * loss).mean())
        polyak_(self.target_net, self.net, self.settings.tau)
        return {**step, "value": value.mean().detach().mean(), "return": returns.mean()}


class ActorCritic(nn.Module):
    """DreamerV3's policy: V(s) on lambda returns, pathwise gradient.

    See docs/concepts/algorithm.md 8.
    """

    def __init__(
        self,
        feat_size: int,
        action_size: int,
        actor: ActorSettings,
        critic: CriticSettings,
        imagination: ImaginationSettings,
    ):
        super().__init__()
        self.settings, self.imagination = actor, imagination
        self.actor = Actor(feat_size, action_size, actor.net)
        self.critic = StateCritic(feat_size, critic, imagination)
        self.moments = Moments()
        self.optimizer = Optimizer(self.actor.parameters(), actor.optimizer)

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) and estimates for states (N,)."""
        feat = latent.feat()
        return policy_action(self.actor, feat, explore), self.estimates(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """The value of states (N, F)."""
        return {"value": self.critic.value(feat)}

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """Imagine, move the actor, then the critic on the same rollout."""
        im = self.imagination
        starts = choose_starts(latent, batch, im.starts)
        traj = imagine(world_model, self.actor, starts, im.horizon, im.gamma, im.disagreement)
        returns, value = self.critic.returns(traj, traj.reward)
        self.moments.update_(returns.detach())
        actor_metrics = self.update_actor(traj, returns, value.detach())
        critic_metrics = self.critic.update(traj.detach(), returns.detach())
        return {
            "imagination/disagreement": traj.disagreement.detach().mean(),
            **{f"actor/{name}": value for name, value in actor_metrics.items()},
            **{f"critic/{name}": value for name, value in critic_metrics.items()},
        }

    def update_actor(self, traj: Trajectory, returns: Tensor, value: Tensor) -> Metrics:
        """Raise normalised advantages and entropy; returns (N, H), value (N, H+1) detached."""
        advantage = (returns - value[:, :-1]) / self.moments.scale()
        loss = -(traj.weight * (advantage + self.settings.entropy * traj.entropy)).mean()
        step = self.optimizer.step(loss)
        return {**step, "entropy": traj.entropy.detach().mean(), "scale": self.moments.scale()}
