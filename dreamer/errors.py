"""Errors that a user can cause and mend, said in one line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LONGEST = 300  # characters of a message
KEPT_END = 100  # of them from its end, where hints are
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 30


class UserError(ValueError):
    """A wrong setting, path, task or file. Commands print its message and exit with its code."""

    exit_code = 2


class DatasetError(UserError):
    """A file that is not a valid dataset: damaged, incomplete or of another format."""

    exit_code = 4


class NonFiniteError(RuntimeError):
    """A metric became NaN or infinite. Training stops with exit code 3."""

    exit_code = 3


def one_line(message: object, longest: int = LONGEST) -> str:
    """A message as one line of at most so many characters; of a longer one, begin and end."""
    given = str(message)
    if len(given) > 100 * longest:  # its middle is not even looked at
        given = f"{given[: 10 * longest]} {given[-10 * longest :]}"
    text = " ".join(given.split())
    text = "".join(x if x.isprintable() else f"\\x{ord(x):02x}" for x in text)
    if len(text) <= longest:
        return text
    return f"{text[: longest - KEPT_END - 5]} ... {text[-KEPT_END:]}"


def shown(value: object) -> str:
    """A value of any size as a few words, for a message."""
    return _SHORT.repr(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error about an unknown name: the nearest known one, or nothing."""
    close = difflib.get_close_matches(name[:LONGEST], list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
