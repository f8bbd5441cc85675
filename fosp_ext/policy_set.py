"""Safe policy expansion: choosing between a frozen and a learning policy (docs/algorithm.md 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.actor_critic import frozen_copy, policy_action
from dreamer.agent import Agent
from dreamer.errors import UserError
from dreamer.networks import Actor
from dreamer.optimizer import Optimizer
from dreamer.types import Batch, Latent, Metrics
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.settings import PolicySetSettings
from fosp_ext.world_model import SafeWorldModel

ONLINE = 1  # the place of the learning policy among the proposals; the frozen one is 0


class PolicySet(nn.Module):
    """A learner and its policy as it was: both propose, their critics choose who acts.

    Only the learner learns. What is here beside it is the frozen policy, which the `state_dict`
    holds too.
    """

    def __init__(self, learner: SafeActorCritic, settings: PolicySetSettings):
        """Freeze a copy of the learner's policy, as it is now; then let the learner begin.

        With `init: copy` it goes on with its weights and the state of its optimiser, with `fresh`
        its policy and its optimiser are replaced by new ones.
        """
        super().__init__()
        self.settings, self.learner = settings, learner
        self.offline = frozen_copy(learner.actor)
        if settings.init == "fresh":
            reinitialize_policy(learner)

    @property
    def actor(self) -> Actor:
        """The policy that learns."""
        return self.learner.actor

    def act(self, feat: Tensor, explore: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) for features (N, F): in each row one of the two proposals, as it is.

        To explore, both policies draw their proposal and the choice is drawn; else the proposals
        are means and the better one is taken. Beside the learner's estimates, `online` is 1 where
        the learning policy's action was taken and `p_online` how likely a draw would take it.
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
        critics = (self.learner.reward_critic, self.learner.cost_critic)
        if self.settings.q_source == "slow":
            functions = [critic.target_q for critic in critics]
        else:
            functions = [critic.q for critic in critics]
        # One call per proposal: equal ones get equal values to the last bit.
        q_r, q_c = (
            torch.stack([q(feat, action) for action in actions.unbind(1)], 1) for q in functions
        )
        return q_r, q_c

    def estimates(self, feat: Tensor) -> dict[str, Tensor]:
        """What the learner thinks of states (N, F)."""
        return self.learner.estimates(feat)

    def update(self, world_model: SafeWorldModel, latent: Latent, batch: Batch) -> Metrics:
        """One step of the learner, which imagines with its own policy alone."""
        return self.learner.update(world_model, latent, batch)


def preference(q_r: Tensor, q_c: Tensor, kappa: float) -> Tensor:
    """How good each proposal is, q_r - kappa * q_c: raw values, same shape."""
    return q_r - kappa * q_c


def selection_probabilities(q_r: Tensor, q_c: Tensor, kappa: float, alpha: float) -> Tensor:
    """Probability to execute each proposal: softmax(alpha * (q_r - kappa * q_c)), last axis.

    Shapes: q_r, q_c (..., P), raw (not normalised) values -> (..., P), rows summing to 1. `kappa`
    >= 0 is what a unit of cost is worth in reward, `alpha` >= 0 how greedy the choice is (0 is
    uniform).
    """
    return (alpha * preference(q_r, q_c, kappa)).softmax(-1)


def reinitialize_policy(learner: SafeActorCritic) -> None:
    """Give the learner a new policy of the same size, and a new optimiser for it."""
    first, last = learner.actor.mlp[0], learner.actor.mlp[-1]
    actor = Actor(first.in_features, last.out_features // 2, learner.settings.net)
    learner.actor = actor.to(first.weight.device)
    learner.optimizer = Optimizer(learner.actor.parameters(), learner.settings.optimizer)


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
