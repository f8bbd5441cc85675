"""How many threads a run takes, and that a continued run takes as many at the same updates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import train
from dreamer.training import threads
from dreamer.training.threads import PATIENCE, RECENT, ThreadChoice
from tests.support.commands import offline

CPU = torch.device("cpu")


class Machine:
    """Four cores and a clock: an update takes `seconds[number of threads]`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = {1: 2.0, 4: 1.0}
        self.threads, self.now, self.said = 4, 0.0, list[str]()
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(self, "threads", count))

    def work(self) -> None:
        self.now += self.seconds[self.threads]

    def run(self, folder: Path, done: int, until: int, fixed: int = 0) -> list[int]:
        """The number of threads of each update from done + 1 to `until`, in a start of its own."""
        self.threads = 4
        choice, took = ThreadChoice(folder, fixed, CPU), []
        choice.begin(done, self.said.append)
        for number in range(done + 1, until + 1):
            with choice.update(number):
                self.work()
            took.append(self.threads)
        return took


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def test_the_faster_number_is_taken_and_told(machine, tmp_path):
    assert machine.run(tmp_path, 0, 9) == [1, 4] * 3 + [4, 4, 4]
    assert machine.said == ["threads: 4; an update took 2.00 s with 1, 1.00 s with 4"]


def test_a_busy_machine_gets_one_thread(machine, tmp_path):
    machine.seconds[4] = 20.0
    assert machine.run(tmp_path, 0, 9) == [1, 4] * 3 + [1, 1, 1]


def test_a_little_faster_is_not_worth_all_cores(machine, tmp_path):
    machine.seconds[4] = 1.9
    assert machine.run(tmp_path, 0, 8)[6:] == [1, 1]


def test_a_continued_run_takes_as_many_at_the_same_updates(machine, tmp_path):
    """Also where the machine has become another one, and where it was killed while measuring."""
    whole = machine.run(tmp_path, 0, 12)
    machine.seconds = {1: 1.0, 4: 9.0}
    for done in (1, 5, 6, 7, 11):
        assert machine.run(tmp_path, done, 12) == whole[done:], done
    machine.seconds = {1: 2.0, 4: 1.0}
    machine.run(tmp_path, 0, 3)  # a new run measures anew, and this one is killed
    assert machine.run(tmp_path, 2, 12) == [1, *[1, 4] * 3, 4, 4, 4]


def test_a_run_that_becomes_slow_measures_again(machine, tmp_path):
    before = machine.run(tmp_path, 0, PATIENCE + 10)
    machine.seconds = {1: 2.0, 4: 9.0}
    after = machine.run(tmp_path, len(before), len(before) + 2 * RECENT)
    assert set(after) == {4}, "what is normal for this start is not known yet"
    machine.seconds = {1: 2.0, 4: 1.0}
    choice = ThreadChoice(tmp_path / "again", 0, CPU)
    (tmp_path / "again").mkdir()
    choice.begin(0, machine.said.append)
    took = []
    for number in range(1, PATIENCE + 60):
        machine.seconds[4] = 1.0 if number < PATIENCE else 9.0
        with choice.update(number):
            machine.work()
        took.append(machine.threads)
    assert took[6:PATIENCE] == [4] * (PATIENCE - 6)
    assert took[-1] == 1
    assert machine.said[-1] == "threads: 1; an update took 2.00 s with 1, 9.00 s with 4"


def test_a_fixed_number_and_a_gpu_measure_nothing(machine, tmp_path):
    machine.seconds[3] = 1.0
    assert machine.run(tmp_path, 0, 3, fixed=3) == [3, 3, 3]
    choice = ThreadChoice(tmp_path, 0, torch.device("cuda"))
    choice.begin(0, machine.said.append)
    with choice.update(1):
        pass
    assert list(tmp_path.iterdir()) == []
    assert machine.said == []


def test_a_training_measures_by_default(toy_dataset, tmp_path, capfd, monkeypatch):
    """With the number of threads only noted: two are slow where others hold the cores."""
    now = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    words = ("--threads", "0", "--run.updates", "8", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, tmp_path / "run", *words)) == 0
    rows = [json.loads(x) for x in (tmp_path / "run" / "threads.jsonl").read_text().splitlines()]
    assert [row["threads"] for row in rows[:6]] == [1, 2] * 3
    assert [row["chosen"] for row in rows] == [False] * 6 + [True]
    assert now == [2, 1, *[row["threads"] for row in rows]]
    out = capfd.readouterr()
    assert "an update took" in out.out + out.err
