"""The boundary of a command: what a user or a machine can cause is one line and an exit code.

Everything else is our mistake and stays a traceback. Only the standard library is imported here.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dreamer.errors import NonFiniteError, UserError, one_line
from dreamer.signals import stop_code

NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "failed to allocate")
NO_THREADS = ("can't start new thread", "unable to start thread", "thread creation failed")


def guarded(command: Callable[[], int], stopped: str = "stopped") -> int:
    """What `command` returns; or the code of its error or signal, said in one line on stderr.

    Raises what neither a user nor a machine can have caused.
    """
    write_in_any_locale()
    try:
        return command()
    except KeyboardInterrupt as error:
        tell(stopped)
        return stop_code(error)
    except (UserError, NonFiniteError) as error:
        return complain(error)
    except Exception as error:
        reason = cause(error)
        if reason is None:
            raise
        sys.stderr.write(one_line(f"error: {reason}") + "\n")  # of whichever process
        return UserError.exit_code


def complain(error: UserError | NonFiniteError) -> int:
    """Say an error in one line; returns its exit code."""
    tell(one_line(f"error: {error}"))
    return error.exit_code


def bounded(main: Callable[..., int]) -> Callable[..., int]:
    """`main` of a command, decorated: the same, with its errors said as `guarded` does."""

    @functools.wraps(main)
    def run(*words: Any) -> int:
        return guarded(functools.partial(main, *words))

    return run


def cause(error: BaseException) -> str | None:
    """What the machine or a name lacks, in words; None where the program itself is wrong."""
    words = str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'writing'}: {error.strerror or words}"
    if isinstance(error, MemoryError) or any(sign in words.lower() for sign in NO_MEMORY):
        return "there is not enough memory for this; smaller batches, images or networks need less"
    if isinstance(error, RuntimeError) and any(sign in words.lower() for sign in NO_THREADS):
        return "the machine starts no further thread; ask for fewer threads or processes"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} cannot be written as {error.encoding}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        installed = importlib.util.find_spec(package) is not None  # but lacks a module: our mistake
        return None if installed else f"no package '{package}' here; make setup installs it"
    return None


def write_in_any_locale() -> None:
    """Let what the locale's encoding lacks be written as escapes, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def tell(text: str) -> None:
    """One line on stderr; of several processes that torchrun started, the first one says it."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{text}\n")


def named_path(text: str) -> Path:
    """A path given on the command line, for `type` of an argument; empty text names none."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("an empty name is no folder and no file")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint about wrong words is one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        write_in_any_locale()
        self.exit(UserError.exit_code, f"{one_line(f'{self.prog}: error: {message}')}\n")
