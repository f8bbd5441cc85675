"""Recorded transitions (s, a, r, c, s') for the critics; recorded time is shifted here alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dreamer.types import Batch, Latent


class RealTransitions(NamedTuple):
    """Index t of the (B, T-1) fields is the recorded transition from row t to t+1 of a window."""

    feat: Tensor  # (B, T-1, F)
    action: Tensor  # (B, T-1, A), as executed
    start_cost: Tensor  # (B, T-1), received on arriving at the state it starts from
    reward: Tensor  # (B, T-1), earned by the action
    cost: Tensor  # (B, T-1), caused by the action
    cont: Tensor  # (B, T-1): 0 where the next state is terminal; a time limit is not
    feat_next: Tensor  # (B, T-1, F)
    last_next: Tensor  # (B, T-1): 1 where the next state is its episode's last
    mask: Tensor  # (B, T-1): 0 where row t is an episode's last, so that t+1 belongs to another


def real_transitions(latent: Latent, batch: Batch) -> RealTransitions:
    """Pair the rows of each window with their successors: latent and batch (B, T) -> (B, T-1)."""
    feat = latent.feat()
    return RealTransitions(
        feat=feat[:, :-1],
        action=batch.action[:, :-1].clamp(-1, 1),
        start_cost=batch.cost[:, :-1],
        reward=batch.reward[:, 1:],
        cost=batch.cost[:, 1:],
        cont=1 - batch.is_terminal[:, 1:],
        feat_next=feat[:, 1:],
        last_next=batch.is_last[:, 1:],
        mask=1 - batch.is_last[:, :-1],
    )
