"""How many CPU threads an update takes: measured, kept in the run folder, and kept when it goes on.

Sums are added in another order by another number of threads, so the number decides the last bits of
a result. Each change is written down before it is made; a run that is continued makes it again at
the same update.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dreamer import distributed

TRIALS = 3  # updates with each number
WORTH = 0.9  # more threads are taken where an update is so much shorter
RECENT = 20  # updates that are looked at
SLOWER = 1.5  # times the measured duration: measure again
PATIENCE = 200  # updates between two measurements


class ThreadChoice:
    """The number of threads of each update of a run: a fixed one, or the faster of 1 and all."""

    def __init__(self, folder: Path, fixed: int, device: torch.device) -> None:
        """Take `fixed` threads; 0 measures, where there is something to choose.

        On a GPU, and where several processes train together, torch's own number stays.
        """
        self._file = folder / "threads.jsonl"
        self._most = torch.get_num_threads()
        choosing = device.type == "cpu" and distributed.world_size() == 1 and self._most > 1
        self._measures = not fixed and choosing
        self._plan: dict[int, int] = {}  # update -> number from then on, of an earlier start
        self._trials: deque[int] = deque()  # numbers of the next updates
        self._times: dict[int, list[float]] = {}  # of the measurement that is running
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._expected, self._since = 0.0, 0
        self._say: Callable[[str], None] = distributed.say
        if fixed:
            torch.set_num_threads(fixed)

    def begin(self, done: int, say: Callable[[str], None]) -> None:
        """Go on after `done` updates, with the number that the last of them had."""
        if not self._measures:
            return
        self._say = say
        if not done:
            self._file.unlink(missing_ok=True)  # of a start that saved nothing
        rows = map(json.loads, self._file.read_text().splitlines()) if self._file.exists() else ()
        changes = {row["update"]: row for row in rows}
        past = [row["threads"] for update, row in changes.items() if update <= done]
        self._plan = {update: row["threads"] for update, row in changes.items() if update > done}
        torch.set_num_threads(past[-1] if past else 1)
        if not changes or not changes[max(changes)]["chosen"]:  # a measurement was not finished
            self._measure()

    @contextmanager
    def update(self, number: int) -> Iterator[None]:
        """Around update `number`, counted from 1."""
        if not self._measures:
            yield
            return
        if number in self._plan:
            torch.set_num_threads(self._plan.pop(number))
        elif self._trials:
            self._change(number, self._trials.popleft())
        begin = time.perf_counter()
        yield
        if not self._plan:
            self._note(number, time.perf_counter() - begin)

    def _measure(self) -> None:
        """Let the next updates be the trial."""
        self._trials.extend([1, self._most] * TRIALS)
        self._times = {1: [], self._most: []}

    def _note(self, number: int, seconds: float) -> None:
        if self._times:
            self._times.setdefault(torch.get_num_threads(), []).append(seconds)
            if not self._trials:
                self._decide(number)
            return
        self._recent.append(seconds)
        now = statistics.median(self._recent)
        waited = number - self._since >= PATIENCE and len(self._recent) == RECENT
        if not self._expected:  # a continued run knows no duration yet
            self._expected = now if waited else 0.0
        elif waited and now > SLOWER * self._expected:
            self._measure()

    def _decide(self, number: int) -> None:
        """Take the faster number from the next update on."""
        alone, together = (min(self._times[count]) for count in (1, self._most))
        chosen = self._most if together < WORTH * alone else 1
        self._say(
            f"threads: {chosen}; an update took {alone:.2f} s with 1, {together:.2f} s with "
            f"{self._most}"
        )
        self._times = {}
        self._recent.clear()
        self._expected, self._since = min(alone, together), number
        self._trials.append(chosen)  # noted and made when the next update begins

    def _change(self, number: int, threads: int) -> None:
        """Write the change down, then make it."""
        with self._file.open("a", encoding="utf-8") as file:
            row = {"update": number, "threads": threads, "chosen": not self._times}
            file.write(json.dumps(row) + "\n")
        torch.set_num_threads(threads)
