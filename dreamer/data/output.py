"""HDF5 output that turns a full disk into one plain `OSError`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import h5py

from dreamer.files import Disk


class HDF5Output:
    """A new HDF5 file to write to, as a context manager.

    HDF5 does not survive an error of the disk: it raises one kind of exception or another, again
    when its objects are freed, and may crash. So its bytes go through a stand-in that remembers
    the first error and takes everything after it as written. `check`, and the end of the block,
    raise that error as the `OSError` it was.
    """

    def __init__(self, path: str | Path) -> None:
        """Nothing happens before the block is entered."""
        self._path = path

    def __enter__(self) -> h5py.File:
        self._disk = Disk(self._path)
        self._file = h5py.File(self._disk, "w")
        return self._file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        self._disk.check()
