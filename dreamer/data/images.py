"""The side of square images: which ones a network takes, and resizing to it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dreamer.errors import UserError

SMALLEST_SIDE = 8


def trains(side: int) -> bool:
    """Whether a network takes images of this side: powers of two, each layer halves them."""
    return side >= SMALLEST_SIDE and not side & (side - 1)


def check_side(side: int) -> int:
    """The side, if a network takes images of it."""
    if not trains(side):
        raise UserError(
            f"images of size {side} cannot be trained on; the size must be a power of two from "
            f"{SMALLEST_SIDE}, such as 64"
        )
    return side


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """The whole image as (side, side, 3) uint8; a smaller pixel is the mean of those it covers.

    What is not square is stretched.
    """
    if image.shape[:2] == (side, side):
        return image
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
