"""Safe and imitating baselines, made of the same parts as FOSP (docs/concepts/algorithm.md 9)."""

from __future__ import annotations

from torch import Tensor, nn

from dreamer.actor_critic import StateCritic, policy_action
from dreamer.functional import masked_mean
from dreamer.imagination import imagine
from dreamer.moments import Moments
from dreamer.networks import Actor
from dreamer.optimizer import Optimizer
from dreamer.settings import ActorSettings
from dreamer.types import Batch, Latent, Metrics, Trajectory
from dreamer.world_model import WorldModel
from fosp_ext.lagrange import AugmentedLagrangian, NoConstraint, constraint_step_
from fosp_ext.settings import CloningSettings, SafeImaginationSettings
from fosp_ext.starts import choose_safe_starts
from fosp_ext.transitions import RealTransitions, real_transitions


class SafeDreamer(nn.Module):
    """BSRP-Lag of SafeDreamer: V(s) of reward and of cost in imagination, and the Lagrangian.

    Nothing here reads a recorded action: data enter through the world model and as the states from
    which rollouts start.
    """

    def __init__(
        self,
        settings: ActorSettings,
        imagination: SafeImaginationSettings,
        actor: Actor,
        reward_critic: StateCritic,
        cost_critic: StateCritic,
        lagrangian: AugmentedLagrangian | NoConstraint,
        violation: float,
    ):
        """A recorded row violates from the cost `violation` on."""
        super().__init__()
        self.settings, self.imagination, self.violation = settings, imagination, violation
        self.actor = actor
        self.optimizer = Optimizer(actor.parameters(), settings.optimizer)
        self.reward_critic, self.cost_critic = reward_critic, cost_critic
        self.lagrangian, self.moments = lagrangian, Moments()

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) and estimates for states (N,)."""
        feat = latent.feat()
        return policy_action(self.actor, feat, explore), self.estimates(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """Both values of states (N, F)."""
        return {
            "value": self.reward_critic.value(feat),
            "cost_value": self.cost_critic.value(feat).clamp_min(0),
        }

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """Imagine, move the actor, then both critics on the same rollout."""
        im = self.imagination
        starts = choose_safe_starts(latent, batch, im, self.violation)
        pessimism = im.disagreement, im.worst_cost
        traj = imagine(world_model, self.actor, starts, im.horizon, im.gamma, *pessimism)  # (N, H)
        returns, value = self.reward_critic.returns(traj, traj.reward)
        cost_returns, _ = self.cost_critic.returns(traj, traj.cost)
        self.moments.update_(returns.detach())
        actor_metrics = self.update_actor(traj, returns, value.detach(), cost_returns)
        traj = traj.detach()
        parts = {
            "imagination": {"disagreement": traj.disagreement.mean()},
            "actor": actor_metrics,
            "lagrange": self.lagrangian.metrics(),
            "reward_critic": self.reward_critic.update(traj, returns.detach()),
            "cost_critic": self.cost_critic.update(traj, cost_returns.detach()),
        }
        return {
            f"{part}/{name}": x for part, metrics in parts.items() for name, x in metrics.items()
        }

    def update_actor(
        self, traj: Trajectory, returns: Tensor, value: Tensor, cost_returns: Tensor
    ) -> Metrics:
        """Raise advantages and entropy, lower the weighted cost: one step of the policy.

        Shapes: returns and cost_returns (N, H), differentiable in the rollout's actions; value
        (N, H+1), detached.
        """
        scale = self.moments.scale()
        advantage = (returns - value[:, :-1]) / scale
        imagined_loss = -(traj.weight * (advantage + self.settings.entropy * traj.entropy)).mean()
        penalty, constraint_metrics = constraint_step_(self.lagrangian, cost_returns, scale)
        step = self.optimizer.step(imagined_loss + penalty)
        return {
            **step,
            **constraint_metrics,
            "imagined_loss": imagined_loss.detach(),
            "entropy": traj.entropy.detach().mean(),
            "scale": scale,
            "saturated": (traj.action.detach().abs() >= 1).float().mean(),
        }


class BehaviourCloning(nn.Module):
    """The policy that makes recorded actions likely at the states in which they were chosen.

    It imagines nothing, has no critics and does not know which actions were good or safe.
    """

    def __init__(self, settings: CloningSettings, actor: Actor):
        super().__init__()
        self.actor = actor
        self.optimizer = Optimizer(actor.parameters(), settings.optimizer)

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) and estimates for states (N,)."""
        feat = latent.feat()
        return policy_action(self.actor, feat, explore), self.estimates(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """Nothing: without critics no state has a value."""
        return {}

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One step towards the recorded actions of a batch (B, T)."""
        metrics = self.update_actor(real_transitions(latent, batch))
        return {f"actor/{name}": x for name, x in metrics.items()}

    def update_actor(self, real: RealTransitions) -> Metrics:
        """Minus the mean log-likelihood of the recorded actions, (B, T-1): one step."""
        policy = self.actor(real.feat)
        log_prob = masked_mean(policy.log_prob(real.action), real.mask)
        step = self.optimizer.step(-log_prob)
        entropy = masked_mean(policy.entropy().detach(), real.mask)
        return {**step, "data_log_prob": log_prob.detach(), "entropy": entropy}
