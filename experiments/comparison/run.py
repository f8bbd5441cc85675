"""Run the jobs of a comparison: in parallel, with logs, resumable."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from dreamer.signals import STOP_SIGNALS
from experiments.comparison.jobs import ROOT, Job

CODES = "jobs.jsonl"  # commands, durations and exit codes


@dataclass(frozen=True)
class Running:
    """A job whose command is running."""

    job: Job
    place: str  # for people: its number and name
    process: subprocess.Popen
    log: BinaryIO
    begin: float


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    budget_minutes: float,
    parallel: int = 1,
    keep_open: tuple[int, ...] = (),
) -> int:
    """Run unfinished jobs, `parallel` at a time; returns the first exit code that is not 0.

    `keep_open` are file descriptors that the commands inherit. See `Runner`.
    """
    return Runner(jobs, out, budget_minutes, parallel, keep_open).run()


class Runner:
    """Runs each job, in order, as soon as the jobs it needs are done and a process is free.

    One at a time, their output is shown; otherwise there is a line when one begins and one when it
    ends. All output goes to the logs. Ctrl-C, SIGTERM and SIGHUP are passed on to everything that
    runs, once, so that it can end in its own way. Where one job fails, the others are stopped.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        out: Path,
        budget_minutes: float,
        parallel: int,
        keep_open: tuple[int, ...],
    ) -> None:
        self.out, self.budget_minutes = out, budget_minutes
        self.parallel, self.keep_open = parallel, keep_open
        self.waiting = dict(enumerate(jobs, 1))
        self.total = len(jobs)
        self.unfinished = {job.name for job in jobs}
        self.running: dict[int, Running] = {}  # by the descriptor of its output
        self.outputs = selectors.DefaultSelector()
        self.received = 0  # the signal that asked to stop
        self.code = 0  # of the job that failed first

    def run(self) -> int:
        """Run all jobs; returns the exit code."""
        with self._passed_on(), self.outputs:
            try:
                self._begin_what_can()
                while self.running:
                    self._listen()
                    self._begin_what_can()
            finally:  # after an unexpected error no process is left behind
                self._send(signal.SIGTERM)
                while self.running:
                    self._listen()
        if self.received:
            tell("stopped; the same command continues")
            return 128 + self.received
        return self.code

    def _begin_what_can(self) -> None:
        while not (self.received or self.code) and len(self.running) < self.parallel:
            number = self._ready()
            if number is None:
                return
            self._begin(number)

    def _listen(self) -> None:
        """Wait until a command writes or ends."""
        for key, _ in self.outputs.select():
            self._read(self.running[key.fd])

    def _ready(self) -> int | None:
        """The number of the first job whose needs are done."""
        for number, job in self.waiting.items():
            if not self.unfinished.intersection(job.needs):
                return number
        return None

    def _begin(self, number: int) -> None:
        job = self.waiting.pop(number)
        place = f"[{number}/{self.total}] {job.name}"
        if job.finished():
            self.unfinished.remove(job.name)
            print(f"{place}: done before", flush=True)
            return
        path = self.out / "logs" / f"{job.name}.log"
        begins = f"\n{place}\n$ {job.command}" if self.parallel == 1 else f"{place}: begins"
        print(begins, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab", buffering=0)
        log.write(f"$ {job.command}\n".encode())
        process = launch(job, self.keep_open)
        self.running[process.stdout.fileno()] = Running(job, place, process, log, time.monotonic())
        self.outputs.register(process.stdout, selectors.EVENT_READ)
        if self.received:  # meanwhile
            process.send_signal(self.received)

    def _read(self, one: Running) -> None:
        """Read the output of a command; the end of the output is its end."""
        text = os.read(one.process.stdout.fileno(), 2**16)
        one.log.write(text)
        if self.parallel == 1:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        if not text:
            self._end(one)

    def _end(self, one: Running) -> None:
        self.outputs.unregister(one.process.stdout)
        del self.running[one.process.stdout.fileno()]
        one.process.stdout.close()
        one.log.close()
        code = one.process.wait()
        code = 128 - code if code < 0 else code
        seconds = time.monotonic() - one.begin
        note(self.out / CODES, one.job, seconds, code)
        if code == 0 or (code == 1 and one.job.diagnoses and one.job.finished()):
            self.unfinished.remove(one.job.name)
            spent = minutes_spent(past_jobs(self.out))
            budget = f"{spent:.1f} of {self.budget_minutes:g} minutes"
            print(f"{one.place}: {seconds:.0f} s; {budget}", flush=True)
        elif self.received or self.code:
            print(f"{one.place}: stopped after {seconds:.0f} s", flush=True)
        else:
            self._fail(one, code)

    def _fail(self, one: Running, code: int) -> None:
        """Remember the exit code, and ask the others to stop; they keep what they have."""
        self.code = code
        tell(f"error: {one.job.name} ended with exit code {code}; its output: {one.log.name}")
        if self.running:
            names = ", ".join(other.job.name for other in self.running.values())
            tell(f"stopping the other jobs: {names}")
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for one in list(self.running.values()):
            one.process.send_signal(number)

    @contextmanager
    def _passed_on(self) -> Iterator[None]:
        """Signals that ask to stop go to everything that runs."""

        def handle(number: int, _: FrameType | None) -> None:
            self.received = self.received or number
            self._send(number)

        before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def launch(job: Job, keep_open: tuple[int, ...]) -> subprocess.Popen:
    """Start its command in the repository's folder; its output comes through one pipe."""
    return subprocess.Popen(
        [sys.executable, *job.words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=keep_open,
        start_new_session=True,  # the terminal's Ctrl-C comes from `Runner` only, not twice
    )


def tell(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def note(path: Path, job: Job, seconds: float, code: int) -> None:
    """Append how a job ended."""
    row = {
        "job": job.name,
        "command": job.command,
        "seconds": round(seconds, 1),
        "exit_code": code,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def past_jobs(out: Path) -> list[dict]:
    """The jobs run so far in this folder, stopped and failed ones included."""
    path = out / CODES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def minutes_spent(rows: Sequence[dict]) -> float:
    """Minutes in which at least one job ran."""
    seconds, until = 0.0, 0.0
    ends = [datetime.strptime(row["ended"], "%Y-%m-%dT%H:%M:%S%z").timestamp() for row in rows]
    spans = [(end - row["seconds"], end) for row, end in zip(rows, ends, strict=True)]
    for begin, end in sorted(spans):
        seconds += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return seconds / 60
