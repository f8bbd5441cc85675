"""Formulas shared by the whole agent, as pure functions of tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COLOUR_BITS = 4  # per channel, that `rarity_weights` tells apart


def symlog(x: Tensor) -> Tensor:
    """sign(x) * ln(1 + |x|), elementwise (DreamerV3, equation 9). Any shape, any range."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`: sign(x) * (exp(|x|) - 1), elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Split the mass of each number linearly between its two neighbouring bins (DreamerV3, eq. 10).

    Shapes: x (...), bins (K,) increasing -> (..., K), rows summing to 1 with
    `(row * bins).sum() == x`. `x` is in the space of the bins: pass `symlog(y)` for bins laid out
    in symlog space. Numbers beyond the outermost bins are clamped to them.
    """
    bins = bins.to(x.dtype)
    x = x.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, x.contiguous()).clamp(1, len(bins) - 1)  # bins[upper-1] < x
    lower = upper - 1
    share = (x - bins[lower]) / (bins[upper] - bins[lower])  # (...), mass of the upper bin
    out = torch.zeros(*x.shape, len(bins), dtype=x.dtype, device=x.device)
    out.scatter_(-1, lower.unsqueeze(-1), (1 - share).unsqueeze(-1))
    return out.scatter_(-1, upper.unsqueeze(-1), share.unsqueeze(-1))


def lambda_return(
    reward: Tensor, cont: Tensor, value: Tensor, gamma: float, lam: float | Tensor
) -> Tensor:
    """Returns mixed over all n-step lengths (docs/concepts/algorithm.md eq. 1; DreamerV3, eq. 7).

    G[h] = reward[h] + gamma * cont[h] * ((1 - lam) * value[h+1] + lam * G[h+1]), G[H] = value[H].
    Shapes: reward (N, H), cont (N, H) in [0, 1], value (N, H+1) -> (N, H). Index h of reward and
    cont is the transition from state h to h+1. `lam` is a number or (N, H), in [0, 1].
    """
    after = value[:, 1:]
    mix = (lam.to(value) if isinstance(lam, Tensor) else value.new_full((), lam)).expand_as(after)
    base = reward + gamma * cont * (1 - mix) * after  # (N, H)
    decay = gamma * cont * mix  # (N, H)
    last, out = value[:, -1], []
    for h in reversed(range(reward.shape[1])):
        last = base[:, h] + decay[:, h] * last
        out.append(last)
    return torch.stack(out[::-1], 1)


def discount_weights(start_cont: Tensor, cont: Tensor, gamma: float) -> Tensor:
    """How much each imagined state counts: w[0] = start_cont, w[h] = w[h-1] * gamma * cont[h-1].

    Shapes: start_cont (N,), cont (N, H) -> (N, H), in [0, 1] and never increasing along H.
    """
    steps = torch.cat([start_cont.unsqueeze(1), gamma * cont[:, :-1]], 1)
    return steps.cumprod(1)


def violates(cost: Any, threshold: float) -> Any:
    """The one definition of a violation: a row violates where its cost is at least the threshold.

    `cost` is a number, array or tensor; the answer is bool, of the same shape. The threshold is the
    setting `env.violation`.
    """
    return cost >= threshold


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask` is 1; 0 where it is nowhere 1. Same shapes -> scalar."""
    return (x * mask).sum() / mask.sum().clamp_min(1.0)


@torch.no_grad()
def polyak_(target_net: nn.Module, net: nn.Module, tau: float) -> None:
    """Polyak average, in place: every parameter moves by the share `tau` towards that of `net`."""
    for target, source in zip(target_net.parameters(), net.parameters(), strict=True):
        target.lerp_(source, tau)


def matmul_dtype(device: torch.device) -> torch.dtype:
    """Type in which matrix products are computed here: that of autocast, else float32."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else torch.float32


@torch.no_grad()
def rarity_weights(images: Tensor, power: float) -> Tensor:
    """Weight of each pixel in the image loss: rare colours count more, the mean weight is 1.

    Images (..., 3 x cameras) uint8 -> weights of the same shape: the frequency of the pixel's
    colour among all of them, to the power of -`power`. Sky and floor fill most of an image; what a
    task is about (hazards, goals) fills little of it. Colours are told apart by 4 bits per channel.
    """
    levels = (images >> (8 - COLOUR_BITS)).unflatten(-1, (-1, 3)).int()
    red, green, blue = levels.unbind(-1)
    colour = ((((red << COLOUR_BITS) + green) << COLOUR_BITS) + blue).flatten()  # (pixels,)
    count = torch.bincount(colour, minlength=2 ** (3 * COLOUR_BITS)).float()
    weight = (count / colour.numel()).clamp_min(1 / colour.numel()) ** -power  # of each colour
    weight = weight * colour.numel() / (count * weight).sum()
    return F.embedding(colour, weight.unsqueeze(1).repeat(1, 3)).view(images.shape)
