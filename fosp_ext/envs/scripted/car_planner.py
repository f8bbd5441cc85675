"""Planning of manoeuvre sequences, each wheel at its limit forwards or backwards."""

from __future__ import annotations

import numpy as np

from fosp_ext.envs.scripted.car_manoeuvres import AHEAD, WHEELS
from fosp_ext.envs.scripted.planner import Score

FREQUENCY = np.array([0.5, 0.2, 0.2, 0.1])  # how often each manoeuvre is tried


class ManoeuvrePlanner:
    """Samples sequences of manoeuvres, each held for a while, then varies the best of them.

    The last plan goes on as one candidate, and its variations are half of the first samples.
    """

    SAMPLES, ELITES = 160, 16
    HOLD_SHARE = 0.3  # mean share of the horizon that a manoeuvre is held

    def __init__(self, rng: np.random.Generator, horizon: int):
        self.rng, self.horizon = rng, horizon
        self.change_rate = min(1 / (self.HOLD_SHARE * horizon), 1.0)  # per agent step
        self.plan = np.full(horizon, AHEAD)  # (H,)

    def reset(self) -> None:
        """Forget the last plan."""
        self.plan = np.full(self.horizon, AHEAD)

    def best(self, score: Score) -> np.ndarray:
        """The first action (2,) of the best sequence that was found."""
        going_on = np.append(self.plan[1:], self.plan[-1])  # (H,): one step has passed
        varied = self._varied(np.tile(going_on, (self.SAMPLES // 2, 1)))
        tried = np.concatenate([going_on[None], varied, self._drawn(self.SAMPLES // 2)])  # (P, H)
        scores = score(WHEELS[tried])
        order = np.argsort(scores)[: self.ELITES]
        varied = self._varied(np.repeat(tried[order], self.SAMPLES // self.ELITES, 0))
        tried = np.concatenate([tried[order], varied])
        scores = np.concatenate([scores[order], score(WHEELS[varied])])
        self.plan = tried[np.argmin(scores)]
        return WHEELS[self.plan[0]]

    def _drawn(self, count: int) -> np.ndarray:
        """Fresh sequences (count, H)."""
        chosen = self._manoeuvres((count, self.horizon))
        changes = self.rng.random((count, self.horizon)) < self.change_rate
        held_since = np.maximum.accumulate(np.where(changes, np.arange(self.horizon), 0), 1)
        return np.take_along_axis(chosen, held_since, 1)

    def _varied(self, sequences: np.ndarray) -> np.ndarray:
        """`sequences` (P, H), each with a stretch replaced or its end one step earlier or later."""
        count, horizon = sequences.shape
        step = np.arange(horizon)
        start = self.rng.integers(horizon, size=(count, 1))
        length = self.rng.geometric(self.change_rate, (count, 1))
        stretch = (step >= start) & (step < start + length)
        replaced = np.where(stretch, self._manoeuvres((count, 1)), sequences)
        shift = np.where(step >= start, self.rng.choice([-1, 1], (count, 1)), 0)
        moved = np.take_along_axis(sequences, np.clip(step + shift, 0, horizon - 1), 1)
        return np.where(self.rng.random((count, 1)) < 0.5, replaced, moved)

    def _manoeuvres(self, shape: tuple[int, int]) -> np.ndarray:
        return self.rng.choice(len(WHEELS), shape, p=FREQUENCY)
