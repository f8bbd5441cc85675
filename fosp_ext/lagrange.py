"""The augmented Lagrangian: a weight on expected cost that rises while the limit is broken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer import distributed
from dreamer.types import Metrics


class AugmentedLagrangian(nn.Module):
    """Multiplier and penalty of docs/concepts/algorithm.md 5.4 (Nocedal and Wright, eq. 17.65).

    Both are scalar buffers: saved with the agent, moved by `step_`, never by an optimiser.
    """

    multiplier: Tensor
    penalty: Tensor

    def __init__(
        self,
        multiplier: float = 1e-6,
        penalty: float = 5e-9,
        growth: float = 1e-5,
        cost_limit: float = 0.0,
        max_multiplier: float = 10.0,
    ):
        """`growth` is the relative rise of the penalty per update; the penalty never exceeds 1."""
        super().__init__()
        self.growth, self.cost_limit, self.max_multiplier = growth, cost_limit, max_multiplier
        self.register_buffer("multiplier", torch.tensor(multiplier))
        self.register_buffer("penalty", torch.tensor(penalty))

    def step_(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Penalty loss Psi and its slope at a scalar constraint signal; then both buffers move.

        With g = cost - cost_limit and m = multiplier + penalty * g at the old values,
        Psi = multiplier * g + penalty / 2 * g^2 where m > 0, else -multiplier^2 / (2 * penalty).
        The slope dPsi/dcost = max(0, m) is the weight of cost in the loss; it has no gradient.
        """
        multiplier, penalty = self.multiplier.clone(), self.penalty.clone()
        g = cost - self.cost_limit
        m = multiplier + penalty * g
        active = multiplier * g + 0.5 * penalty * g.square()
        loss = torch.where(m > 0, active, -multiplier.square() / (2 * penalty))
        with torch.no_grad():
            self.multiplier.copy_(m.clamp(0.0, self.max_multiplier))
            self.penalty.mul_(1 + self.growth).clamp_max_(1.0)
        return loss, m.detach().clamp_min(0)

    def metrics(self) -> Metrics:
        """The state now, as scalars."""
        return {"multiplier": self.multiplier.clone(), "penalty": self.penalty.clone()}


class NoConstraint(nn.Module):
    """Cost has no weight, in place of the augmented Lagrangian: `lagrange.enabled: false`."""

    def step_(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and weight are 0; neither has a gradient to `cost`."""
        return torch.zeros_like(cost), torch.zeros_like(cost)

    def metrics(self) -> Metrics:
        """Nothing to tell."""
        return {}


def constraint_step_(
    lagrangian: AugmentedLagrangian | NoConstraint, cost_return: Tensor, scale: Tensor
) -> tuple[Tensor, Metrics]:
    """Penalty loss of imagined cost returns (N, H), and metrics; the Lagrangian moves by one step.

    The constraint signal is pessimistic: cost returns are summed over the horizon, then averaged
    over the starts of all processes. `scale` is the running scale of reward returns, by which
    `cost_weight` says how strongly cost pulls against normalised reward.
    """
    constraint = distributed.joint_mean(cost_return.sum(1).mean())
    loss, weight = lagrangian.step_(constraint)
    return loss, {
        "constraint": constraint.detach(),
        "penalty": loss.detach() * (weight > 0),
        "cost_weight": cost_return.shape[1] * weight * scale,
    }
