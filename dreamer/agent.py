"""The agent: a world model, a policy, and the state carried between environment steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from dreamer.actor_critic import PolicyLearner
from dreamer.types import Batch, Latent, Metrics
from dreamer.world_model import WorldModel


class AgentState(NamedTuple):
    """What an agent remembers of N running episodes."""

    latent: Latent  # (N,)
    action: Tensor  # (N, A), the action that led to the next observation


class Agent(nn.Module):
    """World model plus policy: `update` learns from a batch, `act` acts in environments."""

    def __init__(
        self,
        world_model: WorldModel,
        policy: PolicyLearner,
        action_size: int,
        precision: torch.dtype,
    ):
        super().__init__()
        self.world_model, self.policy = world_model, policy
        self.action_size, self.precision = action_size, precision

    def update(
        self, batch: Batch, update_policy: bool = True, update_model: bool = True
    ) -> Metrics:
        """One gradient step for the model, then one for the policy, of those that learn now."""
        metrics: Metrics = {}
        with record_function("world model"), self.autocast(batch.reward.device):
            before, batch = self.world_model.warm_up(batch)
            if update_model:
                latent, model_metrics = self.world_model.update(batch, before)
                metrics = {f"wm/{name}": x for name, x in model_metrics.items()}
            else:
                latent = self.world_model.follow(batch, before)
        if update_policy:
            with record_function("policy"), self.autocast(batch.reward.device):
                metrics |= self.policy.update(self.world_model, latent, batch)
        return metrics

    def initial(self, count: int) -> AgentState:
        """The state before the first observation of `count` episodes."""
        latent = self.world_model.rssm.initial(count)
        return AgentState(latent, latent.deter.new_zeros(count, self.action_size))

    @torch.no_grad()
    def act(
        self, obs: dict[str, Tensor], is_first: Tensor, state: AgentState, explore: bool
    ) -> tuple[Tensor, AgentState, dict[str, Tensor]]:
        """One action for the observation of each environment.

        Shapes: obs camera -> (N, height, width, 3) uint8, is_first (N,) -> actions (N, A) in
        [-1, 1], the state to pass next time, and the policy's estimates, name -> (N,).
        A CPU acts in float32: for a few rows, lowering the weights costs more than it saves.
        """
        acting = torch.float32 if is_first.device.type == "cpu" else self.precision
        with self.autocast(is_first.device, acting):
            embed = self.world_model.encoder({name: x.unsqueeze(1) for name, x in obs.items()})
            latent = self.world_model.rssm.obs_step(
                state.latent, state.action, embed[:, 0], is_first
            )
            action, estimates = self.policy.act(self.world_model, latent, explore)
        return action, AgentState(latent, action), estimates

    def autocast(
        self, device: torch.device, precision: torch.dtype | None = None
    ) -> torch.autocast:
        """Matrix products in `precision`, or that of updates; a new one holds no old weights."""
        precision = precision or self.precision
        return torch.autocast(device.type, precision, precision != torch.float32)
