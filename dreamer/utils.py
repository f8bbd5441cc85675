"""Seeds, devices and intervals."""

from __future__ import annotations

import random

import numpy as np
import torch

from dreamer.errors import UserError


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries may use the global one)
    torch.manual_seed(seed)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device '{name}' cannot be used here; auto or cpu can ({reason})"
        ) from error
    return device


class Every:
    """True when a multiple of `interval` was reached or passed since the last call; 0 is never."""

    def __init__(self, interval: int, start: int = 0) -> None:
        """Count from `start`."""
        self._interval, self._last = interval, start

    def __call__(self, step: int) -> bool:
        """Is it time again?"""
        if not self._interval:
            return False
        due = step // self._interval > self._last // self._interval
        self._last = step
        return due
