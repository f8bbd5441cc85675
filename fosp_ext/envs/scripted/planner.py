"""Planning of action sequences by the cross-entropy method, warm-started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]  # (P, H, A) -> (P,), less is better


class Planner(Protocol):
    """Searches the action sequence of least score, at every agent step anew."""

    def reset(self) -> None:
        """Forget the last plan."""

    def best(self, score: Score) -> np.ndarray:
        """The first action (A,) of the best sequence found."""


class CrossEntropyPlanner:
    """Samples action sequences around the last plan and narrows down on the best ones.

    Noise is drawn at a few knots and interpolated, so neighbouring steps move together. The first
    of the `rounds` can have `fresh` samples that do not start from the last plan, to leave it where
    it has become a poor one.
    """

    ELITES = 16
    KNOTS = 6
    START_SPREAD = 0.6
    LEAST_SPREAD = 0.15
    FRESH_SPREAD = 1.2

    def __init__(
        self,
        rng: np.random.Generator,
        horizon: int,
        action_size: int,
        samples: int = 160,
        rounds: int = 3,
        fresh: int = 0,
    ):
        self.rng, self.samples, self.rounds, self.fresh = rng, samples, rounds, fresh
        self.plan = np.zeros((horizon, action_size))  # (H, A)
        knots = min(self.KNOTS, horizon)
        place = np.linspace(0, knots - 1, horizon)  # (H,)
        hat = np.maximum(1 - np.abs(place[:, None] - np.arange(knots)), 0)  # (H, knots)
        self.mixing = hat / np.linalg.norm(hat, axis=1, keepdims=True)

    def reset(self) -> None:
        """Forget the last plan."""
        self.plan = np.zeros_like(self.plan)

    def best(self, score: Score) -> np.ndarray:
        """The first action (A,) of the sequence of least `score`: (P, H, A) -> (P,)."""
        mean = np.concatenate([self.plan[1:], self.plan[-1:]])  # (H, A): one step has passed
        spread = np.full(mean.shape, self.START_SPREAD)
        least = np.inf
        for turn in range(self.rounds):
            fresh = self.fresh if turn == 0 else 0
            known = self._around(mean, spread, self.samples - fresh)
            blank = self._around(np.zeros_like(mean), self.FRESH_SPREAD, fresh)
            sequences = np.concatenate([known, blank])  # (P, H, A)
            scores = score(sequences)
            order = np.argsort(scores)[: self.ELITES]
            if scores[order[0]] < least:
                least, self.plan = scores[order[0]], sequences[order[0]]
            mean = sequences[order].mean(0)
            spread = np.maximum(sequences[order].std(0), self.LEAST_SPREAD)
        return self.plan[0]

    def _around(self, mean: np.ndarray, spread: np.ndarray | float, count: int) -> np.ndarray:
        """`count` samples (P, H, A) around `mean`, which is itself the first of them."""
        knots, (_, size) = self.mixing.shape[1], mean.shape
        noise = self.rng.standard_normal((count, size, knots)) @ self.mixing.T  # (P, A, H)
        noise[:1] = 0
        return np.clip(mean + spread * noise.swapaxes(1, 2), -1, 1)
