"""Layers and networks: dense stacks, encoder and decoders of observations, policy.

See docs/concepts/algorithm.md 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.distributions import Bernoulli, Normal, TwoHot, symlog_bins
from dreamer.errors import UserError
from dreamer.functional import matmul_dtype, symlog
from dreamer.settings import NetSize

NORM_EPS = 1e-3
TRUNCATION_CORRECTION = 0.87962566103423978  # std of a unit normal cut at two sigma
KERNEL = 4  # every convolution halves or doubles the image
SMALLEST = 4  # side of the feature map between convolutions and vectors


def init_hidden_(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Truncated normal of variance 1 / mean fan, for layers followed by norm and activation."""
    std = math.sqrt(2 / (fan_in + fan_out)) / TRUNCATION_CORRECTION
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_output_(weight: Tensor, fan_in: int, fan_out: int, scale: float) -> None:
    """Uniform of variance `scale` / mean fan, for layers that predict; 0 gives zeros."""
    limit = math.sqrt(3 * scale * 2 / (fan_in + fan_out))
    nn.init.uniform_(weight, -limit, limit)


Steps = dict[int, tuple[Tensor, Tensor]]  # step -> its input and gradient, filled going backward


class StepLinear(nn.Linear):
    """A linear layer of a loop: inside `repeated`, its weight gets one gradient for all steps.

    Autograd alone multiplies and adds up matrices of the size of the weight at every step, also
    where a step has few rows.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self._repeated: tuple[Tensor, Tensor, Tensor | None, Steps] | None = None

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """A block in which the layer is applied many times, to rows (N, inputs)."""
        if not torch.is_grad_enabled() or not self.weight.requires_grad:
            yield
            return
        steps: Steps = {}
        token = _Gathered.apply(self.weight, self.bias, steps)
        dtype = matmul_dtype(self.weight.device)
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        self._repeated = token, self.weight.detach().to(dtype), bias, steps
        try:
            yield
        finally:
            self._repeated = None

    def forward(self, x: Tensor) -> Tensor:  # (N, inputs) -> (N, outputs)
        if self._repeated is None:
            return super().forward(x)
        return _Step.apply(x.to(self._repeated[1].dtype), *self._repeated)


class _Gathered(torch.autograd.Function):
    """Stands before all steps of a layer, so that its backward pass comes after theirs."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, steps: Steps) -> Tensor:
        ctx.steps, ctx.biased, ctx.dtype = steps, bias is not None, weight.dtype
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, grad = (torch.cat(parts) for parts in zip(*ctx.steps.values(), strict=True))
        ctx.steps.clear()
        bias = grad.sum(0, dtype=ctx.dtype) if ctx.biased else None
        return (grad.t() @ x).to(ctx.dtype), bias, None


class _Step(torch.autograd.Function):
    """The layer at one step; hands input and gradient on to `_Gathered`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, weight: Tensor, bias: Tensor | None, steps: Steps
    ) -> Tensor:
        ctx.save_for_backward(x, weight, token)
        ctx.steps = steps
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, token = ctx.saved_tensors
        ctx.steps[id(ctx)] = (x, grad)
        return grad @ weight, token, None, None, None


def hidden_linear(inputs: int, outputs: int, fan_in: int | None = None) -> StepLinear:
    """Linear layer without bias, before a norm. `fan_in` counts the inputs of a split layer."""
    layer = StepLinear(inputs, outputs, bias=False)
    init_hidden_(layer.weight, fan_in or inputs, outputs)
    return layer


def output_linear(inputs: int, outputs: int, scale: float = 1.0) -> StepLinear:
    """Linear layer with zero bias whose output is a prediction."""
    layer = StepLinear(inputs, outputs)
    init_output_(layer.weight, inputs, outputs, scale)
    nn.init.zeros_(layer.bias)
    return layer


class NormSiLU(nn.Module):
    """Layer norm over the last axis, then SiLU."""

    def __init__(self, size: int):
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:  # (..., size) -> (..., size)
        return F.silu(self.norm(x))


class MLP(nn.Sequential):
    """`layers` times linear, norm, SiLU, then an output layer: (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, layers: int, units: int, outscale: float):
        blocks: list[nn.Module] = []
        for index in range(layers):
            blocks += [hidden_linear(inputs if index == 0 else units, units), NormSiLU(units)]
        super().__init__(*blocks, output_linear(units, outputs, outscale))

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        layer = self[-1]
        assert isinstance(layer, nn.Linear)
        return layer


class TwoHotHead(nn.Module):
    """Predicts a number: features (..., F) -> `TwoHot` (docs/concepts/algorithm.md 2.2)."""

    bins: Tensor

    def __init__(self, inputs: int, layers: int, units: int, outscale: float):
        super().__init__()
        self.register_buffer("bins", symlog_bins(), persistent=False)
        self.mlp = MLP(inputs, len(self.bins), layers, units, outscale)

    def forward(self, feat: Tensor) -> TwoHot:
        return TwoHot(self.mlp(feat), self.bins)


class BernoulliHead(nn.Module):
    """Predicts a probability: features (..., F) -> `Bernoulli` (...)."""

    def __init__(self, inputs: int, layers: int, units: int, outscale: float = 1.0):
        super().__init__()
        self.mlp = MLP(inputs, 1, layers, units, outscale)

    def forward(self, feat: Tensor) -> Bernoulli:
        return Bernoulli(self.mlp(feat).squeeze(-1))


class Actor(nn.Module):
    """Policy: (..., F) -> Normal(tanh(m), 0.9 * sigmoid(s + 2) + 0.1).

    See docs/concepts/algorithm.md 2.5.
    """

    def __init__(self, inputs: int, action_size: int, size: NetSize):
        super().__init__()
        self.mlp = MLP(inputs, 2 * action_size, size.layers, size.units, outscale=1.0)
        init_output_(self.mlp.output.weight, size.units, action_size, 1.0)

    def forward(self, feat: Tensor) -> Normal:
        mean, std = self.mlp(feat).float().chunk(2, -1)  # (..., A) each
        return Normal(mean.tanh(), 0.9 * torch.sigmoid(std + 2) + 0.1)


class ChannelNormSiLU(NormSiLU):
    """Layer norm over channels at each pixel, then SiLU: (N, C, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def channels_last(blocks: list[nn.Module]) -> nn.Sequential:
    """The blocks one after another, with weights laid out as convolutions are fastest."""
    net = nn.Sequential(*blocks)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs


def centred(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images from 0 to 255 as numbers from -0.5 to 0.5, of the same shape."""
    return images.to(dtype).sub_(127.5).div_(255)  # whole and half numbers are exact in bfloat16


class ImageEncoder(nn.Module):
    """All cameras, stacked as channels, to one embedding per time step."""

    def __init__(self, cameras: Mapping[str, tuple[int, int, int]], depth: int):
        super().__init__()
        self.cameras = tuple(cameras)
        side, channels = image_size(cameras)
        blocks: list[nn.Module] = []
        for width in stage_widths(side, depth):
            conv = nn.Conv2d(channels, width, KERNEL, stride=2, padding=1, bias=False)
            init_hidden_(conv.weight, KERNEL**2 * channels, KERNEL**2 * width)
            blocks += [conv, ChannelNormSiLU(width)]
            channels = width
        self.net = channels_last(blocks)
        self.size = channels * SMALLEST**2  # E

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.embed(self.stacked(obs))

    def stacked(self, obs: dict[str, Tensor]) -> Tensor:
        """Images of all cameras: camera -> (B, T, 64, 64, 3) uint8 to (B, T, 64, 64, C) uint8."""
        return torch.cat([obs[name] for name in self.cameras], -1)

    def embed(self, images: Tensor) -> Tensor:
        """What `stacked` made, (B, T, 64, 64, C) -> (B, T, E)."""
        pixels = centred(images.flatten(0, -4), matmul_dtype(images.device))
        embedded = self.net(pixels.permute(0, 3, 1, 2))  # of (B*T, C, 64, 64)
        return embedded.flatten(1).unflatten(0, images.shape[:-3])


class Encoder(ImageEncoder):
    """Images and vectors to one embedding per time step; without vectors an `ImageEncoder`.

    Vectors pass through symlog and an MLP, and their embedding is appended to that of the images.
    """

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int, int]],
        vectors: Mapping[str, int],
        depth: int,
        net: NetSize,
    ):
        """`vectors` are name -> numbers."""
        super().__init__(cameras, depth)
        self.vectors = tuple(vectors)
        if vectors:
            inputs = sum(vectors.values())
            self.vector_net = MLP(inputs, net.units, net.layers, net.units, outscale=1.0)
            self.size += net.units

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.joined(self.embed(self.stacked(obs)), obs)

    def joined(self, embed: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """The embedding of the images (B, T, ...) with that of the vectors, (B, T, E)."""
        if not self.vectors:
            return embed
        return torch.cat([embed, self.vector_net(self.numbers(obs))], -1)

    def numbers(self, obs: dict[str, Tensor]) -> Tensor:
        """All vectors in symlog: name -> (B, T, D) to (B, T, sum of D)."""
        return symlog(torch.cat([obs[name] for name in self.vectors], -1))


class VectorDecoder(nn.Module):
    """Features to the vectors of an observation, in symlog: (..., F) -> name -> (..., D)."""

    def __init__(self, inputs: int, vectors: Mapping[str, int], net: NetSize):
        super().__init__()
        self.vectors = dict(vectors)
        self.mlp = MLP(inputs, sum(vectors.values()), net.layers, net.units, outscale=1.0)

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        parts = self.mlp(feat).float().split(list(self.vectors.values()), -1)
        return dict(zip(self.vectors, parts, strict=True))


class ImageDecoder(nn.Module):
    """Features to the images of all cameras, in [0, 1] up to errors of the model."""

    def __init__(self, inputs: int, cameras: Mapping[str, tuple[int, int, int]], depth: int):
        super().__init__()
        self.cameras = {name: shape[-1] for name, shape in cameras.items()}
        side, channels = image_size(cameras)
        widths = stage_widths(side, depth)[::-1]  # widest first
        self.start = output_linear(inputs, widths[0] * SMALLEST**2)
        blocks: list[nn.Module] = []
        for width, outputs in zip(widths, [*widths[1:], channels], strict=True):
            last = len(blocks) == 2 * (len(widths) - 1)
            deconv = nn.ConvTranspose2d(width, outputs, KERNEL, stride=2, padding=1, bias=last)
            fans = (KERNEL**2 * width, KERNEL**2 * outputs)
            if deconv.bias is not None:
                init_output_(deconv.weight, *fans, scale=1.0)
                nn.init.zeros_(deconv.bias)
                blocks += [deconv]
            else:
                init_hidden_(deconv.weight, *fans)
                blocks += [deconv, ChannelNormSiLU(outputs)]
        self.net = channels_last(blocks)

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        return self.by_camera(self.pixels(feat) + 0.5)

    def pixels(self, feat: Tensor) -> Tensor:
        """Images of all cameras around 0, as `centred`: (..., F) -> (..., 64, 64, C)."""
        x = self.start(feat).flatten(0, -2).unflatten(-1, (-1, SMALLEST, SMALLEST))
        x = self.net(x.contiguous(memory_format=torch.channels_last)).float()
        return x.permute(0, 2, 3, 1).unflatten(0, feat.shape[:-1])

    def by_camera(self, channels: Tensor) -> dict[str, Tensor]:
        """Split something (..., C) into the channels of each camera."""
        return dict(zip(self.cameras, channels.split(list(self.cameras.values()), -1), strict=True))


def image_size(cameras: Mapping[str, tuple[int, int, int]]) -> tuple[int, int]:
    """Side and summed channels of camera shapes (H, W, C); sides are one power of two."""
    sides = {side for shape in cameras.values() for side in shape[:2]}
    if len(sides) != 1 or (side := sides.pop()) < 2 * SMALLEST or side & (side - 1):
        raise UserError(
            f"cameras must share one square size, a power of two from 8: {dict(cameras)}"
        )
    return side, sum(shape[-1] for shape in cameras.values())


def stage_widths(side: int, depth: int) -> list[int]:
    """Channels after each halving from `side` down to 4: depth, 2*depth, 4*depth, ..."""
    return [depth * 2**stage for stage in range(int(math.log2(side // SMALLEST)))]
