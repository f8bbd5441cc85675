"""Shortest ways on a grid, computed for all of its cells at once."""

from __future__ import annotations

import numpy as np

MOVES = [(x, y) for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2) if np.gcd(x, y) == 1]  # 16


def relaxed(distance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Ways from every cell, shortened over 16 neighbours until none gets shorter: (X, Y).

    distance: known ways, infinite elsewhere. weight: length of a step to a side, by the cell it
    leaves; infinite where there is no way.
    """
    rim = 2
    inner = tuple(slice(rim, rim + size) for size in distance.shape)
    padded = np.pad(distance, rim, constant_values=np.inf)
    costs = [weight * np.hypot(x, y) for x, y in MOVES]
    while True:
        best = padded[inner].copy()
        for (x, y), cost in zip(MOVES, costs, strict=True):
            rows, columns = (
                slice(part.start + move, part.stop + move)
                for part, move in zip(inner, (x, y), strict=True)
            )
            np.minimum(best, padded[rows, columns] + cost, out=best)
        if np.allclose(best, padded[inner], rtol=0, atol=1e-4):
            return best
        padded[inner] = best
