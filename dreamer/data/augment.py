"""Augmentation of training images, for robustness to unseen conditions.

See docs/reference/augmentation.md.

One draw holds for all steps of a sequence: the world changes from one sequence to the next, never
within one, so that the world model has nothing random to predict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dreamer.types import Batch
from dreamer.vision import image_operations

Augmentation = Callable[[Batch, np.random.Generator], Batch]
SHIFT = 1 / 16  # images move by up to this share of their side
LIGHT = 0.4  # brightness, contrast and saturation change by up to this share
HUE = 0.05  # of the colour circle; goal and hazards lie 0.33 apart
DARKEST, BRIGHTEST = 0.25, 1.25  # factors of `light`; the variant `night` is 0.4 of the usual light


def augmentation(name: str) -> Augmentation:
    """One of `AUGMENTATIONS`: changes a batch with the given generator and nothing else."""
    if name in ("shift", "colour"):
        image_operations()  # an import of two seconds: now, not at the first batch
    return AUGMENTATIONS[name]


def unchanged(batch: Batch, rng: np.random.Generator) -> Batch:
    """The same batch."""
    return batch


def shift(batch: Batch, rng: np.random.Generator) -> Batch:
    """Move the images, repeating their edges; each camera as if it were mounted differently."""
    obs = {}
    for camera, images in _images(batch):
        margin = round(SHIFT * images.shape[-2])
        places = rng.integers(2 * margin + 1, size=(len(images), 2))  # top and left edge, (B, 2)
        obs[camera] = _each_sequence(images, partial(_moved, margin), places)
    return batch._replace(obs=batch.obs | obs)


def colour(batch: Batch, rng: np.random.Generator) -> Batch:
    """Change brightness, contrast, saturation and hue; the same light falls on all cameras."""
    middle, reach = np.array([1, 1, 1, 0]), np.array([LIGHT, LIGHT, LIGHT, HUE])
    factors = rng.uniform(middle - reach, middle + reach, size=(len(batch.action), 4))
    obs = {camera: _each_sequence(images, _lit, factors) for camera, images in _images(batch)}
    return batch._replace(obs=batch.obs | obs)


def light(batch: Batch, rng: np.random.Generator) -> Batch:
    """Multiply all pixels by one factor, drawn evenly on a logarithmic scale."""
    reach = math.log(DARKEST), math.log(BRIGHTEST)
    factor = np.exp(rng.uniform(*reach, size=len(batch.action)))
    obs = {}
    for camera, images in _images(batch):
        wide = torch.as_tensor(factor, dtype=torch.float32, device=images.device)
        obs[camera] = (images * wide[:, None, None, None, None]).clamp_(0, 255).to(torch.uint8)
    return batch._replace(obs=batch.obs | obs)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": unchanged,
    "shift": shift,
    "colour": colour,
    "light": light,
}


def _images(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """(camera, (B, T, height, width, 3)) of each camera; vectors are left as they are."""
    return ((name, values) for name, values in batch.obs.items() if values.ndim == 5)


def _moved(margin: int, images: Tensor, top: int, left: int) -> Tensor:
    ops, (height, width) = image_operations(), images.shape[-2:]
    return ops.crop(ops.pad(images, [margin], padding_mode="edge"), top, left, height, width)


def _lit(
    images: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    ops = image_operations()
    changed = ops.adjust_contrast(ops.adjust_brightness(images, brightness), contrast)
    return ops.adjust_hue(ops.adjust_saturation(changed, saturation), hue)


def _each_sequence(images: Tensor, change: Callable[..., Tensor], numbers: np.ndarray) -> Tensor:
    """Apply `change` to the channels-first images of each sequence with its row of numbers."""
    changed = torch.empty_like(images)  # (B, T, height, width, 3)
    for before, after, row in zip(images, changed, numbers.tolist(), strict=True):
        channels_first = before.permute(0, 3, 1, 2).contiguous()  # (T, 3, height, width)
        after.copy_(change(channels_first, *row).permute(0, 2, 3, 1))
    return changed
