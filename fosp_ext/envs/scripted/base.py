"""The protocol of scripted policies, and the action noise that makes their data varied."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class ScriptedPolicy(Protocol):
    """Chooses actions from the privileged state of its task's world, one episode at a time."""

    def reset(self) -> None:
        """Forget the episode before."""

    def act(self, state: Any) -> np.ndarray:
        """The action for the coming agent step, (A,) float32 in [-1, 1]."""


class NoisyPolicy:
    """Another policy whose actions are disturbed by Gaussian noise before they are executed."""

    def __init__(self, inner: ScriptedPolicy, rng: np.random.Generator, noise: float):
        self.inner, self.rng, self.noise = inner, rng, noise

    def reset(self) -> None:
        self.inner.reset()

    def act(self, state: Any) -> np.ndarray:
        action = self.inner.act(state)  # (A,)
        disturbance = self.noise * self.rng.standard_normal(action.shape)
        return np.clip(action + disturbance, -1, 1).astype(np.float32)
