"""Image grids, and augmentation on a machine without torchvision."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from dreamer import vision
from dreamer.errors import UserError


@pytest.mark.parametrize(("count", "columns"), [(6, 3), (5, 2), (3, 3), (2, 1)])
def test_the_grid_is_that_of_torchvision(count, columns):
    vision.image_operations()  # where only its Python part works, this makes it importable
    from torchvision.utils import make_grid

    images = np.random.default_rng(0).integers(1, 256, (count, 4, 5, 3), dtype=np.uint8)
    theirs = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2), nrow=columns, padding=1)
    grid = vision.image_grid(images, columns)
    assert grid.dtype == np.uint8
    np.testing.assert_array_equal(grid, theirs.permute(1, 2, 0).numpy())


def test_augmentation_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match="pip install --no-deps torchvision"):
        vision.image_operations()
