"""Means, intervals and running averages of results: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreamer.training.episode_log import next_regret

RESAMPLES = 10_000  # of the bootstrap


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis (..., n) without the lowest and the highest quarter -> (...).

    floor(n / 4) values are left out at each end: below four values it is the plain mean.
    """
    n = values.shape[-1]
    cut = n // 4
    return np.sort(values, -1)[..., cut : n - cut].mean(-1)


def resampled_means(runs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Bootstrap means of runs, (RESAMPLES, S): seeds are drawn, then episodes.

    `runs` holds the episodes of each of the S seeds. A single seed is kept; its episodes vary.
    """
    picks = rng.integers(len(runs), size=(RESAMPLES, len(runs)))
    means = np.empty(picks.shape)
    for k, episodes in enumerate(runs):
        chosen = picks == k
        means[chosen] = rng.choice(episodes, (int(chosen.sum()), len(episodes))).mean(1)
    return means


def mean_interval(runs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """(mean over seeds, lower, upper end of its 95 % bootstrap interval); NaN ends: unknown."""
    mean = float(np.mean([episodes.mean() for episodes in runs]))
    if _no_spread([runs]):
        return mean, np.nan, np.nan
    draws = resampled_means(runs, np.random.default_rng(0)).mean(1)
    return mean, *_ends(draws)


def iqm_interval(tasks: Sequence[Sequence[np.ndarray]]) -> tuple[float, float, float]:
    """Interquartile mean over the seeds of all tasks, and its 95 % interval, as `mean_interval`.

    Seeds are drawn within their task, so every task keeps its share.
    """
    seeds = np.array([episodes.mean() for runs in tasks for episodes in runs])
    middle = float(interquartile_mean(seeds))
    if _no_spread(tasks):
        return middle, np.nan, np.nan
    rng = np.random.default_rng(0)
    draws = np.concatenate([resampled_means(runs, rng) for runs in tasks], 1)
    return middle, *_ends(interquartile_mean(draws))


def band(seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, lower, upper) over S curves (S, K), each (K,): 95 % bootstrap over whole curves."""
    picks = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    shares = np.stack([(picks == k).mean(1) for k in range(len(seeds))], 1)  # (RESAMPLES, S)
    low, high = np.quantile(shares @ seeds, [0.025, 0.975], axis=0)
    return seeds.mean(0), low, high


def on_common_steps(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Curves (steps, values) of S seeds at the K steps between the latest start and first end.

    Returns (K,) steps, every one that a seed has, and (S, K) values, linear in between. K may be 0.
    """
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    steps = np.unique(np.concatenate([steps for steps, _ in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.stack([np.interp(steps, own, values) for own, values in curves])


def cost_regret(costs: np.ndarray, episodes: int) -> np.ndarray:
    """Running average of episode costs (K,), from 0: r <- 0.99 r + 0.01 cost, per episode.

    One entry stands for `episodes` episodes of that mean cost. It begins at 0, so a short run stays
    below its costs: a measure of cost during training, to be compared at equal numbers of episodes.
    """
    regret, running = [], 0.0
    for cost in costs:
        running = next_regret(running, float(cost), episodes)
        regret.append(running)
    return np.array(regret)


def _no_spread(tasks: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether each task has one seed with one number, which has no spread."""
    return all(len(runs) == 1 and len(runs[0]) == 1 for runs in tasks)


def _ends(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
