"""Set-up of worker processes: one thread each, and an end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from dreamer.signals import STOP_SIGNALS

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def end_with_parent() -> None:
    """From now on this process ends when its parent ends, however that happens."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started in this block run their linear algebra on one thread."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait for processes started in this block.

    Such a process calls `ignore_stop_signals` first of all, and none of them ever stops it.
    """
    _start_tracker()  # else it starts with the first process and unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals() -> None:
    """Let the parent alone handle Ctrl-C, SIGTERM and SIGHUP.

    Programs that this process starts inherit that Ctrl-C and SIGHUP are ignored, which reach them
    too. They can be ended by SIGTERM, for that is how an environment may end its own simulator.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _do_nothing)  # unlike SIG_IGN, a function is not inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _start_tracker() -> None:
    """Start the process that removes semaphores behind a killed program, without a word of it."""
    quiet = "ignore:resource_tracker"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


def _do_nothing(*_: object) -> None:
    pass


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
