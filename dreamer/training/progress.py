"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
Piece = TypeVar("Piece")


class Progress:
    """Counts finished pieces of work on `stream`; `None` keeps silent."""

    def __init__(self, title: str, total: int, unit: str, stream: TextIO | None, done: int = 0):
        self.title, self.total, self.unit, self.stream = title, total, unit, stream
        self.done = self.first = done
        self.started = self.reported = time.monotonic()
        self.bar: tqdm | None = None
        if stream is not None and stream.isatty():
            self.bar = tqdm(
                desc=title,
                total=total,
                initial=done,
                unit=f" {unit}",
                file=stream,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, pieces: int = 1) -> None:
        """So many more pieces are done."""
        self.done += pieces
        if self.bar is not None:
            self.bar.update(pieces)
        elif self.stream is not None:
            self._report(self.stream, time.monotonic())

    def count(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Pass them on; each counts as done when the next one is asked for."""
        for piece in pieces:
            yield piece
            self.advance()

    def _report(self, stream: TextIO, now: float) -> None:
        if now - self.reported < SECONDS_BETWEEN_LINES and self.done < self.total:
            return
        self.reported = now
        rate = (self.done - self.first) / max(now - self.started, 1e-6)
        left = (self.total - self.done) / rate
        stream.write(
            f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.2f} per second, "
            f"{int(left // 60)}:{int(left % 60):02d} left\n"
        )
        stream.flush()
