"""From settings to an agent, ready for its device."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from dreamer.actor_critic import ActorCritic
from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError
from dreamer.settings import (
    ActorSettings,
    CriticSettings,
    ImaginationSettings,
    WorldModelSettings,
)
from dreamer.world_model import WorldModel


def build_dreamer(
    info: DatasetInfo,
    world_model: WorldModelSettings,
    imagination: ImaginationSettings,
    actor: ActorSettings,
    critic: CriticSettings,
    precision: torch.dtype,
) -> Agent:
    """A fresh DreamerV3 for the observations and actions that `info` describes, on the CPU."""
    cameras, A = dict.fromkeys(info.cameras, (info.size, info.size, 3)), info.action_size
    model = WorldModel(cameras, A, world_model, vectors=info.vectors)
    policy = ActorCritic(model.feat_size, A, actor, critic, imagination)
    return Agent(model, policy, A, precision)


def compile_agent(agent: Agent, when: str, device: torch.device) -> None:
    """Let torch.compile have the repeated steps of an update; `when` is auto, on or off.

    `auto` does so on a GPU: on a processor, compiling takes longer than a short run gains. With
    `auto`, a step that cannot be compiled after all runs as it is.
    """
    possible = can_compile(device)
    if when == "on" and not possible:
        raise UserError("compile on needs a C++ compiler such as g++, and Triton on a GPU")
    if when == "on" or (when == "auto" and device.type == "cuda" and possible):
        torch._dynamo.config.suppress_errors = when == "auto"
        agent.world_model.rssm.compile_steps()


def can_compile(device: torch.device) -> bool:
    """Is there what torch.compile builds kernels with?"""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return False
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


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
