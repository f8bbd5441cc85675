"""Seeds, devices, memory, compilation."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dreamer.errors import UserError

MOST_THREADS = 64  # that may be asked for on any machine
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


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


def use_threads(count: int) -> None:
    """Let torch use so many threads of the CPU; 0 leaves it every core."""
    most = max(MOST_THREADS, 4 * (os.cpu_count() or 1))
    if not 0 <= count <= most:
        raise UserError(f"threads must be 0 to {most} on this machine, not {count}")
    if count:
        torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Let this process keep up to a gibibyte that it frees; where there is no glibc, do nothing.

    Else each large tensor of an update is fetched anew, as zeroed pages, and given back after it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, 2**30)


def compiled(function: Callable) -> Callable:
    """The function by torch.compile where gradients are asked for, elsewhere as it is.

    So only updates compile, whose shapes never change, and not every number of environments that
    act. Random numbers are drawn from torch's own generators, the same ones as without it.
    """
    fast = torch.compile(function, dynamic=False, options={"fallback_random": True})

    def call(*args: Any) -> Any:
        return fast(*args) if torch.is_grad_enabled() else function(*args)

    return call
