"""The one place where torchvision is imported."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay out (n, height, width, 3) uint8 images in rows of `columns` -> (H, W, 3) uint8."""
    _import_torchvision()
    from torchvision.utils import make_grid

    grid = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2), nrow=columns, padding=1)
    return grid.permute(1, 2, 0).numpy()


def image_operations() -> ModuleType:
    """`torchvision.transforms.v2.functional`, for (..., 3, height, width) tensors."""
    _import_torchvision()
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
