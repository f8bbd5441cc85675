"""Episodes that a clone plays in the environment."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from dreamer.training.progress import Progress
from experiments.cloning.clone import Clone
from experiments.cloning.inputs import Reader

FIRST_SEED = 1000  # of the worlds that are played


def play(
    net: Clone, reader: Reader, count: int, progress: Progress
) -> tuple[list[float], list[float]]:
    """Returns and costs of so many episodes with the predicted actions."""
    totals = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        totals.append(_episode(net, reader, seed))
        progress.advance()
    returns, costs = zip(*totals, strict=True)
    return list(returns), list(costs)


def _episode(net: Clone, reader: Reader, seed: int) -> tuple[float, float]:
    """Return and cost of the episode in the world of a seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        obs, _ = reader.env.reset(seed=seed)
        reader.begin()
        first = reader.read(obs)
        rows = deque([first] * net.window, net.window)
        score, cost, over = 0.0, 0.0, False
        while not over:
            action = _act(net, rows)
            reader.acted(action)
            obs, reward, terminated, truncated, info = reader.env.step(action.numpy())
            score, cost = score + reward, cost + info["cost"]
            over = terminated or truncated
            rows.append(reader.read(obs))
    return score, cost


@torch.no_grad()
def _act(net: Clone, rows: deque[Tensor]) -> Tensor:
    """The action (A,) at the last of the rows."""
    return net(torch.stack(list(rows))[None])[0, -1].clamp(-1, 1)
