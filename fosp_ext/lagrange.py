"""The augmented Lagrangian: a price on expected cost that rises while the limit is broken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.types import Metrics


class AugmentedLagrangian(nn.Module):
    """Multiplier and penalty of docs/algorithm.md 5.4 (Nocedal and Wright, eq. 17.65).

    Both are buffers: saved with the agent, moved by `penalty_loss`, never by an optimiser.
    """

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

    def price(self, cost: Tensor) -> Tensor:
        """m = multiplier + penalty * (cost - cost_limit); above 0 it is the gradient of Psi."""
        return self.multiplier + self.penalty * (cost - self.cost_limit)

    def penalty_loss(self, cost: Tensor) -> Tensor:
        """Loss Psi for a scalar constraint signal `cost`; then multiplier and penalty move.

        With g = cost - cost_limit and m = multiplier + penalty * g at the old values,
        Psi = multiplier * g + penalty / 2 * g^2 where m > 0, else -multiplier^2 / (2 * penalty),
        so that dPsi/dcost = max(0, m).
        """
        multiplier, penalty = self.multiplier.clone(), self.penalty.clone()
        g = cost - self.cost_limit
        m = multiplier + penalty * g
        active = multiplier * g + 0.5 * penalty * g.square()
        with torch.no_grad():
            self.multiplier.copy_(m.clamp(0.0, self.max_multiplier))
            self.penalty.mul_(1 + self.growth).clamp_max_(1.0)
        return torch.where(m > 0, active, -multiplier.square() / (2 * penalty))

    def metrics(self) -> Metrics:
        """The state now, as scalars."""
        return {"multiplier": self.multiplier.clone(), "penalty": self.penalty.clone()}


class NoConstraint(nn.Module):
    """No price at all, in place of the augmented Lagrangian: `lagrange.enabled: false`."""

    def price(self, cost: Tensor) -> Tensor:
        """0 for any constraint signal."""
        return torch.zeros_like(cost)

    def penalty_loss(self, cost: Tensor) -> Tensor:
        """0, without a gradient to `cost`."""
        return torch.zeros_like(cost)

    def metrics(self) -> Metrics:
        """Nothing to tell."""
        return {}
