"""Ctrl-C, SIGTERM and SIGHUP: one exception, raised at once or at the next safe point.

A command runs inside `answered`. The first signal raises `StopSignal`: at once, or inside
`deferred` where `check` is called next. A Ctrl-C after that ends the process on the spot.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import TypeVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_SECONDS = 0.1  # a Ctrl-C so soon is no second one: timeout(1) sends each signal twice
AT_ONCE = b"stopped at once; what was saved before is whole\n"
Piece = TypeVar("Piece")


class StopSignal(KeyboardInterrupt):
    """A signal asked the program to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass
class _State:
    answering: bool = False
    deferrals: int = 0
    requested: int = 0  # the first signal; 0: none came
    since: float = 0.0  # when
    terminals: tuple[int, ...] = ()  # descriptors of the output that is shown on one


_state = _State()


def requested() -> int:
    """The number of the signal that asked to stop, or 0."""
    return _state.requested


def check() -> None:
    """Raise `StopSignal` if one has come. Cheap: long work calls it at each step."""
    if _state.requested:
        raise StopSignal(_state.requested)


def checked(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Pass these on, with a `check` before each."""
    for piece in pieces:
        check()
        yield piece


def stop_code(error: KeyboardInterrupt) -> int:
    """The exit code of a program that was stopped so: 128 + the signal's number."""
    return getattr(error, "exit_code", 128 + signal.SIGINT)


@contextmanager
def answered(until_exit: bool = False) -> Iterator[None]:
    """A block in which the three signals are answered; inside another one it changes nothing.

    `until_exit`: the process ends right behind the block, so after a signal further ones are
    ignored. A SIGHUP that was ignored before, by nohup(1), stays ignored.
    """
    if _state.answering or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    _state.answering = True
    _state.terminals = tuple(output for output in (1, 2) if os.isatty(output))
    for number in before:
        signal.signal(number, _note)
    try:
        yield
    finally:
        _state.deferrals += 1  # nothing is raised in these lines
        for number, handler in before.items():
            ignored = until_exit and _state.requested
            signal.signal(number, signal.SIG_IGN if ignored else handler)
        _state.answering, _state.requested = False, 0
        _state.deferrals -= 1


def answers_signals(
    main: Callable[[list[str] | None], int],
) -> Callable[..., int]:
    """A command's `main` inside `answered`; called without words, it is the whole program."""

    @wraps(main)
    def command(argv: list[str] | None = None) -> int:
        with answered(until_exit=argv is None):
            return main(argv)

    return command


@contextmanager
def deferred(then_raise: bool = True) -> Iterator[None]:
    """A block that no signal interrupts; one that came is raised behind it, if `then_raise`."""
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if then_raise and not _state.deferrals:
        check()


def _note(number: int, _: FrameType | None) -> None:
    """The handler of all three."""
    now = time.monotonic()
    if number == signal.SIGHUP:
        _let_go_of_terminals()
    if not _state.requested:
        _state.requested, _state.since = number, now
        if not _state.deferrals:
            raise StopSignal(number)
    elif number == signal.SIGINT and now - _state.since > ECHO_SECONDS:
        if os.environ.get("RANK", "0") == "0":
            os.write(2, AT_ONCE)
        os._exit(128 + signal.SIGINT)


def _let_go_of_terminals() -> None:
    """Where a terminal is gone, as a lost ssh session leaves it, what is said goes nowhere."""
    for output in _state.terminals:
        if not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
