"""From a configuration to an agent: the one place that knows method names and devices."""

from __future__ import annotations

import torch

from dreamer.actor_critic import ActorCritic
from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.settings import Config
from fosp_ext.world_model import SafeWorldModel


def build_agent(config: Config, info: DatasetInfo, device: torch.device) -> Agent:
    """A fresh agent for the cameras and actions that `info` describes."""
    cameras = dict.fromkeys(info.cameras, (info.size, info.size, 3))
    A = info.action_size
    if config.method == "dreamerv3":
        world_model = WorldModel(cameras, A, config.world_model)
        behavior = ActorCritic(
            world_model.feat_size, A, config.actor, config.critic, config.imagination
        )
    else:
        world_model = SafeWorldModel(cameras, A, config.world_model, config.cost_head.weight)
        behavior = SafeActorCritic(world_model.feat_size, A, config)
    return Agent(world_model, behavior, A, choose_precision(config.precision, device)).to(device)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Type of matrix products: `auto` is bfloat16 where the processor has it, else float32."""
    if name == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
        name = "bfloat16" if fast else "float32"
    return getattr(torch, name)
