"""Locks: one process at a time writes in a folder, and its death, however it comes, frees it.

The operating system holds the lock (flock). The file says who has it, for the message to others;
it is removed with the lock, and one that a killed process left behind holds nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dreamer.errors import UserError

LOCK = ".lock"  # in a folder that is written to
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # of some file systems
LONGEST_NOTE = 1000  # bytes


@contextmanager
def locked(file: Path, place: str, stays: bool = False) -> Iterator[None]:
    """Hold the lock `file` of a `place` (in words); a place in use is a `UserError`.

    Folders that are missing are made, and removed again where they are empty behind the block. The
    file goes too, but for one that `stays` where the block fails. Where the file system has no
    locks, a line says so and the block runs without.
    """
    made: list[Path] = []
    try:
        descriptor = _take(file, place, made)
    except OSError as error:
        _remove_empty(made)
        raise UserError(f"cannot write to {place}: {error.strerror}") from error
    removed = True
    try:
        yield
    except BaseException:
        removed = not stays
        raise
    finally:
        if removed:
            with suppress(OSError):
                file.unlink()  # while it is ours: whoever opened it meanwhile sees that it is gone
        os.close(descriptor)
        _remove_empty(made)


@contextmanager
def abandoned(file: Path) -> Iterator[bool]:
    """Is this the lock file of a process that is gone? If so, it is held inside the block."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        yield _is_ownerless(file, descriptor)
    finally:
        os.close(descriptor)


def _is_ownerless(file: Path, descriptor: int) -> bool:
    """Take the lock of a process that had written who it is, if it does not have it any more."""
    if not {"host", "pid", "since"} <= _read(descriptor).keys():
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return _is_still(file, descriptor)


def _take(file: Path, place: str, made: list[Path]) -> int:
    """The descriptor of the lock file, which is ours now; folders that were made for it."""
    while True:
        made += _make(file.parent)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # whoever made the folder removed it, empty
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            raise UserError(f"{place} is in use by {_words(holder)}; wait until it ends") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            _say(
                f"{place} is on a file system without locks ({error.strerror}): start no second "
                "process there, it would not be refused"
            )
        if _is_still(file, descriptor):
            break
        os.close(descriptor)
    before = _read(descriptor)
    if before and before.get("host") != socket.gethostname():
        _say(
            f"{place} was left by {_words(before)}; if that still runs, this file system has no "
            "locks between machines: stop one of the two"
        )
    _write(descriptor)
    return descriptor


def _make(folder: Path) -> list[Path]:
    """Make a folder; those that were missing, from the deepest one up."""
    missing = []
    for each in (folder, *folder.parents):
        if each.exists():
            break
        missing.append(each)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_still(file: Path, descriptor: int) -> bool:
    """Is the open file the one of this name, and not one that was removed meanwhile?"""
    try:
        now, ours = os.stat(file), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)


def _write(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    with suppress(OSError):  # of a full disk: the lock is held without it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(note)}\n".encode(), 0)


def _read(descriptor: int) -> dict[str, Any]:
    """What the holder wrote; nothing where it has not come to that, or it is damaged."""
    try:
        note = json.loads(os.pread(descriptor, LONGEST_NOTE, 0))
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _words(note: dict[str, Any]) -> str:
    if not note:
        return "another process"
    pid, host, since = (str(note.get(key))[:60] for key in ("pid", "host", "since"))
    return f"process {pid} on {host} since {since}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
