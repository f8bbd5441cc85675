"""Diagnostics of a world model: held-out losses and open-loop predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from dreamer import signals
from dreamer.agent import Agent
from dreamer.data.stream import Store, WindowStream
from dreamer.vision import image_grid

CONTEXT = 5  # rows the model sees before it predicts alone
EPISODES = 3  # shown side by side
SCALE = 2  # pixels on screen per pixel of the camera


@torch.no_grad()
def heldout_metrics(
    agent: Agent, stream: WindowStream, batches: int, device: torch.device
) -> dict[str, float]:
    """World-model losses on batches 0, 1, ... of held-out windows, the same ones every time.

    Where the model decodes costs, `cost_recall` is the share of recorded violations that it
    predicts and `cost_precision` the share of its predictions that are true, both over all rows.
    """
    sums: dict[str, float] = defaultdict(float)
    with fixed_randomness(device), agent.autocast(device):
        for index in signals.checked(range(batches)):
            before, batch = agent.world_model.warm_up(stream.batch(index).to(device))
            metrics = agent.world_model.losses(batch, before=before)[2]
            for name, value in metrics.items():
                sums[name] += float(value) / batches
    if "cost_hit_rate" in sums:
        sums["cost_recall"] = sums["cost_hit_rate"] / max(sums["cost_rate"], 1e-9)
        sums["cost_precision"] = sums["cost_hit_rate"] / max(sums["cost_warning_rate"], 1e-9)
    return dict(sums)


@torch.no_grad()
def heldout_estimates(
    agent: Agent, stream: WindowStream, device: torch.device
) -> dict[str, Tensor]:
    """Actions and value estimates at one batch of held-out rows, for histograms.

    `action` is (B*T, A), all else (B*T,).
    """
    batch = stream.batch(0).to(device)
    with fixed_randomness(device), agent.autocast(device):
        latent = agent.world_model.follow(batch).merge_time()
        action, estimates = agent.policy.act(agent.world_model, latent, explore=False)
        return {"action": action, **estimates}


@torch.no_grad()
def open_loop_videos(
    agent: Agent, store: Store, length: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Truth, prediction and error of the first episodes: camera -> (T, height, width, 3) uint8.

    Each frame has a row of true images, one of the model's and one of absolute errors; the model
    sees the first rows (green border) and then only the actions (red border). T is `length`, or
    less where all episodes are shorter.
    """
    batch = store.openings(length, EPISODES).to(device)
    with fixed_randomness(device), agent.autocast(device):
        predicted = agent.world_model.open_loop(batch, CONTEXT)
    return {
        name: _video(batch.obs[name].float().cpu().numpy() / 255, image.float().cpu().numpy())
        for name, image in predicted.items()
    }


@contextmanager
def fixed_randomness(device: torch.device) -> Iterator[None]:
    """Draw the same numbers every time, without moving the random numbers of the training."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _video(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    error = np.abs(truth - model)
    rows = np.stack([truth, model, error])  # (3, B, T, size, size, 3)
    pixels = (rows * 255).round().astype(np.uint8).repeat(SCALE, 3).repeat(SCALE, 4)
    pixels[1] = _border(pixels[1])
    frames = pixels.transpose(2, 0, 1, 3, 4, 5)  # (T, 3, B, ...)
    return np.stack(
        [image_grid(frame.reshape(-1, *frame.shape[2:]), frame.shape[1]) for frame in frames]
    )


def _border(images: np.ndarray) -> np.ndarray:
    """(B, T, ...) images with a green frame while the model sees, a red one while it predicts."""
    framed = images.copy()
    for rows, colour in ((slice(0, CONTEXT), (0, 200, 0)), (slice(CONTEXT, None), (220, 0, 0))):
        part = framed[:, rows]
        part[:, :, :2], part[:, :, -2:] = colour, colour
        part[:, :, :, :2], part[:, :, :, -2:] = colour, colour
    return framed
