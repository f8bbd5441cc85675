"""The reachability estimation function (REF) of RESPO (docs/concepts/algorithm.md 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.actor_critic import frozen_copy
from dreamer.functional import masked_mean, polyak_, violates
from dreamer.networks import BernoulliHead
from dreamer.optimizer import Optimizer
from dreamer.types import Metrics, Trajectory
from fosp_ext.settings import ReachabilitySettings
from fosp_ext.targets import expectile_weight, reachability_target
from fosp_ext.transitions import RealTransitions


class ReachabilityCritic(nn.Module):
    """p(s) in (0, 1): probability that a violation is reached from s (RESPO, Def. 3).

    u(s) = 1 - p(s) is the feasibility of a state.
    """

    def __init__(self, feat_size: int, settings: ReachabilitySettings, violation: float):
        """A recorded state violates from the cost `violation` on."""
        super().__init__()
        self.settings, self.violation = settings, violation
        self.net = BernoulliHead(feat_size, settings.net.layers, settings.net.units, outscale=0.0)
        nn.init.constant_(self.net.mlp.output.bias, settings.bias)
        self.target_net = frozen_copy(self.net)
        self.optimizer = Optimizer(self.net.parameters(), settings.optimizer)

    def violation_probability(self, feat: Tensor) -> Tensor:
        """p(s): (..., F) -> (...)."""
        return self.net(feat).probs()

    @torch.no_grad()
    def feasibility(self, feat: Tensor) -> Tensor:
        """u(s) = 1 - p(s) without gradient: (..., F) -> (...)."""
        return 1 - self.violation_probability(feat)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """p of states (N, F), which evaluations show."""
        return {"violation_probability": self.violation_probability(feat)}

    def update(self, traj: Trajectory, violation: Tensor, real: RealTransitions) -> Metrics:
        """One step; `violation` (N, H) are the probabilities that imagined states violate."""
        dist = self.net(traj.feat[:, :-1])
        target = self.imagined_target(traj, violation)
        imagined_loss = (traj.weight * dist.loss(target)).mean()
        recorded = self.net(real.feat)
        real_target = self.real_target(real)
        error = real_target - recorded.probs().detach()
        weight = expectile_weight(error, self.settings.real_expectile)
        real_loss = masked_mean(weight * recorded.loss(real_target), real.mask)
        step = self.optimizer.step(imagined_loss + self.settings.real_weight * real_loss)
        polyak_(self.target_net, self.net, self.settings.tau)
        p, recorded_p = dist.probs().detach(), recorded.probs().detach()
        return {
            **step,
            "imag_loss": imagined_loss.detach(),
            "real_loss": real_loss.detach(),
            "violation_probability": p.mean(),
            "violation_probability_above_90": (p > 0.9).float().mean(),
            "violation_probability_below_10": (p < 0.1).float().mean(),
            "violation_probability_at_violation": masked_mean(
                recorded_p, self.recorded_violation(real) * real.mask
            ),
            "violation_rate": violation.mean(),
        }

    @torch.no_grad()
    def imagined_target(self, traj: Trajectory, violation: Tensor) -> Tensor:
        """Discounted probability to violate along imagined rollouts (RESPO, Thm. 1), (N, H)."""
        target_p = self.target_net(traj.feat).probs()  # (N, H+1)
        mu, lam = self.settings.mu, self.settings.lam
        return reachability_target(violation, traj.cont, target_p, mu, lam)

    @torch.no_grad()
    def real_target(self, real: RealTransitions) -> Tensor:
        """One recorded step, then the target network's p, (B, T-1)."""
        onward = self.settings.mu * real.cont * self.target_net(real.feat_next).probs()
        violation = self.recorded_violation(real)
        return violation + (1 - violation) * onward

    def recorded_violation(self, real: RealTransitions) -> Tensor:
        """Does the state violate from which a recorded transition starts? (B, T-1) in {0, 1}."""
        return violates(real.start_cost, self.violation).float()


class AlwaysFeasible(nn.Module):
    """u(s) = 1 everywhere, in place of a learned estimate: `reachability.enabled: false`."""

    def feasibility(self, feat: Tensor) -> Tensor:
        """1 for every state: (..., F) -> (...)."""
        return torch.ones(feat.shape[:-1], device=feat.device)

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """None: there is no violation probability to show."""
        return {}

    def update(self, traj: Trajectory, violation: Tensor, real: RealTransitions) -> Metrics:
        """Nothing to learn."""
        return {}
