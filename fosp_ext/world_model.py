"""The world model with a cost decoder (docs/concepts/algorithm.md 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from dreamer.distributions import TwoHot
from dreamer.functional import violates
from dreamer.networks import TwoHotHead
from dreamer.rssm import Before, Posterior
from dreamer.settings import WorldModelSettings
from dreamer.types import Batch, Metrics
from dreamer.world_model import ALL_ROWS, WorldModel
from fosp_ext.settings import CostHeadSettings


def cost_weights(cost: Tensor, weight: float) -> Tensor:
    """Class weights of the cost loss, same shape: `weight` where cost >= 1, else 1.

    The 1 is a constant of this loss, not the threshold of a violation
    (docs/concepts/algorithm.md 2.3).
    """
    return torch.where(cost >= 1, weight, 1.0)


def unweighted_probability(fitted: Tensor, weight: float) -> Tensor:
    """Probability q behind a fit f = w q / (1 + (w - 1) q) under the class weight w, in [0, 1]."""
    return fitted / (weight - (weight - 1) * fitted)


class SafeWorldModel(WorldModel):
    """Also predicts the cost received on arriving at a state."""

    cost_head: TwoHotHead

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int, int]],
        action_size: int,
        settings: WorldModelSettings,
        cost_settings: CostHeadSettings,
        violation: float,
        vectors: Mapping[str, int] | None = None,
    ):
        """A state violates from the cost `violation` on. Unlike the reward head the cost decoder
        does not start at zero.
        """
        layers, units = settings.heads.layers, settings.heads.units
        cost_head = partial(TwoHotHead, layers=layers, units=units, outscale=1.0)
        super().__init__(cameras, action_size, settings, {"cost_head": cost_head}, vectors)
        self.cost_settings, self.violation = cost_settings, violation

    def head_losses(self, feat: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of all scalar heads, name -> (B, T)."""
        return {**super().head_losses(feat, batch), "cost_loss": self.cost_loss(feat, batch.cost)}

    def cost_loss(self, feat: Tensor, cost: Tensor) -> Tensor:
        """Scaled and weighted loss of the cost decoder: (..., F) and (...) -> (...)."""
        weight = self.cost_settings.scale * cost_weights(cost, self.cost_settings.weight)
        return weight * self.cost_head(feat).loss(cost)

    def predict_cost(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Read-outs of the cost decoder at states (..., F); `violation` is freed of the class
        weight.
        """
        dist: TwoHot = self.cost_head(feat)
        with torch.no_grad():
            fitted = dist.mass_above(self.violation)
            violation = unweighted_probability(fitted, self.cost_settings.weight)
        return dist.mean(), violation

    def losses(
        self, batch: Batch, reconstructed: slice = ALL_ROWS, before: Before | None = None
    ) -> tuple[Posterior, dict[str, Tensor], Metrics]:
        """Adds the shares of rows that violate, that raise a warning, and that rightly do."""
        posterior, losses, metrics = super().losses(batch, reconstructed, before)
        with torch.no_grad():
            expected = self.cost_head(posterior.latent.feat()).mean()
            predicted = violates(expected, self.violation)
            recorded = violates(batch.cost, self.violation)
        metrics["cost_rate"] = recorded.float().mean()
        metrics["cost_warning_rate"] = predicted.float().mean()
        metrics["cost_hit_rate"] = (predicted & recorded).float().mean()
        return posterior, losses, metrics
