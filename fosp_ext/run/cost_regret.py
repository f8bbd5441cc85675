"""Cost regret: a running mean of the costs of training episodes."""

from __future__ import annotations

import numpy as np

REGRET_DECAY = 0.99  # share of the cost regret that stays after one more episode


def cost_regret(costs: np.ndarray, episodes: int) -> np.ndarray:
    """Running average of episode costs (K,), from 0: r <- 0.99 r + 0.01 cost, per episode.

    One entry stands for `episodes` episodes of that mean cost. It begins at 0, so a short run stays
    below its costs: a figure of how cost came in, to be compared at equal numbers of episodes.
    """
    regret, running = [], 0.0
    for cost in costs:
        running = next_regret(running, float(cost), episodes)
        regret.append(running)
    return np.array(regret)


def next_regret(regret: float, cost: float, episodes: int = 1) -> float:
    """The cost regret after `episodes` more episodes of this mean cost."""
    keep = REGRET_DECAY**episodes
    return keep * regret + (1 - keep) * cost
