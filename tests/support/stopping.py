"""Environments that stop the program, or fail at its end.

Imported by workers: keep its imports light.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from dreamer.envs.counting import CountingEnv

# environment variable, NUMBER:FILE: the signal, and a file that shows that it was sent
SIGNAL = "TEST_SIGNAL"


class Endless(CountingEnv):
    """An episode without an end. The first third step sends a signal to the parent process."""

    def __init__(self) -> None:
        super().__init__(length=10**9)

    def step(self, action):
        """Slow, so that what is played while the program ends takes little memory."""
        time.sleep(0.01)
        if self.count == 2:
            number, _, file = os.environ[SIGNAL].partition(":")
            with contextlib.suppress(FileExistsError), open(file, "x"):
                os.kill(os.getppid(), int(number))
        return super().step(action)


class Stuck(Endless):
    """Its third step does not end."""

    def step(self, action):
        """Wait for ever after the signal."""
        result = super().step(action)
        while self.count == 3:
            time.sleep(0.05)
        return result


class FailsToClose(CountingEnv):
    """Raises when it is closed."""

    def close(self) -> None:
        """Fail."""
        raise RuntimeError("the robot\nis gone")


def signal_until_end(process: subprocess.Popen) -> None:
    """Ctrl-C again and again: those right after the first one are taken for its echo."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
