"""The actor-critic of FOSP: one update of policy and critics.

See docs/concepts/algorithm.md 3 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer.actor_critic import policy_action
from dreamer.functional import lambda_return, masked_mean, violates
from dreamer.imagination import Starts, imagine
from dreamer.networks import Actor
from dreamer.optimizer import Optimizer
from dreamer.types import Batch, Latent, Metrics, Trajectory
from dreamer.world_model import WorldModel
from fosp_ext.critics import InSampleCritic
from fosp_ext.lagrange import AugmentedLagrangian, NoConstraint, constraint_step_
from fosp_ext.reachability import AlwaysFeasible, ReachabilityCritic
from fosp_ext.settings import SafeActorSettings, SafeImaginationSettings
from fosp_ext.starts import choose_safe_starts
from fosp_ext.targets import policy_weight
from fosp_ext.transitions import RealTransitions, real_transitions


class RolloutValues(NamedTuple):
    """The critics' estimates along a rollout, (N, H) each, none of them normalised.

    Action values are what `advantage` says: Q(s, a) of the single action, or the lambda return of
    the rollout from there. They and `cost_return` are differentiable in the rollout's actions.
    """

    action_value_r: Tensor  # of reward
    action_value_c: Tensor  # of cost
    state_value_r: Tensor  # V(s) of reward under the policy, without gradient
    state_value_c: Tensor  # V(s) of cost under the policy, without gradient
    cost_return: Tensor  # lambda return of cost, with the dynamics' gradient
    feasibility: Tensor  # u(s) in [0, 1], without gradient


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
        violation: float,
    ):
        """An ablation passes a stand-in (`fosp_ext/build.py`); no loss asks which part it has.

        A recorded row violates from the cost `violation` on.
        """
        super().__init__()
        self.settings, self.imagination, self.violation = settings, imagination, violation
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
            self.violation,
        )

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) and estimates for states (N,)."""
        feat = latent.feat()
        return policy_action(self.actor, feat, explore), self.estimates(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """Values and violation probability of states (N, F)."""
        return {
            "value": self.reward_critic.value(feat),
            "cost_value": self.cost_critic.value(feat).clamp_min(0),
            **self.reachability.estimates(feat),
        }

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One gradient step of every part from posterior states (B, T) and their rows."""
        im = self.imagination
        real = real_transitions(latent, batch)  # (B, T-1)
        starts = choose_safe_starts(latent, batch, im, self.violation)
        pessimism = im.disagreement, im.worst_cost
        traj = imagine(world_model, self.actor, starts, im.horizon, im.gamma, *pessimism)  # (N, H)
        values = self.rollout_values(traj)
        self.reward_critic.moments.update_(values.action_value_r.detach())
        self.cost_critic.moments.update_(values.action_value_c.detach())
        actor_metrics = self.update_actor(traj, values, real)
        traj = traj.detach()
        violation = violation_labels(traj, starts, self.violation)
        parts = {
            "imagination": {"disagreement": traj.disagreement.mean()},
            "actor": actor_metrics,
            "lagrange": self.lagrangian.metrics(),
            "reward_critic": self.reward_critic.update(traj, traj.reward, real, real.reward),
            "cost_critic": self.cost_critic.update(traj, traj.cost, real, real.cost),
            "reach": self.reachability.update(traj, violation, real),
        }
        return {
            f"{part}/{name}": x for part, metrics in parts.items() for name, x in metrics.items()
        }

    def rollout_values(self, traj: Trajectory) -> RolloutValues:
        """All critics' estimates along a differentiable rollout; nothing moves."""
        im, states = self.imagination, traj.feat[:, :-1]
        value_r = self.reward_critic.value(traj.feat)  # (N, H+1)
        value_c = self.cost_critic.value(traj.feat)  # (N, H+1)
        cost_return = lambda_return(traj.cost, traj.cont, value_c, im.gamma, im.lam)
        if self.settings.advantage == "q":
            # deviates (D26): states are detached, so that only the action is judged.
            action_value_r = self.reward_critic.q(states.detach(), traj.action)
            action_value_c = self.cost_critic.q(states.detach(), traj.action)
        else:
            action_value_r = lambda_return(traj.reward, traj.cont, value_r, im.gamma, im.lam)
            action_value_c = cost_return
        return RolloutValues(
            action_value_r,
            action_value_c,
            value_r[:, :-1].detach(),
            value_c[:, :-1].detach(),
            cost_return,
            self.reachability.feasibility(states),
        )

    def update_actor(
        self, traj: Trajectory, values: RolloutValues, real: RealTransitions
    ) -> Metrics:
        """Pathwise, in-sample and Lagrangian terms, one step.

        See docs/concepts/algorithm.md (5) to (7).

        Advantages are divided by the running scales as they are.
        """
        u, settings = values.feasibility, self.settings
        scale_r, scale_c = self.reward_critic.moments.scale(), self.cost_critic.moments.scale()
        adv_r = (values.action_value_r - values.state_value_r) / scale_r
        adv_c = (values.action_value_c - values.state_value_c) / scale_c
        objective = u * adv_r - (1 - u) * adv_c + settings.entropy * traj.entropy
        imagined_loss = -(traj.weight * objective).mean()
        penalty, metrics = constraint_step_(self.lagrangian, u * values.cost_return, scale_r)
        loss = settings.imagined_weight * imagined_loss + penalty
        if settings.in_sample_weight:
            in_sample_loss, in_sample_metrics = self.in_sample_loss(real)
            loss = loss + settings.in_sample_weight * in_sample_loss
            metrics |= in_sample_metrics
        step = self.optimizer.step(loss)
        return {
            **step,
            **metrics,
            "imagined_loss": imagined_loss.detach(),
            "entropy": traj.entropy.detach().mean(),
            "adv_r": adv_r.detach().mean(),
            "adv_c": adv_c.detach().mean(),
            "feasibility": u.mean(),
            "saturated": (traj.action.detach().abs() >= 1).float().mean(),
        }

    def in_sample_loss(self, real: RealTransitions) -> tuple[Tensor, Metrics]:
        """Weighted log-likelihood of recorded actions, and metrics.

        See docs/concepts/algorithm.md (6).
        """
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
        """Weights >= 0 and open gates in {0, 1} of recorded pairs, (B, T-1).

        See docs/concepts/algorithm.md (4).
        """
        s, reward, cost = self.settings, self.reward_critic, self.cost_critic
        action_value_r = self._recorded_action_value(reward, real, real.reward)
        action_value_c = self._recorded_action_value(cost, real, real.cost).clamp_min(0)
        adv_r = action_value_r - reward.in_sample_value(real.feat)
        adv_c = action_value_c - cost.in_sample_value(real.feat).clamp_min(0)
        gated = action_value_c if s.gate == "value" else adv_c
        weight = policy_weight(
            self.reachability.feasibility(real.feat),
            adv_r / reward.moments.scale(),
            adv_c / cost.moments.scale(),
            gated,
            s.beta_r, s.beta_c, s.clip_r, s.clip_c, s.cost_tolerance,
        )  # fmt: skip
        return weight, (gated <= s.cost_tolerance).float()

    def _recorded_action_value(
        self, critic: InSampleCritic, real: RealTransitions, signal: Tensor
    ) -> Tensor:
        """Value of recorded actions, (B, T-1): target Q*, or the lambda return of the record."""
        if self.settings.recorded_advantage == "q":
            return critic.in_sample_target_q(real.feat, real.action)
        first, later = real.feat[:, :1], real.feat_next
        value = torch.cat([critic.in_sample_value(x) for x in (first, later)], 1)  # (B, T)
        im = self.imagination
        lam = im.lam * (1 - real.last_next)  # a time limit ends the rows, not the return
        return lambda_return(signal, real.cont, value, im.gamma, lam)


def violation_labels(traj: Trajectory, starts: Starts, threshold: float) -> Tensor:
    """Probability that each imagined state violates, (N, H): recorded in {0, 1} at the start."""
    recorded = violates(starts.cost, threshold).float().unsqueeze(1)  # (N, 1)
    return torch.cat([recorded, traj.violation[:, :-1]], 1)
