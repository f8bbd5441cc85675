"""New files and folders: made by one process at a time, never over others, nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer.errors import UserError
from dreamer.locks import abandoned, locked

PART = re.compile(r"(.+)\.\d+\.part")  # a file of dreamer/files.py that is not finished
UNFINISHED = ".unfinished"  # the lock in a folder of results until they are complete


def refuse_existing(path: str | Path) -> None:
    """Nothing is overwritten."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already; choose another name or remove it")


@contextmanager
def new_output(path: str | Path) -> Iterator[None]:
    """A block that makes the file or folder `path`; one that exists, or is in work, is refused.

    What a killed program left of it goes first.
    """
    path = Path(path)
    refuse_existing(path)
    with locked(_beside(path), str(path)):
        refuse_existing(path)
        remove_parts(path.parent, path.name)
        _remove_locks(path.parent)
        yield


@contextmanager
def new_folder(
    path: str | Path, own: Sequence[str], complete: str, kept: str = ""
) -> Iterator[Path]:
    """A new folder of results to fill: `path`, or path-2, path-3, ... where it exists.

    A second process that wants `path` meanwhile is refused. `own` are patterns of the files that
    the block writes, the file `complete` last. Where it fails before that they go, and the folder
    unless something else is in it; but if there is a file `kept`, the next start that makes a
    folder beside this one removes them, as it does after a kill.
    """
    path = Path(path)
    with locked(_beside(path), str(path)):
        for other in path.parent.iterdir():
            with abandoned(other / UNFINISHED) as unfinished:
                if unfinished:
                    _remove(other, own, complete)
        _remove_locks(path.parent)
        folder = _make_new(path)
        with locked(folder / UNFINISHED, str(folder), stays=True):
            try:
                yield folder
            except BaseException:
                if (folder / complete).is_file() or not (folder / kept).is_file():
                    _remove(folder, own, complete)
                raise


def remove_parts(folder: Path, name: str | None = None) -> None:
    """Remove unfinished files and folders, those of `name` or all; the caller has the lock."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        part = PART.fullmatch(path.name)
        if part is None or name not in (None, part[1]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """The lock of something that does not exist yet."""
    whole = Path(os.path.abspath(path))
    return whole.with_name(f".{whole.name}.lock")


def _remove_locks(folder: Path) -> None:
    """Remove the locks of killed processes."""
    for file in folder.glob(".*.lock"):
        with abandoned(file) as unused:
            if unused:
                file.unlink()


def _make_new(path: Path) -> Path:
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
        else:
            return candidate


def _remove(folder: Path, own: Sequence[str], complete: str) -> None:
    """Remove what was written to a folder; nothing but its lock if it became complete."""
    done = (folder / complete).is_file()
    for pattern in (UNFINISHED,) if done else (*own, UNFINISHED):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    if not done:
        with suppress(OSError):  # something of the user's is in it
            for inner in folder.iterdir():
                inner.rmdir()
            folder.rmdir()
