"""Where safe agents begin to imagine: more often where a violation is near."""

from __future__ import annotations

from torch import Tensor

from dreamer.functional import violates
from dreamer.imagination import Starts, choose_starts
from dreamer.types import Batch, Latent
from fosp_ext.settings import SafeImaginationSettings

NEAR = 8  # agent steps before a violation in which it counts as near


def choose_safe_starts(
    latent: Latent, batch: Batch, settings: SafeImaginationSettings, violation: float
) -> Starts:
    """As `choose_starts`; about the share `risky` of the draws are rows with a violation near.

    Such rows are rare: drawn evenly, hardly any rollout would show how to avoid a violation.
    """
    odds = start_odds(batch, settings.risky, violation) if settings.risky else None
    return choose_starts(latent, batch, settings.starts, odds)


def start_odds(batch: Batch, risky: float, violation: float) -> Tensor:
    """Sampling weights of the rows, (B, T); rows with a violation near share `risky` of them."""
    near = violation_near(batch, violation, NEAR).float()
    calm = 1 - near
    share = risky * near.amax()  # 0 in a batch without violations
    return share * near / near.sum().clamp_min(1) + (1 - share) * calm / calm.sum().clamp_min(1)


def violation_near(batch: Batch, violation: float, ahead: int) -> Tensor:
    """Is there a violation in this row or the next `ahead` of its episode? (B, T) bool."""
    here, episode = violates(batch.cost, violation), batch.is_first.cumsum(1)
    near = here.clone()
    for k in range(1, min(ahead, here.shape[1] - 1) + 1):
        near[:, :-k] |= here[:, k:] & (episode[:, k:] == episode[:, :-k])
    return near
