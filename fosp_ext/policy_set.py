"""Safe policy expansion: choosing between a frozen and a learning policy.

See docs/concepts/algorithm.md 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.actor_critic import frozen_copy, policy_action
from dreamer.agent import Agent
from dreamer.errors import UserError
from dreamer.networks import Actor
from dreamer.types import Batch, Latent, Metrics
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.settings import PolicySetSettings

ONLINE = 1  # the place of the learning policy among the proposals; the frozen one is 0


class PolicySet(nn.Module):
    """A frozen copy of the offline policy beside the learner: both propose, the critics choose.

    Only the learner learns; the frozen policy is part of the `state_dict`.
    """

    def __init__(self, learner: SafeActorCritic, settings: PolicySetSettings):
        """Freeze a copy of the learner's policy, as it is now; the learner goes on as it is."""
        super().__init__()
        self.settings, self.learner = settings, learner
        self.offline = frozen_copy(learner.actor)

    @property
    def actor(self) -> Actor:
        """The policy that learns."""
        return self.learner.actor

    def act(self, feat: Tensor, explore: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) for features (N, F): in each row one of the two proposals, unchanged.

        To explore, both policies sample their proposal and the choice is sampled (PEX); else the
        proposals are means and the preferred one is taken. Beside the learner's estimates, `online`
        (0 or 1) says whether the learning policy's action was taken, and `p_online` with which
        probability a sampled choice takes it.
        """
        actors = (self.offline, self.actor)
        actions = torch.stack([policy_action(actor, feat, explore) for actor in actors], 1)
        q_r, q_c = self.score_proposals(feat, actions)
        kappa, alpha = self.settings.kappa, self.settings.alpha
        probabilities = selection_probabilities(q_r, q_c, kappa, alpha)  # (N, P)
        if explore:
            upto = probabilities.cumsum(1)[:, :-1]  # (N, P-1)
            chosen = (torch.rand_like(upto[:, :1]) >= upto).sum(1)  # (N,)
        else:
            chosen = preference(q_r, q_c, kappa).argmax(1)
        return actions[torch.arange(len(actions), device=actions.device), chosen], {
            **self.estimates(feat),
            "online": (chosen == ONLINE).float(),
            "p_online": probabilities[:, ONLINE],
        }

    def score_proposals(self, feat: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Q_r and Q_c (N, P) of proposals (N, P, A) at features (N, F).

        Neither is normalised or clamped at 0: what counts is the difference between proposals, and
        a clamp would hide one below 0.
        """
        # One call per proposal: equal ones get equal values to the last bit.
        q_r, q_c = (
            torch.stack([critic.q(feat, action) for action in actions.unbind(1)], 1)
            for critic in (self.learner.reward_critic, self.learner.cost_critic)
        )
        return q_r, q_c

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """The learner's estimates of states (N, F), name -> (N,)."""
        return self.learner.estimates(feat)

    def update(self, world_model: WorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One step of the learner, which imagines with its own policy alone."""
        return self.learner.update(world_model, latent, batch)


def preference(q_r: Tensor, q_c: Tensor, kappa: float) -> Tensor:
    """Value of each proposal, q_r - kappa * q_c, in raw reward; same shape."""
    return q_r - kappa * q_c


def selection_probabilities(q_r: Tensor, q_c: Tensor, kappa: float, alpha: float) -> Tensor:
    """Probability of each proposal: softmax(alpha * (q_r - kappa * q_c)).

    See docs/concepts/algorithm.md 6.

    Shapes: q_r, q_c (..., P), raw (not normalised) values -> (..., P), rows summing to 1. `kappa`
    >= 0 is what a unit of cost is worth in reward, `alpha` >= 0 the inverse temperature (0 is
    uniform).
    """
    return (alpha * preference(q_r, q_c, kappa)).softmax(-1)


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
