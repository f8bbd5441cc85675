"""Figure of augmented training images for the docs: `python -m experiments.augmentation FILE`.

Each row of the figure is the same recorded sequence, under one draw of one augmentation.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from dreamer.boundary import Parser, bounded
from dreamer.data.augment import augmentation
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.types import Batch

DRAWS = (("none", 0), ("shift", 0), ("shift", 1), ("colour", 0), ("colour", 1), ("colour", 5))
STEPS = (0, 2, 4)  # of the sequence, shown beside each other


@bounded
def main(argv: list[str]) -> int:
    """Draw the figure; returns the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="HDF5 file of recorded episodes")
    parser.add_argument("--row", type=int, default=1400, help="first row of the sequence")
    parser.add_argument("--out", type=Path, default=Path("docs/images/augmentation.png"))
    arguments = parser.parse_args(argv)
    store = RowStore.open(arguments.dataset, "disk", holdout=0)[0]
    length = STEPS[-1] + 1
    if not 0 <= arguments.row <= len(store) - length:
        raise UserError(f"--row must lie between 0 and {len(store) - length}")
    draw(store.windows([arguments.row], length), arguments.out)
    print(f"figure: {arguments.out}, {arguments.out.stat().st_size / 1000:.0f} kB")
    return 0


def draw(sequence: Batch, path: Path) -> None:
    """One row per draw, one column per camera and step; lines through the middle show shifts."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    columns = [(camera, step) for camera in sequence.obs for step in STEPS]
    size = (1.3 * len(columns), 1.36 * len(DRAWS))
    figure, axes = plt.subplots(len(DRAWS), len(columns), figsize=size, layout="constrained")
    for line, (name, seed) in zip(axes, DRAWS, strict=True):
        changed = augmentation(name)(sequence, np.random.default_rng(seed))
        for axis, (camera, step) in zip(line, columns, strict=True):
            image = changed.obs[camera][0, step].numpy()
            axis.imshow(image)
            axis.axhline((len(image) - 1) / 2, color="white", linewidth=0.4)
            axis.axvline((len(image) - 1) / 2, color="white", linewidth=0.4)
            axis.set(xticks=[], yticks=[])
            if name == "none":
                axis.set_title(f"{camera}, +{step}", fontsize=8)
        line[0].set_ylabel(name, fontsize=9)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=90)
    plt.close(figure)
    with atomic_path(path) as part, Image.open(encoded) as drawn:
        drawn.convert("RGB").quantize(256).save(part, "PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
