"""Was a violation warned of? Estimates of one episode, set against what really followed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dreamer.training.episode_log import onsets

LOOKAHEAD = 25  # agent steps that a warning is about, from its own on


class Warnings(NamedTuple):
    """What the warnings of one episode were worth. A warning is a step with p above a threshold."""

    raised: int
    judged: int  # warnings of which it is known whether a violation followed
    false: int  # judged warnings that no violation followed
    warned: int  # onsets of violations with a warning before them


def follows(events: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row t of one episode: does an event follow in rows t + 1 ... t + horizon?

    `events` (T,) bool. Returns (T,) bool, and (T,) bool: is that known? It is where one is seen to
    follow, and where all of the next `horizon` rows were recorded.
    """
    T = len(events)
    seen = np.concatenate([[0], np.cumsum(events)])  # events before row t, (T+1,)
    t = np.arange(T)
    following = seen[np.minimum(t + 1 + horizon, T)] > seen[t + 1]
    return following, following | (t + horizon < T)


def judge_warnings(
    violation_probability: np.ndarray, violations: np.ndarray, warning: float
) -> Warnings:
    """Count the warnings of one episode and the onsets that they announced.

    Shapes (T,): `violation_probability[t]` is p at state t, where action t was chosen;
    `violations[t]` (bool) came of action t, together with state t + 1. The warning of state t is
    about the steps t ... t + LOOKAHEAD - 1, so an onset at step t is warned of if p was above
    `warning` at one of the states t - LOOKAHEAD + 1 ... t (those there are). A warning is
    judged where a violation is seen in its steps or all of them were recorded.
    """
    T = len(violation_probability)
    raised = violation_probability > warning
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
