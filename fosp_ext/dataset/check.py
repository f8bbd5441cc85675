"""Full check of a dataset file, which decodes all images."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from dreamer.data.episode import DatasetInfo
from dreamer.data.layout import CHUNK_FRAMES, open_dataset
from dreamer.data.validation import validate_dataset
from dreamer.errors import DatasetError
from dreamer.training.progress import Progress

BLOCK = 16 * CHUNK_FRAMES  # images decoded at once, or fewer large ones
BLOCK_BYTES = 2**27


def check_dataset(path: str | Path, stream: TextIO | None = None) -> DatasetInfo:
    """Refuse a file with a wrong key or with images that cannot be decoded; say which ones."""
    info = validate_dataset(path)
    with open_dataset(path) as file:
        total = len(file[f"images/{info.cameras[0]}"])
        block = max(1, min(BLOCK, BLOCK_BYTES // (3 * info.size**2)))
        starts = range(0, total, block)
        title = f"checking {Path(path).name}"
        with Progress(title, len(starts) * len(info.cameras), "blocks", stream) as progress:
            for camera in info.cameras:
                images = file[f"images/{camera}"]
                for begin in starts:
                    end = min(begin + block, total)
                    try:
                        images[begin:end]
                    except OSError as error:
                        raise DatasetError(
                            f"{path} is damaged: images {begin} to {end - 1} of camera "
                            f"'{camera}' cannot be decoded"
                        ) from error
                    progress.advance()
    return info
