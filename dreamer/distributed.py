"""Several processes that train one agent: data of their own, the same weights.

See docs/reference/scaling.md.

`torchrun` starts them and tells each its number in the environment. In one process, everything here
does nothing: tensors come back as they are. Tensors travel by NCCL between GPUs, else by gloo.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dreamer.errors import NonFiniteError, UserError

TIMEOUT = timedelta(hours=2)  # that one waits for another, which may be recording or evaluating


def launched() -> int:
    """How many processes were started together, as the environment says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def neighbours() -> int:
    """How many of them run on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[None]:
    """A block in which the processes that were started together know each other.

    None leaves before all are through, so that none is ended by `torchrun` while it still writes.
    """
    if launched() == 1:
        yield
        return
    # Imported later, as optimisers do, its functions would have this group as their default: its
    # threads would outlive it, and now and then abort the interpreter at its end.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"WORLD_SIZE is {launched()} and the processes do not find each other ({reason}); "
            "start them with torchrun (docs/reference/scaling.md)"
        ) from error
    try:
        yield
    except (UserError, NonFiniteError) as error:
        if not is_writer():  # whose error is shown anyway
            warn(f"error: {error}")
        raise
    largest(0)
    dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def is_writer() -> bool:
    """Is this the one process that writes files and talks to the user?"""
    return rank() == 0


def screen() -> TextIO | None:
    """Where to show progress: the terminal, or nowhere if another process does that."""
    return sys.stderr if is_writer() else None


def say(text: str) -> None:
    """One line for the user, from one process."""
    if is_writer():
        sys.stderr.write(f"{text}\n")


def warn(text: str) -> None:
    """One line for the user from any process; those behind the first say which they are."""
    sys.stderr.write(f"{text}\n" if is_writer() else f"process {rank()}: {text}\n")


def own_seed(seed: int) -> int:
    """A seed for what shall differ between processes; the first one keeps `seed` itself."""
    if is_writer():
        return seed
    return int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0])


def own_device(device: torch.device) -> torch.device:
    """The CPU, or the GPU with the number that this process has on its machine."""
    if device.type != "cuda":
        return device
    if world_size() == 1:
        if device.index is not None:
            torch.cuda.set_device(device)  # so that its name is the one in meta.json
        return device
    number, have = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise UserError(f"several processes cannot share {device}; use --device cuda or cpu")
    if number >= have:
        raise UserError(
            f"{neighbours()} processes were started on a machine with {have} GPUs; start {have}, "
            "or use --device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def collective_errors() -> Iterator[None]:
    """A block whose `UserError`, in whichever process, ends all; the first process says it.

    The block must not exchange anything with other processes, for one may not get that far.
    """
    mine = None
    try:
        yield
    except UserError as error:
        if world_size() == 1:
            raise
        mine = error
    _raise_first(collect(mine))


def require_same(value: Any, complaint: str) -> None:
    """End all processes with a `UserError` that says `complaint` unless `value` is equal in all."""
    if any(other != value for other in collect(value)):
        _raise_first([UserError(complaint)])


def broadcast_(module: nn.Module) -> None:
    """Give all processes the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def mean(tensors: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Means over the processes, in one exchange; None stays None, and is so in all of them."""
    if world_size() == 1:
        return tensors
    given = [tensor for tensor in tensors if tensor is not None]
    flat = torch.cat([tensor.flatten() for tensor in given])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = iter(flat.split([tensor.numel() for tensor in given]))
    return [None if tensor is None else next(parts).view_as(tensor) for tensor in tensors]


def joint_mean(x: Tensor) -> Tensor:
    """The mean of `x` over the processes; its gradient is that of this process's `x`.

    Averaged over the processes, such gradients are those of the mean.
    """
    if world_size() == 1:
        return x
    now = x.detach().clone()
    dist.all_reduce(now)
    return now / world_size() + (x - x.detach())  # the second part is exactly 0


def gathered(x: Tensor) -> Tensor:
    """The `x` (n,) of all processes one after the other, (n * processes,)."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def largest(number: int) -> int:
    """The largest `number` of all processes; no GPU is waited for."""
    if world_size() == 1:
        return number
    shared = torch.tensor([number])
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def totals(*numbers: int) -> tuple[int, ...]:
    """Each of these summed over the processes, in one exchange; no GPU is waited for."""
    if world_size() == 1:
        return numbers
    shared = torch.tensor(numbers)
    dist.all_reduce(shared)
    return tuple(shared.tolist())


def collect(item: Any) -> list[Any]:
    """The `item` of each process, in their order."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def average(metrics: Mapping[str, float]) -> dict[str, float]:
    """Each metric as the mean over the processes that have it."""
    if world_size() == 1:
        return dict(metrics)
    everywhere = collect(dict(metrics))
    names = sorted(set().union(*everywhere))
    columns = {name: [one[name] for one in everywhere if name in one] for name in names}
    return {name: sum(column) / len(column) for name, column in columns.items()}


def _raise_first(errors: Sequence[UserError | None]) -> None:
    for error in errors:
        if error is not None:
            raise error if is_writer() else SystemExit(error.exit_code)
