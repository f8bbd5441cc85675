"""The running scale by which returns and advantages are divided."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer import distributed


class Moments(nn.Module):
    """Moving 5th and 95th percentile of a signal.

    See docs/concepts/algorithm.md 2.5; DreamerV3, eq. 12.

    The averages start at 0 without bias correction, as in DreamerV3. `scale` is at least 1, so
    small signals are never blown up.
    """

    quantiles: Tensor
    range: Tensor

    def __init__(self, decay: float = 0.99, low: float = 0.05, high: float = 0.95):
        super().__init__()
        self.decay = decay
        self.register_buffer("quantiles", torch.tensor([low, high]), persistent=False)
        self.register_buffer("range", torch.zeros(2))

    @torch.no_grad()
    def update_(self, signal: Tensor) -> None:
        """Take in a batch of any shape, or one of each process, all of the same shape."""
        signal = distributed.gathered(signal.float().flatten())
        now = torch.quantile(signal, self.quantiles)
        self.range.lerp_(now, 1 - self.decay)

    def scale(self) -> Tensor:
        """max(1, P95 - P5), a scalar tensor without gradient."""
        return (self.range[1] - self.range[0]).clamp_min(1.0)
