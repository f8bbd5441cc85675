"""What the networks predict. Each class offers a read-out (`mean` or `probs`) and `loss(target)`.

They are thin wrappers around logits: nothing is validated and nothing is synchronised, because they
are made inside the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer.functional import symexp, symlog, two_hot

BINS = 255
BIN_LIMIT = 20.0


def symlog_bins(device: torch.device | None = None) -> Tensor:
    """The 255 bins of the scalar codec, (K,), evenly spaced on [-20, 20] in symlog space.

    From whole numbers, so that the middle one is exactly 0; `linspace` rounds it to 7e-8.
    """
    middle = BINS // 2
    return torch.arange(-middle, middle + 1, device=device) * (BIN_LIMIT / middle)


class TwoHot:
    """A number as a categorical over symlog bins.

    See docs/concepts/algorithm.md 2.2; DreamerV3, 'Critic'.
    """

    def __init__(self, logits: Tensor, bins: Tensor):
        """Take logits (..., K) and the bins (K,), both kept in float32."""
        self.logits, self.bins = logits.float(), bins

    def mean(self) -> Tensor:
        """symexp of the expected bin, (...). The expectation is taken in symlog space."""
        return symexp((self.logits.softmax(-1) * self.bins).sum(-1))

    def mass_above(self, threshold: float) -> Tensor:
        """Probability, (...), of the bins at or above `threshold` (given in raw units)."""
        above = self.bins >= symlog(self.bins.new_full((), threshold))
        return (self.logits.softmax(-1) * above).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """Cross entropy with the two-hot code of `target` (...), raw units -> (...)."""
        return self.cross_entropy(two_hot(symlog(target.float()), self.bins))

    def cross_entropy(self, target: Tensor) -> Tensor:
        """Cross entropy with target probabilities (..., K) -> (...)."""
        return -(target * self.logits.log_softmax(-1)).sum(-1)


class Bernoulli:
    """A probability from one logit."""

    def __init__(self, logit: Tensor):
        """Take logits (...), kept in float32."""
        self.logit = logit.float()

    def probs(self) -> Tensor:
        """Probability of 1, (...)."""
        return self.logit.sigmoid()

    def mode(self) -> Tensor:
        """The likelier of 0 and 1, (...), as float."""
        return (self.logit > 0).float()

    def loss(self, target: Tensor) -> Tensor:
        """Binary cross entropy with a soft target in [0, 1], (...) -> (...)."""
        return F.binary_cross_entropy_with_logits(self.logit, target.float(), reduction="none")


class Normal:
    """Independent Gaussians over the last axis: a policy's actions, before clipping to [-1, 1]."""

    def __init__(self, mean: Tensor, std: Tensor):
        """Take means and standard deviations, both (..., A)."""
        self.mean, self.std = mean.float(), std.float()

    def sample(self) -> Tensor:
        """A reparameterised sample, (..., A)."""
        return self.mean + self.std * _drawn(torch.randn, self.mean.shape, self.mean.device)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of actions (..., A) -> (...)."""
        z = (action - self.mean) / self.std
        return -(0.5 * z.square() + self.std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, (...)."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def unimix_probs(logits: Tensor, unimix: float) -> Tensor:
    """Probabilities with a share `unimix` spread evenly: (..., K) -> (..., K), float32."""
    probs = logits.softmax(-1, dtype=torch.float32)
    return probs.lerp(probs.new_full((), 1 / probs.shape[-1]).expand_as(probs), unimix)


def sample_one_hot(probs: Tensor, noise: Tensor | None = None) -> Tensor:
    """One-hot samples (..., K) whose gradient is that of `probs` (straight-through).

    `noise` (..., 1) in [0, 1) says which; where none is given it is drawn. Equal probabilities
    give equal samples of the same noise.
    """
    noise = draw_noise(probs) if noise is None else noise
    upto, noise = probs.detach().cumsum(-1), noise.expand(*probs.shape[:-1], 1).contiguous()
    index = torch.searchsorted(upto, noise).clamp_max_(probs.shape[-1] - 1)  # (..., 1)
    return straight_through(index.squeeze(-1), probs)


def draw_noise(probs: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for one sample of each of the categoricals (..., K): (..., 1)."""
    return uniform((*probs.shape[:-1], 1), probs.device)


def uniform(shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1); each row of its own generator inside `rows_drawn_by`."""
    return _drawn(torch.rand, shape, device)


@contextmanager
def rows_drawn_by(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """A block in which row n of what is drawn comes from generator n, as if it were alone."""
    token = _generators.set(generators)
    try:
        yield
    finally:
        _generators.reset(token)


_generators: ContextVar[Sequence[torch.Generator] | None] = ContextVar("generators", default=None)


def _drawn(draw: Callable[..., Tensor], shape: Sequence[int], device: torch.device) -> Tensor:
    own = _generators.get()
    if own is None:
        return draw(*shape, device=device)
    assert len(own) == shape[0], (len(own), shape)
    return torch.stack([draw(*shape[1:], generator=g, device=device) for g in own])


def mode_one_hot(probs: Tensor) -> Tensor:
    """One-hot of the likeliest class, (..., K), without gradient."""
    return F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)


def straight_through(index: Tensor, probs: Tensor) -> Tensor:
    """One-hot of `index` (...) in the forward pass, `probs` (..., K) in the backward pass."""
    return _StraightThrough.apply(index, probs)


class _StraightThrough(torch.autograd.Function):
    """As one operation: it runs in every step of the RSSM."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, probs: Tensor) -> Tensor:
        return torch.zeros_like(probs).scatter_(-1, index.unsqueeze(-1), 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def categorical_kl(left: Tensor, right: Tensor) -> Tensor:
    """KL(left || right), summed over S categoricals: probabilities (..., S, K) -> (...)."""
    return (left * (left.log() - right.log())).sum((-2, -1))


def jensen_shannon(probs: Tensor) -> Tensor:
    """How far members disagree about categoricals: (M, ..., S, K) -> (...), the mean over S.

    Entropy of the members' mean minus mean of their entropies, which is their mean KL divergence
    from their mean: in nats, from 0 (they agree) to ln M.
    """

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.log()).sum(-1)

    return (entropy(probs.mean(0)) - entropy(probs).mean(0)).mean(-1)
