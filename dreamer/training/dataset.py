"""A dataset file, opened for a run: what its episodes share, and their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dreamer import distributed
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import fingerprint, validate_dataset
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

    Actions are converted to the scale of `info`, where the file has another. Cameras and vectors
    that `info` does not name are left out.
    `batch_rows` are the rows of one batch.
    """
    plan = plan_memory(
        path,
        settings.storage,
        settings.ram_limit_gb,
        AT_ONCE * batch_rows,
        distributed.neighbours(),
        len(info.cameras),
    )
    distributed.say(str(plan))
    for line in left_out(path, info):
        distributed.say(line)
    chosen = info.action_scale, info.cameras, tuple(info.vectors)
    if plan.storage == "disk":
        stores = RowStore.open(path, "disk", settings.holdout, lambda _: None, *chosen)
    else:
        with Progress("decoding", plan.images, "images", distributed.screen()) as progress:
            stores = RowStore.open(path, "ram", settings.holdout, progress.advance, *chosen)
    return Dataset(path, info, fingerprint(path), *stores)


def left_out(path: Path, info: DatasetInfo) -> Iterator[str]:
    """What of the file's observations a run that reads `info` leaves out, a line for each kind."""
    found = validate_dataset(path)
    for kind, names, used in (
        ("cameras", found.cameras, info.cameras),
        ("vectors", found.vectors, info.vectors),
    ):
        unused = [name for name in names if name not in used]
        if unused:
            both = ",".join([*used, *unused])
            yield f"not used: {kind} {', '.join(unused)}; with them: --env.{kind} {both}"
