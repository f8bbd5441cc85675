"""A low estimate of the memory that learning takes, made before any of it is taken."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dreamer.data.episode import DatasetInfo
from dreamer.data.memory import free_memory
from dreamer.distributions import BINS
from dreamer.errors import UserError
from dreamer.networks import KERNEL, SMALLEST, image_size, stage_widths
from dreamer.settings import NetSize, WorldModelSettings

NUMBER = 4  # bytes
PER_WEIGHT = 4 * NUMBER  # a weight, its gradient, and the two moments of Adam
PER_OUTPUT = 2 * NUMBER  # what a layer puts out is kept for the gradient, and so is its norm
IMAGES_AT_ONCE = 4  # batches of images in memory, see dreamer/data/stream.py


def require_memory(
    config: Any, info: DatasetInfo, rows: int, imagined: int, device: torch.device
) -> None:
    """Refuse to learn where that cannot fit into the memory that is free.

    `config` has `world_model`, and in its sections a `NetSize` for each further network. An update
    sees so many `rows` of episodes and so many `imagined` states. The estimate is low: what it lets
    through may still not fit.
    """
    parts = needs(config.world_model, tuple(networks(config)), info, rows, imagined)
    needed, free = sum(parts.values()), free_on(device)
    if free is not None and needed > free:
        largest = max(parts, key=lambda part: parts[part])
        raise UserError(
            f"learning would take more than {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB "
            f"are free; most of it is for {largest}"
        )


def needs(
    model: WorldModelSettings,
    nets: tuple[NetSize, ...],
    info: DatasetInfo,
    rows: int,
    imagined: int,
) -> Mapping[str, int]:
    """Bytes of the parts: weights, and what an update keeps until its gradients are there."""
    side, channels = image_size(dict.fromkeys(info.cameras, (info.size, info.size, 3)))
    rssm, widths = model.rssm, stage_widths(side, model.cnn_depth)
    flat, wide = rssm.stoch * rssm.classes, widths[-1] * SMALLEST**2
    convolved = sum(width * (side >> k + 1) ** 2 for k, width in enumerate(widths))
    recurrent = 3 * rssm.deter + 2 * rssm.hidden + 2 * flat
    heads = sum(net.layers * net.units + BINS for net in nets)
    weights = (
        rssm.deter * (3 * rssm.deter + 4 * rssm.hidden)
        + 2 * rssm.hidden * flat
        + wide * (rssm.hidden + rssm.deter)
        + 2 * KERNEL**2 * sum(a * b for a, b in itertools.pairwise([channels, *widths]))
        + sum(net.units * (rssm.deter + flat + (net.layers - 1) * net.units) for net in nets)
        + info.action_size * (rssm.hidden + nets[0].units)
    )
    images = rows * channels * side**2
    return {
        "the networks (world_model, actor, critic)": PER_WEIGHT * weights,
        "images (run.batch_size, run.batch_length, env.size)": (IMAGES_AT_ONCE + NUMBER) * images,
        "the batch (run.batch_size, run.batch_length)": PER_OUTPUT * rows * (convolved + recurrent),
        "imagination (imagination.horizon, imagination.starts)": PER_OUTPUT
        * imagined
        * (recurrent + heads),
    }


def networks(config: Any) -> Iterator[NetSize]:
    """The size of every network beside the world model's trunk that a configuration describes."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, NetSize):
            yield value
        elif dataclasses.is_dataclass(value):
            yield from networks(value)


def free_on(device: torch.device) -> int | None:
    """Bytes that are free where an agent learns, if the system says so."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()
