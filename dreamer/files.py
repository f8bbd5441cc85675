"""Files that are either whole or absent, whatever interrupts the program; text, whatever is in it.

Text is UTF-8 here, whatever the locale says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamer.errors import UserError

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
