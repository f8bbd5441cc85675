"""How FOSP learns: imagine, score, actor, critics, reachability (docs/algorithm.md 3 to 5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer import distributed
from dreamer.actor_critic import policy_action
from dreamer.functional import lambda_return, masked_mean
from dreamer.imagination import Starts, imagine
from dreamer.networks import Actor
from dreamer.optimizer import Optimizer
from dreamer.types import VIOLATION, Batch, Latent, Metrics, Trajectory
from fosp_ext.critics import InSampleCritic
from fosp_ext.lagrange import AugmentedLagrangian, NoConstraint
from fosp_ext.reachability import AlwaysFeasible, ReachabilityCritic
from fosp_ext.settings import SafeActorSettings, SafeImaginationSettings
from fosp_ext.starts import choose_safe_starts
from fosp_ext.targets import policy_weight
from fosp_ext.transitions import RealTransitions, real_transitions
from fosp_ext.world_model import SafeWorldModel


class Scores(NamedTuple):
    """What the critics say about a rollout, each (N, H); differentiable in its actions."""

    adv_r: Tensor  # reward advantage over the policy's value, in units of its running scale
    adv_c: Tensor  # the same for cost
    cost_return: Tensor  # raw cost lambda-return, with the dynamics' gradient
    feasibility: Tensor  # u in [0, 1], without gradient


class SafeActorCritic(nn.Module):
    """One policy, reward and cost critics, the reachability estimate and the Lagrangian."""

    def __init__(
        self,
        settings: SafeActorSettings,
        imagination: SafeImaginationSettings,
        actor: Actor,
        reward_critic: InSampleCritic,
        cost_critic: InSampleCritic,
        reachability: ReachabilityCritic | AlwaysFeasible,
        lagrangian: AugmentedLagrangian | NoConstraint,
    ):
        """An ablation passes another part (`fosp_ext/build.py`); no loss asks which one it has."""
        super().__init__()
        self.settings, self.imagination = settings, imagination
        self.actor = actor
        self.optimizer = Optimizer(actor.parameters(), settings.optimizer)
        self.reward_critic, self.cost_critic = reward_critic, cost_critic
        self.reachability, self.lagrangian = reachability, lagrangian

    def with_actor(self, actor: Actor) -> SafeActorCritic:
        """The same critics, not copied, around another policy."""
        return SafeActorCritic(
            self.settings,
            self.imagination,
            actor,
            self.reward_critic,
            self.cost_critic,
            self.reachability,
            self.lagrangian,
        )

    def act(self, feat: Tensor, explore: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) and estimates for features (N, F)."""
        return policy_action(self.actor, feat, explore), self.estimates(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """Values and violation probability of states (N, F)."""
        return {
            "value": self.reward_critic.value(feat),
            "cost_value": self.cost_critic.value(feat).clamp_min(0),
            **self.reachability.estimates(feat),
        }

    def update(self, world_model: SafeWorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One gradient step of every part from posterior states (B, T) and their rows."""
        im = self.imagination
        real = real_transitions(latent, batch)  # (B, T-1)
        starts = choose_safe_starts(latent, batch, im)
        traj = imagine(world_model, self.actor, starts, im.horizon, im.gamma)  # (N, H)
        actor_metrics = self.update_actor(traj, self.score(traj), real)
        traj = traj.detach()
        violation = violation_labels(world_model, traj, starts)
        parts = {
            "actor": actor_metrics,
            "lagrange": self.lagrangian.metrics(),
            "reward_critic": self.reward_critic.update(traj, traj.reward, real, real.reward),
            "cost_critic": self.cost_critic.update(traj, traj.cost, real, real.cost),
            "reach": self.reachability.update(traj, violation, real),
        }
        return {
            f"{part}/{name}": x for part, metrics in parts.items() for name, x in metrics.items()
        }

    def score(self, traj: Trajectory) -> Scores:
        """One look of all critics at a differentiable rollout."""
        adv_r, _ = self._advantage(self.reward_critic, traj, traj.reward)
        adv_c, cost_value = self._advantage(self.cost_critic, traj, traj.cost)
        im = self.imagination
        cost_return = lambda_return(traj.cost, traj.cont, cost_value, im.gamma, im.lam)
        return Scores(adv_r, adv_c, cost_return, self.reachability.feasibility(traj.feat[:, :-1]))

    def _advantage(
        self, critic: InSampleCritic, traj: Trajectory, signal: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normalised advantages (N, H), and the values (N, H+1) with the dynamics' gradient."""
        im, value = self.imagination, critic.value(traj.feat)
        if self.settings.advantage == "q":
            # deviates (D26): states are detached, so that only the action is judged.
            gain = critic.q(traj.feat[:, :-1].detach(), traj.action)
        else:
            gain = lambda_return(signal, traj.cont, value, im.gamma, im.lam)
        critic.moments.update(gain.detach())
        return (gain - value[:, :-1].detach()) / critic.moments.scale(), value

    def update_actor(self, traj: Trajectory, scores: Scores, real: RealTransitions) -> Metrics:
        """docs/algorithm.md (5) to (7): pathwise, in-sample and Lagrangian terms, one step."""
        u, settings = scores.feasibility, self.settings
        gain = u * scores.adv_r - (1 - u) * scores.adv_c + settings.entropy * traj.entropy
        imagined_loss = -(traj.weight * gain).mean()
        constraint = (u * scores.cost_return).sum(1).mean()  # pessimistic: summed over the horizon
        constraint = distributed.joint_mean(constraint)
        price = self.lagrangian.price(constraint.detach())
        penalty = self.lagrangian.penalty_loss(constraint)
        loss, metrics = settings.imagined_weight * imagined_loss + penalty, {}
        if settings.in_sample_weight:
            in_sample_loss, metrics = self.in_sample_loss(real)
            loss = loss + settings.in_sample_weight * in_sample_loss
        step = self.optimizer.step(loss)
        scale = self.reward_critic.moments.scale()
        return {
            **step,
            **metrics,
            "imagined_loss": imagined_loss.detach(),
            "entropy": traj.entropy.detach().mean(),
            "adv_r": scores.adv_r.detach().mean(),
            "adv_c": scores.adv_c.detach().mean(),
            "feasibility": u.mean(),
            "saturated": (traj.action.detach().abs() >= 1).float().mean(),
            "constraint": constraint.detach(),
            "penalty": penalty.detach() * (price > 0),
            "cost_price": traj.action.shape[1] * price.clamp_min(0) * scale,
        }

    def in_sample_loss(self, real: RealTransitions) -> tuple[Tensor, Metrics]:
        """docs/algorithm.md (6): weighted log-likelihood of recorded actions, and metrics."""
        weight, gate = self.data_weights(real)
        log_prob = self.actor(real.feat).log_prob(real.action)
        loss = -masked_mean(weight * log_prob, real.mask)
        return loss, {
            "in_sample_loss": loss.detach(),
            "data_log_prob": masked_mean(log_prob.detach(), real.mask),
            "weight": masked_mean(weight, real.mask),
            "weight_max": (weight * real.mask).max(),
            "gate_open": masked_mean(gate, real.mask),
        }

    @torch.no_grad()
    def data_weights(self, real: RealTransitions) -> tuple[Tensor, Tensor]:
        """docs/algorithm.md (4) at recorded pairs: weights and open cost gates, each (B, T-1)."""
        s, reward, cost = self.settings, self.reward_critic, self.cost_critic
        outcome_r = self._outcome(reward, real, real.reward)
        outcome_c = self._outcome(cost, real, real.cost).clamp_min(0)
        excess = outcome_c - cost.in_sample_value(real.feat).clamp_min(
            0
        )  # over the safest supported action
        gated = outcome_c if s.gate == "value" else excess
        weight = policy_weight(
            self.reachability.feasibility(real.feat),
            (outcome_r - reward.in_sample_value(real.feat)) / reward.moments.scale(),
            excess / cost.moments.scale(),
            gated,
            s.beta_r, s.beta_c, s.clip_r, s.clip_c, s.cost_tolerance,
        )  # fmt: skip
        return weight, (gated <= s.cost_tolerance).float()

    def _outcome(self, critic: InSampleCritic, real: RealTransitions, signal: Tensor) -> Tensor:
        """What a recorded action led to, (B, T-1): as Q has it, or as the rows after it tell."""
        if self.settings.recorded_advantage == "q":
            return critic.target_q(real.feat, real.action)
        value = torch.cat(
            [critic.in_sample_value(real.feat[:, :1]), critic.in_sample_value(real.feat_next)], 1
        )  # (B, T)
        im = self.imagination
        lam = im.lam * (1 - real.last_next)  # a time limit ends the rows, not the return
        return lambda_return(signal, real.cont, value, im.gamma, lam)


@torch.no_grad()
def violation_labels(world_model: SafeWorldModel, traj: Trajectory, starts: Starts) -> Tensor:
    """Chance that each imagined state violates, (N, H): recorded at the start, then the model's."""
    recorded = (starts.cost >= VIOLATION).float().unsqueeze(1)  # (N, 1)
    return torch.cat([recorded, world_model.violation(traj.feat[:, 1:-1])], 1)
