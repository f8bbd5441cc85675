"""HDF5 output that turns a full disk into one plain `OSError`."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import h5py

from dreamer.signals import deferred

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class HDF5Output:
    """A new HDF5 file to write to, as a context manager.

    HDF5 does not survive an error of the disk: it raises one kind of exception or another, again
    when its objects are freed, and may crash. So its bytes go through a stand-in that remembers
    the first error and takes everything after it as written. `check`, and the end of the block,
    raise that error as the `OSError` it was. Signals to stop wait for the end of the block: HDF5
    does not survive an exception in the stand-in either.
    """

    def __init__(self, path: str | Path) -> None:
        """Nothing happens before the block is entered."""
        self._path = path

    def __enter__(self) -> h5py.File:
        self._uninterrupted = ExitStack()
        self._uninterrupted.enter_context(deferred())
        try:
            return self._open()
        except BaseException:
            self._uninterrupted.close()
            raise

    def _open(self) -> h5py.File:
        self._disk = _Disk(self._path)
        self._file = h5py.File(self._disk, "w")
        return self._file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._uninterrupted:
            try:
                self._file.close()
            except (OSError, RuntimeError):
                if self._disk.error is None:
                    raise
            finally:
                self._disk.close()
            if isinstance(error, Exception) or error is None:
                self.check()

    def check(self) -> None:
        """Raise the first write error since the start, if there was one."""
        if self._disk.error is not None:
            raise self._disk.error


class _Disk(io.RawIOBase):
    """A file whose write errors are kept for later."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._raw = io.FileIO(path, "w+")
        self.error: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data).cast("B")
        try:
            while self.error is None and len(rest):
                rest = rest[self._raw.write(rest) :]
        except OSError as error:
            self.error = error
        return memoryview(data).nbytes

    def readinto(self, buffer: WriteableBuffer) -> int:
        whole = memoryview(buffer).cast("B")
        filled = self._raw.readinto(whole)
        whole[filled:] = bytes(len(whole) - filled)  # what an error kept from being written
        return len(whole)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
