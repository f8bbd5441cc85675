"""Targets and weights of the safe critics and the safe actor, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def expectile_weight(error: Tensor, expectile: float) -> Tensor:
    """|expectile - 1[error < 0]|: weight of each error in expectile regression (IQL, section 4.1).

    `error` is target minus prediction, any shape; `expectile` in (0, 1). Above one half the fit
    leans to the upper targets, below to the lower ones, at one half every weight is one half.
    """
    return torch.where(error < 0, 1.0 - expectile, expectile)


def real_q_target(
    signal_next: Tensor, cont_next: Tensor, value_next: Tensor, gamma: float
) -> Tensor:
    """Target of Q on recorded pairs, y = signal + gamma * cont * value (IQL, eq. 6).

    All shapes alike, e.g. (B, T-1). `signal_next` is the reward or cost received for the action, on
    arriving at the next row; `cont_next` is 0 where that row is terminal (a time limit is not).
    """
    return signal_next + gamma * cont_next * value_next


def reachability_target(
    violation: Tensor, cont: Tensor, value: Tensor, mu: float, lam: float
) -> Tensor:
    """Probability to reach a violation, along rollouts.

    See docs/concepts/algorithm.md eq. 2; RESPO, Thm. 1.

    P[h] = v[h] + (1 - v[h]) * mu * cont[h] * ((1 - lam) * value[h+1] + lam * P[h+1]) and P[H] =
    value[H]. Shapes: violation (N, H) and value (N, H+1) belong to states, cont (N, H) to the
    transition after state h; all in [0, 1] -> (N, H) in [0, 1]. `mu` < 1 makes far violations count
    less.
    """
    last, out = value[:, -1], []
    for h in reversed(range(violation.shape[1])):
        onward = (1 - lam) * value[:, h + 1] + lam * last
        last = violation[:, h] + (1 - violation[:, h]) * mu * cont[:, h] * onward
        out.append(last)
    return torch.stack(out[::-1], 1)


def policy_weight(
    u: Tensor,
    adv_r: Tensor,
    adv_c: Tensor,
    q_c: Tensor,
    beta_r: float,
    beta_c: float,
    clip_r: float,
    clip_c: float,
    cost_tolerance: float,
) -> Tensor:
    """Weight W of a recorded action in weighted cloning (docs/concepts/algorithm.md eq. 4).

    W = u * 1[q_c <= cost_tolerance] * min(exp(beta_r * adv_r), clip_r)
        + (1 - u) * min(exp(-beta_c * adv_c), clip_c).
    All tensors alike in shape; u in [0, 1] is the feasibility of the state, advantages are in units
    of their running scale -> weights between 0 and u * clip_r + (1 - u) * clip_c. For u in {0, 1}
    these are the two cases of FISOR.
    """
    allowed = (q_c <= cost_tolerance).to(u.dtype)
    feasible = (beta_r * adv_r).exp().clamp_max(clip_r)
    infeasible = (-beta_c * adv_c).exp().clamp_max(clip_c)
    return u * allowed * feasible + (1 - u) * infeasible
