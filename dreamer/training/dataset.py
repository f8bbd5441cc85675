"""A dataset file, opened for a run: what its episodes share, and their rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dreamer import distributed
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import fingerprint
from dreamer.data.memory import plan_memory
from dreamer.data.store import RowStore
from dreamer.data.stream import AT_ONCE
from dreamer.training.progress import Progress
from dreamer.training.settings import StorageSettings


class Dataset(NamedTuple):
    """Recorded episodes as training rows."""

    path: Path
    info: DatasetInfo
    fingerprint: str  # of the content (dreamer/data/hdf5.py)
    train: RowStore
    heldout: RowStore | None


def load_dataset(
    path: Path, info: DatasetInfo, settings: StorageSettings, batch_rows: int
) -> Dataset:
    """Open a valid file whose episodes share `info`: in memory if they fit, else from disk.

    Actions are converted to the scale of `info`, where the file has another.
    `batch_rows` are the rows of one batch.
    """
    plan = plan_memory(
        path,
        settings.storage,
        settings.ram_limit_gb,
        AT_ONCE * batch_rows,
        distributed.neighbours(),
    )
    distributed.say(str(plan))
    if plan.storage == "disk":
        stores = RowStore.open(path, "disk", settings.holdout, action_scale=info.action_scale)
    else:
        with Progress("decoding", plan.images, "images", distributed.screen()) as progress:
            stores = RowStore.open(
                path, "ram", settings.holdout, progress.advance, info.action_scale
            )
    return Dataset(path, info, fingerprint(path), *stores)
