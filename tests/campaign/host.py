"""Commands in processes of their own, forked from one that has everything imported already."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import eval as evaluation
import train
from dreamer.__main__ import main as dreamer
from fosp_ext import export
from fosp_ext.dataset import __main__ as dataset
from fosp_ext.envs import check
from fosp_ext.report import __main__ as report

LONGEST_SECONDS, LARGEST_MIB = 60.0, 4096.0  # of processor time: others may use the machine too
LONGEST_WAIT = 600.0  # until a command counts as one that hangs
ALREADY_IMPORTED = (  # what the commands import late
    "fosp_ext.run.modes", "fosp_ext.run.evaluate", "fosp_ext.report.compose",
    "fosp_ext.report.material", "dreamer.training.train", "matplotlib.pyplot",
    "tests.campaign.world",
)  # fmt: skip
LONGEST_LINE = 300
KNOWN_CODES = {0, 1, 2, 3, 4}
for _name in ALREADY_IMPORTED:
    importlib.import_module(_name)
COMMANDS: Mapping[str, Callable[[list[str]], int]] = {
    "train": train.main,
    "eval": evaluation.main,
    "export": export.main,
    "report": report.main,
    "dataset": dataset.main,
    "check": check.main,
    "dreamer": dreamer,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int  # exit code; negative: the signal that ended it
    wall: float  # seconds from its start to its end
    seconds: float  # of processor time
    mib: float  # largest resident memory
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Did it say that something is wrong with what it was given?"""
        return self.code in (2, 4)

    def faults(self) -> list[str]:
        """What no command may do; empty where all is well."""
        lines = self.err.splitlines()
        told = [line for line in lines if line.startswith("error: ") or ": error: " in line]
        found = []
        if "Traceback" in self.err + self.out:
            found.append("traceback")
        if self.code < 0:
            found.append(f"ended by {signal.Signals(-self.code).name}")
        elif self.code not in KNOWN_CODES and self.code not in (130, 143):
            found.append(f"exit code {self.code}")
        if self.refused and len(told) != 1:
            found.append(f"{len(told)} lines of error")
        if any(len(line) > LONGEST_LINE for line in told):
            found.append("a line of error that is too long")
        if self.seconds > LONGEST_SECONDS:
            found.append(f"{self.seconds:.0f} s")
        if self.mib > LARGEST_MIB:
            found.append(f"{self.mib:.0f} MiB")
        return found


class Child:
    """A command that runs in a forked process; it can be waited for, or killed before its end."""

    def __init__(
        self,
        folder: Path,
        command: str,
        words: list[str],
        limits: Mapping[int, int] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Start it in the working directory `folder`, with `limits` of the module `resource`."""
        self._logs = folder / "out.txt", folder / "err.txt"
        self._begin = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _be_a_command(folder, self._logs, partial(COMMANDS[command], words), limits, prepare)

    def wait(self, longest: float = LONGEST_WAIT) -> Outcome:
        """Wait for its end; after `longest` seconds it is killed."""
        status, usage = 0, None
        while usage is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                usage = used
            elif time.monotonic() - self._begin > longest:
                self.signal(signal.SIGKILL)
                _, status, usage = os.wait4(self.pid, 0)
            else:
                time.sleep(0.005)
        out, err = (path.read_text(errors="replace") for path in self._logs)
        code = os.waitstatus_to_exitcode(status)
        return Outcome(
            code,
            time.monotonic() - self._begin,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 1024,
            out,
            err,
        )

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def run(folder: Path, command: str, *words: object, **limits: object) -> Outcome:
    """Run a command to its end."""
    return Child(folder, command, [str(word) for word in words], **limits).wait()  # type: ignore[arg-type]


def _be_a_command(
    folder: Path,
    logs: tuple[Path, Path],
    command: Callable[[], int],
    limits: Mapping[int, int] | None,
    prepare: Callable[[], None],
) -> None:
    """The life of a child: it never returns."""
    code = 70
    try:
        os.chdir(folder)
        for number, path in enumerate(logs, 1):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
        torch.set_num_threads(1)
        prepare()
        for kind, most in (limits or {}).items():
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
        code = command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
