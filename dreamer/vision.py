"""Images in a grid, and the one place where torchvision is imported."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from dreamer.errors import UserError


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay out (n, height, width, 3) uint8 images in rows of `columns` -> (H, W, 3) uint8.

    A black line of one pixel is around each image; places that remain are black.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height + 1, width + 1, channels), np.uint8)
    cells[:count, 1:, 1:] = images
    lines = cells.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    grid = lines.reshape(rows * (height + 1), columns * (width + 1), channels)
    return np.pad(grid, ((0, 1), (0, 1), (0, 0)))


def image_operations() -> ModuleType:
    """`torchvision.transforms.v2.functional`, for (..., 3, height, width) tensors."""
    try:
        _import_torchvision()
    except ModuleNotFoundError as error:
        raise UserError(
            "augmentation needs torchvision: pip install --no-deps torchvision, in the version "
            "that belongs to your PyTorch"
        ) from error
    from torchvision.transforms.v2 import functional

    return functional


def _import_torchvision() -> None:
    """Import torchvision even where its compiled part was built for another torch.

    Its Python part asks for two operators of the compiled part at import. A CUDA build beside a CPU
    torch cannot load that part; nothing here calls the operators, so their names are enough.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        torch.library.define(
            "torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
        torch.library.define(
            "torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
