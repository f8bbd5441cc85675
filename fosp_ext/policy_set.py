"""Safe policy expansion: choosing between a frozen and a learning policy.

See docs/concepts/algorithm.md 6.
"""

from __future__ import annotations

from torch import Tensor, nn

from dreamer.actor_critic import frozen_copy
from dreamer.agent import Agent
from dreamer.errors import UserError
from dreamer.networks import Actor
from dreamer.types import Batch, Latent, Metrics
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.choice import Choice, Critics
from fosp_ext.settings import PolicySetSettings


class PolicySet(nn.Module):
    """A frozen copy of the offline policy beside the learner: both propose, the critics choose.

    Only the learner learns; the frozen policy and the running spread of the scores are part of the
    `state_dict`.
    """

    def __init__(self, learner: SafeActorCritic, settings: PolicySetSettings):
        """Freeze a copy of the learner's policy, as it is now; the learner goes on as it is."""
        super().__init__()
        self.learner = learner
        self.offline = frozen_copy(learner.actor)
        self.choice = Choice(settings)

    @property
    def actor(self) -> Actor:
        """The policy that learns."""
        return self.learner.actor

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) for states (N,): in each row one of the proposals, unchanged.

        To explore, both policies sample their proposals and the choice is sampled (PEX); else the
        first proposal of each is its mean and the preferred one is taken. Beside the learner's
        estimates, `online` (0 or 1) says whether the learning policy's action was taken, and
        `p_online` with which probability a sampled choice takes one of its actions.
        """
        actors = (self.offline, self.actor)
        chosen = self.choice.choose(world_model, latent, actors, self.learner, explore)
        first = self.choice.settings.proposals  # the first one of the learning policy
        return chosen.action, {
            **self.estimates(latent.feat()),
            "online": (chosen.place >= first).float(),
            "p_online": chosen.probabilities[:, first:].sum(1),
        }

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """The learner's estimates of states (N, F), name -> (N,)."""
        return self.learner.estimates(feat)

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One step of the learner, which imagines with its own policy alone."""
        return self.learner.update(world_model, latent, batch)


class ChoosingPolicy(nn.Module):
    """One policy alone that proposes several actions; the critics beside it choose."""

    def __init__(self, learner: Critics, settings: PolicySetSettings):
        """Share everything with the learner."""
        super().__init__()
        self.learner = learner
        self.choice = Choice(settings)

    def act(
        self, world_model: WorldModel, latent: Latent, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) for states (N,), proposals as they were made, and the estimates."""
        learner = self.learner
        chosen = self.choice.choose(world_model, latent, [learner.actor], learner, explore)
        return chosen.action, self.estimates(latent.feat())

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """The learner's estimates of states (N, F), name -> (N,)."""
        return self.learner.estimates(feat)

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One step of the learner."""
        return self.learner.update(world_model, latent, batch)


def choosing_policy(agent: Agent, settings: PolicySetSettings) -> Agent:
    """The agent whose one policy, of a set the learning one, proposes several actions.

    It shares all networks with the agent and is meant for acting. Settings that leave no choice,
    and an agent without the critics for it, are a `UserError`.
    """
    policy = agent.policy
    learner = policy.learner if isinstance(policy, PolicySet) else policy
    if not isinstance(learner, Critics):
        raise UserError("policy 'proposals' cannot be chosen: this agent does not judge costs")
    if settings.proposals < 2:
        raise UserError("one proposal leaves no choice; add --policy_set.proposals 8")
    if settings.score == "q" and not isinstance(learner, SafeActorCritic):
        raise UserError("this agent has no Q; add --policy_set.score rollout")
    choosing = ChoosingPolicy(learner, settings)
    return Agent(agent.world_model, choosing, agent.action_size, agent.precision)


def single_policy(agent: Agent, policy: str) -> Agent:
    """The agent acting with one policy of its set alone, `online` or `offline`.

    It shares all networks with the agent and is meant for acting. An agent without a set is a
    `UserError`.
    """
    policy_set = agent.policy
    if not isinstance(policy_set, PolicySet):
        raise UserError(f"policy '{policy}' cannot be chosen: this run has no set, one policy acts")
    learner = policy_set.learner
    if policy == "offline":
        learner = learner.with_actor(policy_set.offline)
    return Agent(agent.world_model, learner, agent.action_size, agent.precision)
