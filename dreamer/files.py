"""Files that are either whole or absent, whatever interrupts the program; text, whatever is in it.

Text is UTF-8 here, whatever the locale says.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer.errors import UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

DIGITS = 19  # of a whole number in JSON; more do not fit into 64 bits


def read_text(path: str | Path) -> str:
    """The text of a file; one that is no UTF-8 is a `UserError`, a missing one an `OSError`."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: byte {error.start} is no text") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; what UTF-8 cannot hold, of a file name, as an escape."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def parse_json(text: str | bytes) -> Any:
    """What JSON text says; whatever is wrong with it is a `ValueError` of a few words."""
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from error


def read_json(path: str | Path) -> Any:
    """The same of a file: what is wrong is a `UserError`, a missing file an `OSError`."""
    try:
        return parse_json(read_text(path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the name `path` when the block ends without error.

    The data reach the disk before the name does, so a crash leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        _flush(part)
        os.replace(part, path)
        _flush(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Disk(io.RawIOBase):
    """A new file for a library that does not survive an error of the disk.

    The first write error is kept, and everything after it counts as written; `check` raises it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path, self._raw = str(path), io.FileIO(path, "w+")
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the first write error since the start, if there was one."""
        if self.error is not None:
            raise self.error

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """All of it, or as much as the disk takes."""
        rest = memoryview(data).cast("B")
        try:
            while self.error is None and len(rest):
                rest = rest[self._raw.write(rest) :]
        except OSError as error:
            self._keep(error)
        return memoryview(data).nbytes

    def readinto(self, buffer: WriteableBuffer) -> int:
        """What was written; zeros where an error kept it from being written."""
        whole = memoryview(buffer).cast("B")
        filled = self._raw.readinto(whole)
        whole[filled:] = bytes(len(whole) - filled)
        return len(whole)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Make the file so long."""
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._keep(error)
            return size or 0

    def close(self) -> None:
        """End."""
        if not self.closed:
            self._raw.close()
        super().close()

    def _keep(self, error: OSError) -> None:
        error.filename = self._path
        self.error = self.error or error
