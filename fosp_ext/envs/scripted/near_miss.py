"""Near misses: a safe policy that keeps too little distance; its data show where cost begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fosp_ext.envs.scripted.base import ScriptedPolicy
from fosp_ext.envs.world_state import WorldState

MOST_TAKEN = 0.9  # largest share of its true size that an obstacle is taken for


class NearMiss:
    """Wraps a safe policy: it underestimates the size of obstacles, by a share drawn per episode.

    inner: the safe policy.
    rng: draws the share of their size, between 0 and `MOST_TAKEN`.
    """

    def __init__(self, inner: ScriptedPolicy, rng: np.random.Generator):
        self.inner, self.rng = inner, rng
        self.reset()

    def reset(self) -> None:
        self.inner.reset()
        self.share = self.rng.uniform(0, MOST_TAKEN)

    def act(self, state: WorldState) -> np.ndarray:
        smaller = {
            name: self.share * getattr(state, name)
            for name in ("hazard_radius", "vase_half_size", "gremlin_half_size")
        }
        return self.inner.act(replace(state, **smaller))
