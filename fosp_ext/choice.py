"""Which of several proposed actions acts: proposals, their scores, probabilities.

See docs/concepts/algorithm.md 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer import distributed
from dreamer.networks import Actor
from dreamer.types import Latent
from dreamer.world_model import WorldModel
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.baselines import SafeDreamer
from fosp_ext.lookahead import action_sequences, look_ahead
from fosp_ext.settings import PolicySetSettings

LEAST = 1e-12  # a spread up to here is none: every proposal was as good as the others
Critics = SafeActorCritic | SafeDreamer  # whose critics judge


class Chosen(NamedTuple):
    """One of P proposals in each row."""

    action: Tensor  # (N, A), as it was proposed
    place: Tensor  # (N,), its number among them, below P
    probabilities: Tensor  # (N, P) of a sampled choice


class Spread(nn.Module):
    """Moving mean of the absolute difference between two proposals of one state.

    With two proposals that is the absolute gap of their scores; with more, the mean over all pairs,
    which does not grow with their number and does not ask who proposed. The mean, and not a root
    mean square, because a few states with much at stake would make all others a toss-up.

    The moving mean is corrected for its start at 0, so it holds from the first states on.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update_(self, scores: Tensor) -> None:
        """Take in the scores (N, P) of a step; of each process, where several act in step."""
        P = scores.shape[1]
        gaps = (scores.unsqueeze(2) - scores.unsqueeze(1)).abs().sum((1, 2)) / (P * (P - 1))
        now = distributed.joint_mean(gaps.float().mean())
        self.total.lerp_(now, 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)

    def scale(self) -> Tensor:
        """A scalar above 0: infinite while nothing, or no difference, has been seen."""
        spread = self.total / self.weight  # nan at first, which is not above anything
        return torch.where(spread > LEAST, spread, torch.inf)


class Unscaled(nn.Module):
    """Stands in for `Spread`: scores count as they are."""

    def update_(self, scores: Tensor) -> None:
        """Nothing moves."""

    def scale(self) -> float:
        """1."""
        return 1.0


class Choice(nn.Module):
    """Proposals of one or more policies, scored by critics or by open-loop rollouts."""

    def __init__(self, settings: PolicySetSettings):
        super().__init__()
        self.settings = settings
        self.spread = Spread() if settings.scaled else Unscaled()

    def choose(
        self,
        world_model: WorldModel,
        latent: Latent,
        actors: Sequence[Actor],
        critics: Critics,
        explore: bool,
    ) -> Chosen:
        """One action for each state (N,), of P = len(actors) * `proposals`, actor by actor.

        To explore, the choice is sampled, and its scores move the running spread afterwards; else
        the proposal with the largest score is taken and nothing moves.
        """
        settings, feat = self.settings, latent.feat()
        actions = torch.cat([propose(a, feat, settings.proposals, explore) for a in actors], 1)
        scores = preference(
            *self.score(world_model, latent, actions, actors, critics), settings.kappa
        )
        probabilities = selection_probabilities(scores, settings.alpha, self.spread.scale())
        if explore:
            upto = probabilities.cumsum(1)[:, :-1]  # (N, P-1)
            place = (torch.rand_like(upto[:, :1]) >= upto).sum(1)  # (N,)
            self.spread.update_(scores)
        else:
            place = scores.argmax(1)
        rows = torch.arange(len(actions), device=actions.device)
        return Chosen(actions[rows, place], place, probabilities)

    def score(
        self,
        world_model: WorldModel,
        latent: Latent,
        actions: Tensor,
        actors: Sequence[Actor],
        critics: Critics,
    ) -> tuple[Tensor, Tensor]:
        """Reward and cost value (N, P) of proposals (N, P, A) in states (N,).

        Neither is normalised or clamped at 0: what counts is the difference between proposals, and
        a clamp would hide one below 0.
        """
        if self.settings.score == "q":
            assert isinstance(critics, SafeActorCritic), "others have no Q"
            feat, judges = latent.feat(), (critics.reward_critic, critics.cost_critic)
            # One call per proposal: equal ones get equal values to the last bit.
            q_r, q_c = (
                torch.stack([judge.q(feat, action) for action in actions.unbind(1)], 1)
                for judge in judges
            )
            return q_r, q_c
        sequences = action_sequences(world_model, latent, actions, actors, self.settings.horizon)
        gain, cost = look_ahead(
            world_model,
            latent,
            sequences,
            self.settings.draws,
            critics.reward_critic.value,
            critics.cost_critic.value,
            critics.imagination.gamma,
        )  # (N, P, draws)
        worst = self.settings.draw_cost == "max"
        return gain.mean(2), cost.amax(2) if worst else cost.mean(2)


def propose(actor: Actor, feat: Tensor, count: int, explore: bool) -> Tensor:
    """Actions (N, count, A) in [-1, 1] for features (N, F): samples; else the mean is the first."""
    policy = actor(feat)
    actions = [policy.sample() for _ in range(count if explore else count - 1)]
    return torch.stack(actions if explore else [policy.mean, *actions], 1).clamp(-1, 1)


def preference(value_r: Tensor, value_c: Tensor, kappa: float) -> Tensor:
    """Score of each proposal, value_r - kappa * value_c, in raw reward; same shape."""
    return value_r - kappa * value_c


def selection_probabilities(scores: Tensor, alpha: float, scale: Tensor | float) -> Tensor:
    """Probability of each proposal: softmax(alpha * score / scale).

    See docs/concepts/algorithm.md 6.

    Shapes: scores (..., P) -> (..., P), rows summing to 1. `alpha` >= 0 is the inverse temperature
    (0 is uniform), `scale` > 0 a usual difference of two scores (infinite is uniform).
    """
    return (alpha * ((scores - scores.mean(-1, keepdim=True)) / scale)).softmax(-1)
