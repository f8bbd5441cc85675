"""Safe policy expansion: choosing between a frozen and a learning policy (docs/algorithm.md 6)."""

from __future__ import annotations

from torch import Tensor


def selection_probabilities(q_r: Tensor, q_c: Tensor, kappa: float, alpha: float) -> Tensor:
    """Probability to execute each candidate: softmax(alpha * (q_r - kappa * q_c)), last axis.

    Shapes: q_r, q_c (..., P), raw (not normalised) values -> (..., P), rows summing to 1. `kappa`
    >= 0 is what a unit of cost is worth in reward, `alpha` >= 0 how greedy the choice is (0 is
    uniform).
    """
    return (alpha * (q_r - kappa * q_c)).softmax(-1)
