"""Calibration of probabilities: AUROC, Brier score and reliability, from estimates and outcomes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 10


class Bins(NamedTuple):
    """Estimates sorted into equal parts of [0, 1]; parts without any are left out, each (K,)."""

    estimate: np.ndarray  # mean estimate
    share: np.ndarray  # share of rows where the event followed
    rows: np.ndarray  # how many


def auroc(estimate: np.ndarray, outcome: np.ndarray) -> float:
    """Chance that a row with the event has the higher estimate than one without; ties count half.

    Shapes (n,) and (n,) bool. NaN where only one kind of row exists.
    """
    positives = int(outcome.sum())
    negatives = len(outcome) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(estimate, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # equal estimates share their mean rank
    wins = ranks[outcome].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def brier(estimate: np.ndarray, outcome: np.ndarray) -> float:
    """Mean squared distance of estimates (n,) from outcomes (n,) bool: 0 is perfect."""
    return float(np.mean((estimate - outcome) ** 2))


def reliability(estimate: np.ndarray, outcome: np.ndarray, bins: int = BINS) -> Bins:
    """Estimates (n,) in [0, 1] by equal bins, the last one closed, against outcomes (n,) bool."""
    place = np.minimum((estimate * bins).astype(int), bins - 1)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    mean = np.bincount(place, estimate, bins)[used] / rows[used]
    share = np.bincount(place, outcome, bins)[used] / rows[used]
    return Bins(mean, share, rows[used])
