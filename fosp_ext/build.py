"""From a configuration to an agent: the one place that knows method names and devices."""

from __future__ import annotations

import copy

import torch

from dreamer.actor_critic import ActorCritic, PolicyLearner, StateCritic
from dreamer.agent import Agent
from dreamer.build import choose_precision
from dreamer.data.episode import DatasetInfo
from dreamer.networks import Actor
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.baselines import BehaviourCloning, SafeDreamer
from fosp_ext.config import (
    CloningMethod,
    DreamerMethod,
    FOSPMethod,
    FOSPOnline,
    SafeDreamerMethod,
    SafeMethod,
    TrainConfig,
)
from fosp_ext.critics import InSampleCritic
from fosp_ext.lagrange import AugmentedLagrangian, NoConstraint
from fosp_ext.policy_set import PolicySet
from fosp_ext.reachability import AlwaysFeasible, ReachabilityCritic
from fosp_ext.settings import LagrangeSettings, ReachabilitySettings
from fosp_ext.world_model import SafeWorldModel


def build_agent(config: TrainConfig, info: DatasetInfo, device: torch.device) -> Agent:
    """A fresh agent for observations and actions as `info` describes, with all its policies."""
    return expand(build_learner(config, info, device), config)


def begin_online(config: TrainConfig, info: DatasetInfo, offline: Agent) -> Agent:
    """The agent of an online run as it goes on from an offline one; they share no storage.

    Everything that learns is taken over, optimisers and running scales included.
    """
    agent = build_learner(config, info, next(offline.parameters()).device)
    agent.load_state_dict(copy.deepcopy(offline.state_dict()))  # or Adam would share its tensors
    return expand(agent, config)


def build_learner(config: TrainConfig, info: DatasetInfo, device: torch.device) -> Agent:
    """The same agent with the learning policy alone, as the offline phase leaves it."""
    cameras = dict.fromkeys(info.cameras, (info.size, info.size, 3))
    A = info.action_size
    world_model = (
        SafeWorldModel(
            cameras, A, config.world_model, config.cost_head, config.env.violation, info.vectors
        )
        if isinstance(config, SafeMethod)
        else WorldModel(cameras, A, config.world_model, vectors=info.vectors)
    )
    policy = build_policy(config, world_model.feat_size, A)
    return Agent(world_model, policy, A, choose_precision(config.precision, device)).to(device)


def expand(agent: Agent, config: TrainConfig) -> Agent:
    """Safe policy expansion, where the settings ask for it: else the agent as it is.

    The policy that the agent has now is frozen beside the learning one, so the offline phase's
    weights are loaded before.
    """
    if not isinstance(config, FOSPOnline) or not config.policy_set.enabled:
        return agent
    assert isinstance(agent.policy, SafeActorCritic), "FOSP alone has a set"
    policy_set = PolicySet(agent.policy, config.policy_set)
    return Agent(agent.world_model, policy_set, agent.action_size, agent.precision)


def build_policy(config: TrainConfig, feat_size: int, action_size: int) -> PolicyLearner:
    """What acts and learns on the latents, by the method of the configuration."""
    match config:
        case FOSPMethod():
            return build_fosp(feat_size, action_size, config, config.env.violation)
        case SafeDreamerMethod():
            return build_safedreamer(feat_size, action_size, config, config.env.violation)
        case CloningMethod():
            return build_cloning(feat_size, action_size, config)
        case DreamerMethod():
            return build_dreamer(feat_size, action_size, config)
    raise TypeError(f"{type(config).__name__} names no method")


def build_dreamer(feat_size: int, action_size: int, config: DreamerMethod) -> ActorCritic:
    """DreamerV3, blind to costs."""
    return ActorCritic(feat_size, action_size, config.actor, config.critic, config.imagination)


def build_fosp(
    feat_size: int, action_size: int, config: FOSPMethod, violation: float
) -> SafeActorCritic:
    """FOSP; its ablations have the same policy and critics, and stand-ins for other parts."""
    im, sizes = config.imagination, (feat_size, action_size)
    return SafeActorCritic(
        config.actor,
        im,
        actor=Actor(*sizes, config.actor.net),
        reward_critic=InSampleCritic(*sizes, config.critic, im, sign=+1),
        cost_critic=InSampleCritic(*sizes, config.cost_critic, im, sign=-1),
        reachability=build_reachability(feat_size, config.reachability, violation),
        lagrangian=build_lagrangian(config.lagrange),
        violation=violation,
    )


def build_safedreamer(
    feat_size: int, action_size: int, config: SafeDreamerMethod, violation: float
) -> SafeDreamer:
    """SafeDreamer (BSRP-Lag): state values and the Lagrangian, nothing in-sample."""
    im = config.imagination
    return SafeDreamer(
        config.actor,
        im,
        actor=Actor(feat_size, action_size, config.actor.net),
        reward_critic=StateCritic(feat_size, config.critic, im),
        cost_critic=StateCritic(feat_size, config.cost_critic, im),
        lagrangian=build_lagrangian(config.lagrange),
        violation=violation,
    )


def build_cloning(feat_size: int, action_size: int, config: CloningMethod) -> BehaviourCloning:
    """Behaviour cloning on latents."""
    return BehaviourCloning(config.actor, Actor(feat_size, action_size, config.actor.net))


def build_reachability(
    feat_size: int, settings: ReachabilitySettings, violation: float
) -> ReachabilityCritic | AlwaysFeasible:
    """The learned estimate, or the stand-in that calls every state feasible."""
    if not settings.enabled:
        return AlwaysFeasible()
    return ReachabilityCritic(feat_size, settings, violation)


def build_lagrangian(settings: LagrangeSettings) -> AugmentedLagrangian | NoConstraint:
    """The augmented Lagrangian, or the stand-in that gives cost no weight."""
    if not settings.enabled:
        return NoConstraint()
    return AugmentedLagrangian(
        settings.multiplier,
        settings.penalty,
        settings.growth,
        settings.cost_limit,
        settings.max_multiplier,
    )
