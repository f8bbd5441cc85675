"""An environment for tests, imported by worker processes: keep its imports light."""

from __future__ import annotations

import numpy as np

from dreamer.envs.counting import CountingEnv


class SeededEnv(CountingEnv):
    """Length, reward and images depend on the seed and, chaotically, on every action so far."""

    def reset(self, *, seed=None, options=None):
        """5 to 11 steps; every other seed ends truly."""
        self.length = 5 + seed % 7
        self.end = self.length if seed % 2 else None
        self.memory = seed / 2**31
        return super().reset(seed=seed, options=options)

    def step(self, action):
        """The reward is the memory of what was done."""
        self.memory = (17 * self.memory + float(np.dot(action, (1.0, 0.1)))) % 1.0
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.memory, terminated, truncated, info

    def _observe(self):
        shade = int(256 * self.memory)
        return {name: (x + shade).astype(np.uint8) for name, x in super()._observe().items()}
