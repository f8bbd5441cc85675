"""Errors that a user can cause and mend, said in one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

from dreamer.signals import stop_code


class UserError(ValueError):
    """A wrong setting, path, task or file. Commands print its message and exit with its code."""

    exit_code = 2


class DatasetError(UserError):
    """A file that is not a valid dataset: damaged, incomplete or of another format."""

    exit_code = 4


class NonFiniteError(RuntimeError):
    """A metric became NaN or infinite. Training stops with exit code 3."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error about an unknown name: the nearest known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def tell_error(error: UserError | OSError | KeyboardInterrupt, stopped: str = "stopped") -> int:
    """Say an error in one line on stderr, or `stopped` for a signal; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        line, code = stopped, stop_code(error)
    elif isinstance(error, UserError):
        line, code = f"error: {error}", error.exit_code
    else:
        line = f"error: {error.filename or 'writing'}: {error.strerror or error}"
        code = UserError.exit_code
    sys.stderr.write(f"{line}\n")
    return code
