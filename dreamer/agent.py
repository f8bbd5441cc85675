"""The agent: a world model, a behaviour, and the state carried between environment steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from dreamer.actor_critic import Behavior
from dreamer.types import Batch, Latent, Metrics
from dreamer.world_model import WorldModel


class AgentState(NamedTuple):
    """What an agent remembers of N running episodes."""

    latent: Latent  # (N,)
    action: Tensor  # (N, A), the action that led to the next observation


class Agent(nn.Module):
    """World model plus behaviour: `update` learns from a batch, `act` answers observations."""

    def __init__(
        self, world_model: WorldModel, behavior: Behavior, action_size: int, precision: torch.dtype
    ):
        super().__init__()
        self.world_model, self.behavior = world_model, behavior
        self.action_size, self.precision = action_size, precision

    def update(self, batch: Batch) -> Metrics:
        """One gradient step for the model, then one for the behavior."""
        with record_function("world model"), self.autocast(batch.reward.device):
            latent, model_metrics = self.world_model.update(batch)
        with record_function("behaviour"), self.autocast(batch.reward.device):
            behavior_metrics = self.behavior.update(self.world_model, latent, batch)
        return {**{f"wm/{name}": x for name, x in model_metrics.items()}, **behavior_metrics}

    def initial(self, count: int) -> AgentState:
        """The state before the first observation of `count` episodes."""
        latent = self.world_model.rssm.initial(count)
        return AgentState(latent, latent.deter.new_zeros(count, self.action_size))

    @torch.no_grad()
    def act(
        self, obs: dict[str, Tensor], is_first: Tensor, state: AgentState, explore: bool
    ) -> tuple[Tensor, AgentState, dict[str, Tensor]]:
        """Answer one observation per environment.

        Shapes: obs camera -> (N, height, width, 3) uint8, is_first (N,) -> actions (N, A) in
        [-1, 1], the state to pass next time, and what the behaviour thinks, name -> (N,).
        """
        with self.autocast(is_first.device):
            embed = self.world_model.encoder({name: x.unsqueeze(1) for name, x in obs.items()})
            latent = self.world_model.rssm.obs_step(
                state.latent, state.action, embed[:, 0], is_first
            )
            action, estimates = self.behavior.act(latent.feat(), explore)
        return action, AgentState(latent, action), estimates

    def autocast(self, device: torch.device) -> torch.autocast:
        """Matrix products in `precision`; a new context per update, so no old weight is reused."""
        return torch.autocast(device.type, self.precision, self.precision != torch.float32)
