"""From a configuration to an agent: the one place that knows method names and devices."""

from __future__ import annotations

import torch

from dreamer.actor_critic import ActorCritic, StateCritic
from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.networks import Actor
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.baselines import BehaviourCloning, SafeDreamer
from fosp_ext.critics import InSampleCritic
from fosp_ext.lagrange import AugmentedLagrangian, FreeOfCharge
from fosp_ext.reachability import AlwaysFeasible, ReachabilityCritic
from fosp_ext.settings import Config, LagrangeSettings, ReachabilitySettings
from fosp_ext.world_model import SafeWorldModel


def build_agent(config: Config, info: DatasetInfo, device: torch.device) -> Agent:
    """A fresh agent for the cameras and actions that `info` describes."""
    cameras = dict.fromkeys(info.cameras, (info.size, info.size, 3))
    A = info.action_size
    if config.method == "dreamerv3":
        world_model = WorldModel(cameras, A, config.world_model)
    else:
        world_model = SafeWorldModel(cameras, A, config.world_model, config.cost_head.weight)
    behavior = BEHAVIORS[config.method](world_model.feat_size, A, config)
    return Agent(world_model, behavior, A, choose_precision(config.precision, device)).to(device)


def build_dreamer(feat_size: int, action_size: int, config: Config) -> ActorCritic:
    """DreamerV3, blind to costs."""
    return ActorCritic(feat_size, action_size, config.actor, config.critic, config.imagination)


def build_fosp(feat_size: int, action_size: int, config: Config) -> SafeActorCritic:
    """FOSP; its ablations have the same policy and critics, and stand-ins for other parts."""
    im, sizes = config.imagination, (feat_size, action_size)
    return SafeActorCritic(
        config.actor,
        im,
        actor=Actor(*sizes, config.actor.net),
        reward_critic=InSampleCritic(*sizes, config.critic, im, sign=+1),
        cost_critic=InSampleCritic(*sizes, config.cost_critic, im, sign=-1),
        reachability=build_reachability(feat_size, config.reachability),
        lagrangian=build_lagrangian(config.lagrange),
    )


def build_safedreamer(feat_size: int, action_size: int, config: Config) -> SafeDreamer:
    """SafeDreamer (BSRP-Lag): state values and the Lagrangian, nothing in-sample."""
    im = config.imagination
    return SafeDreamer(
        config.actor,
        im,
        actor=Actor(feat_size, action_size, config.actor.net),
        reward_critic=StateCritic(feat_size, config.critic, im),
        cost_critic=StateCritic(feat_size, config.cost_critic, im),
        lagrangian=build_lagrangian(config.lagrange),
    )


def build_cloning(feat_size: int, action_size: int, config: Config) -> BehaviourCloning:
    """Behaviour cloning on latents."""
    return BehaviourCloning(config.actor, Actor(feat_size, action_size, config.actor.net))


def build_reachability(
    feat_size: int, settings: ReachabilitySettings
) -> ReachabilityCritic | AlwaysFeasible:
    """The learned estimate, or the stand-in that calls every state feasible."""
    return ReachabilityCritic(feat_size, settings) if settings.enabled else AlwaysFeasible()


def build_lagrangian(settings: LagrangeSettings) -> AugmentedLagrangian | FreeOfCharge:
    """The augmented Lagrangian, or the stand-in without a price."""
    if not settings.enabled:
        return FreeOfCharge()
    return AugmentedLagrangian(
        settings.multiplier,
        settings.penalty,
        settings.growth,
        settings.cost_limit,
        settings.max_multiplier,
    )


BEHAVIORS = {
    "fosp": build_fosp,
    "safedreamer": build_safedreamer,
    "bc": build_cloning,
    "dreamerv3": build_dreamer,
}


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
