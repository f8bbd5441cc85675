"""Warnings of one episode compared with the violations that followed: recall and false warnings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dreamer.training.episode_log import onsets

LOOKAHEAD = 25  # agent steps, from its own on, that a warning covers


class Warnings(NamedTuple):
    """Counts of one episode. A warning is a step with violation probability p above a threshold."""

    raised: int
    judged: int  # warnings whose next LOOKAHEAD steps are known
    false: int  # judged warnings without a violation after them
    warned: int  # onsets of violations with a warning before them


def follows(events: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether an event follows row t of an episode in rows t + 1 ... t + horizon, for all t.

    `events` (T,) bool. Returns (T,) bool, and (T,) bool: whether the first is known. It is where an
    event follows, and where all of the next `horizon` rows were recorded.
    """
    T = len(events)
    seen = np.concatenate([[0], np.cumsum(events)])  # events before row t, (T+1,)
    t = np.arange(T)
    following = seen[np.minimum(t + 1 + horizon, T)] > seen[t + 1]
    return following, following | (t + horizon < T)


def count_warnings(p: np.ndarray, violations: np.ndarray, threshold: float) -> Warnings:
    """Count the warnings of one episode, and the onsets of violations with a warning before them.

    Shapes (T,): `p[t]` is the violation probability at state t, where action t was chosen;
    `violations[t]` (bool) is the result of action t, which came with state t + 1. The warning of
    state t covers the steps t ... t + LOOKAHEAD - 1, so an onset at step t counts as warned if p
    was above `threshold` at one of the states t - LOOKAHEAD + 1 ... t. A warning is judged where a
    violation is seen in its steps or all of them were recorded.
    """
    T = len(p)
    raised = p > threshold
    following, known = follows(np.append(False, violations), LOOKAHEAD)  # rows: state t, its cost
    following, known = following[:T], known[:T]
    before = np.append(0, np.cumsum(raised))  # warnings before state t, (T+1,)
    starts = np.flatnonzero(onsets(violations))
    warned = before[starts + 1] > before[np.maximum(starts + 1 - LOOKAHEAD, 0)]
    return Warnings(
        raised=int(raised.sum()),
        judged=int((raised & known).sum()),
        false=int((raised & known & ~following).sum()),
        warned=int(warned.sum()),
    )
