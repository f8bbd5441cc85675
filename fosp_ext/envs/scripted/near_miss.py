"""Around what costs, but too close to it: near misses and grazes, which teach where cost begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fosp_ext.envs.scripted.base import ScriptedPolicy
from fosp_ext.envs.world_state import WorldState

MOST_TAKEN = 0.9  # largest share of its true size that an obstacle is taken for


class NearMiss:
    """A safe policy that takes all obstacles for smaller than they are, in each episode anew.

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
