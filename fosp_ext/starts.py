"""Where safe agents begin to imagine: more often where a violation is near."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamer.functional import violates
from dreamer.imagination import Starts, choose_starts, starts_at
from dreamer.types import Batch, Latent
from fosp_ext.settings import SafeImaginationSettings

NEAR = 8  # agent steps before a violation in which it counts as near


def choose_safe_starts(
    latent: Latent, batch: Batch, settings: SafeImaginationSettings, violation: float
) -> Starts:
    """As `choose_starts`, but the share `risky` of the starts are rows with a violation near.

    Such rows are rare: drawn evenly, hardly any rollout would show how to avoid a violation. With
    `starts` 0 all rows begin one rollout each, and `risky` has no effect.
    """
    count = min(settings.starts, batch.cost.numel())
    if not settings.risky or not count:
        return choose_starts(latent, batch, settings.starts)
    return starts_at(latent, batch, risky_rows(batch, settings.risky, count, violation))


def risky_rows(batch: Batch, risky: float, count: int, violation: float) -> Tensor:
    """`count` rows of a batch, (count,): round(`risky` * `count`) near a violation, the rest not.

    In a batch with one kind of rows alone, all of them are of that kind.
    """
    near = violation_near(batch, violation, NEAR).flatten()
    risky_count = round(risky * count)
    return torch.cat(
        [
            draw_rows(near | ~near.any(), risky_count),
            draw_rows(~near | near.all(), count - risky_count),
        ]
    )


def draw_rows(eligible: Tensor, count: int) -> Tensor:
    """`count` indices (count,) of rows that are `eligible` (R,) bool, of which there is one.

    Each is drawn as often as any other, give or take one: none repeats before all have had a turn.
    """
    shuffled = (eligible + torch.rand_like(eligible, dtype=torch.float)).argsort(descending=True)
    return shuffled[torch.arange(count, device=eligible.device) % eligible.sum()]


def violation_near(batch: Batch, violation: float, ahead: int) -> Tensor:
    """Is there a violation in this row or the next `ahead` of its episode? (B, T) bool."""
    here, episode = violates(batch.cost, violation), batch.is_first.cumsum(1)
    near = here.clone()
    for k in range(1, min(ahead, here.shape[1] - 1) + 1):
        near[:, :-k] |= here[:, k:] & (episode[:, k:] == episode[:, :-k])
    return near
