"""The tensor bundles that travel through the agent, and the two conventions they keep.

Axis letters, used in every shape comment (see docs/concepts/conventions.md):
`B` sequences, `T` rows of a sequence, `N = B*T` start states, `H` imagined steps, `A` action size,
`E` embedding, `S` x `K` stochastic groups x classes, `D` deterministic state, `F = D + S*K`
features.

Convention 1, rows. Row `t` holds what the environment returned together, plus the answer to it:

              row t-1              row t                row t+1
     obs      o[t-1]               o[t]                 o[t+1]
     reward   r[t-1]               r[t]   <- earned by action[t-1]
     cost     c[t-1]               c[t]   <- caused by action[t-1]
     action        a[t-1] ------->      a[t] ------->        a[t+1]

The first row of an episode has no reward and no cost; the last row's action is zero and never used.

Convention 2, batch first. Data are (B, T, ...), imagination is (N, H, ...). In a `Trajectory` and
in `RealTransitions`, one index is one transition, so nothing is shifted there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamer.functional import matmul_dtype

Metrics = dict[str, Tensor]


class Batch(NamedTuple):
    """Windows of recorded rows."""

    obs: dict[str, Tensor]  # camera -> (B, T, height, width, 3) uint8, vector -> (B, T, D) float32
    action: Tensor  # (B, T, A) in [-1, 1]
    reward: Tensor  # (B, T)
    cost: Tensor  # (B, T), at least 0; zeros where a task has none
    is_first: Tensor  # (B, T) float 0/1: first row of an episode, and always of a window
    is_last: Tensor  # (B, T) float 0/1: last row of an episode, for whatever reason it ended
    is_terminal: Tensor  # (B, T) float 0/1: the task truly ended here (not a time limit)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        obs = {key: value.to(device, non_blocking=True) for key, value in self.obs.items()}
        return Batch(obs, *(value.to(device, non_blocking=True) for value in self[1:]))

    def split(self, rows: int) -> tuple[Batch, Batch]:
        """The first `rows` rows of the windows, and the others."""
        parts = slice(rows), slice(rows, None)
        head, rest = (
            Batch({key: x[:, part] for key, x in self.obs.items()}, *(x[:, part] for x in self[1:]))
            for part in parts
        )
        return head, rest


class Latent(NamedTuple):
    """RSSM state: leading dims are (B, T) from data and (N,) when imagining."""

    deter: Tensor  # (..., D)
    stoch: Tensor  # (..., S, K): one-hot rows with straight-through gradient, or probabilities

    def feat(self) -> Tensor:
        """The features every head, critic and policy reads, (..., F).

        In the type of matrix products: each reader begins with one.
        """
        dtype = matmul_dtype(self.deter.device)
        return torch.cat([self.deter.to(dtype), self.stoch.flatten(-2).to(dtype)], -1)

    def merge_time(self) -> Latent:
        """(B, T, ...) -> (B*T, ...), sequence-major."""
        return Latent(*(value.flatten(0, 1) for value in self))

    def detach(self) -> Latent:
        """The same numbers without their graph."""
        return Latent(*(value.detach() for value in self))


class Trajectory(NamedTuple):
    """Imagined rollout. Index h of (N, H) fields is the transition from feat[:, h] to h+1."""

    feat: Tensor  # (N, H+1, F)
    action: Tensor  # (N, H, A), differentiable in the policy
    reward: Tensor  # (N, H)
    cost: Tensor  # (N, H); zeros for a world model without a cost decoder
    violation: Tensor  # (N, H) in [0, 1]: probability that feat[:, h+1] violates; likewise
    cont: Tensor  # (N, H) in {0, 1}: mode of the continue head after the transition
    weight: Tensor  # (N, H): discounted probability that the rollout is still alive at feat[:, h]
    entropy: Tensor  # (N, H), nats: of the policy at feat[:, h], differentiable in the policy
    disagreement: Tensor  # (N, H), nats: of the priors about feat[:, h+1]; zeros where one is alone

    def detach(self) -> Trajectory:
        """The same numbers without their graph."""
        return Trajectory(*(value.detach() for value in self))
