"""A trace of what the machine does during a few updates of a run, for Perfetto or TensorBoard."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from dreamer.files import atomic_path

SKIPPED = 2  # updates of a start that are not traced: they set up memory and kernels


class Tracer:
    """Called after each update: traces `count` of them, and all that happens between them.

    The trace is a compressed Chrome trace in `folder`, with a range for each half of an update.
    Recording slows these updates down, and the time tags of the run with them.
    """

    def __init__(self, folder: Path, count: int, say: Callable[[str], None]) -> None:
        """`say` is told where the trace lies; with a `count` of 0 nothing is traced."""
        self._folder, self._count, self._say = folder, count, say
        self._seen = 0  # updates of this start
        self._last = 0  # the newest update of the run
        self._profile: torch.profiler.profile | None = None

    def __call__(self, updates: int) -> None:
        """`updates` of the run are done."""
        self._seen, self._last = self._seen + 1, updates
        if self._seen == SKIPPED and self._count:
            self._profile = torch.profiler.profile()  # of the processor, and the GPU if any
            self._profile.start()
        elif self._seen == SKIPPED + self._count:
            self.close()

    def close(self) -> None:
        """Write what has been traced, if anything; a run may end before all of it is done."""
        if self._profile is None:
            return
        profile, self._profile = self._profile, None
        profile.stop()
        if self._seen == SKIPPED:  # the run ended before the first update to be traced
            return
        first = self._last - self._seen + SKIPPED + 1
        path = self._folder / f"updates_{first:09d}_to_{self._last:09d}.pt.trace.json.gz"
        with tempfile.TemporaryDirectory() as folder, atomic_path(path) as part:
            plain = Path(folder) / "trace.json"
            profile.export_chrome_trace(str(plain))
            with plain.open("rb") as file, gzip.open(part, "wb") as packed:
                shutil.copyfileobj(file, packed)
        self._say(f"trace: {path}")
