"""Signals: raised at once, or at the next safe point; the second Ctrl-C; who ignores what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from dreamer import signals
from dreamer.boundary import guarded
from dreamer.data.hdf5 import write_dataset
from dreamer.signals import STOP_SIGNALS, StopSignal, answered, check, checked, deferred
from tests.support.commands import ROOT
from tests.support.stopping import signal_until_end
from tests.support.toy_data import TOY_INFO, toy_episode


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_raised_at_once_and_has_its_exit_code(number, capsys):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with answered():
        assert guarded(lambda: send(number), "stopped; go on") == 128 + number
    assert capsys.readouterr().err == "stopped; go on\n"
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before
    check()  # it is forgotten


def test_one_that_is_deferred_comes_at_the_next_check_or_behind_the_block():
    seen = []

    def work() -> None:
        with deferred(), deferred():
            for piece in checked(range(5)):
                seen.append(piece)
                if piece == 2:
                    send(signal.SIGTERM)

    with pytest.raises(StopSignal), answered():
        work()
    assert seen == [0, 1, 2]

    def wait() -> None:
        with deferred():
            send(signal.SIGHUP)
            seen.append("after")

    with pytest.raises(StopSignal, match="SIGHUP"), answered():
        wait()
    assert seen[-1] == "after"
    with answered(), deferred(then_raise=False):
        send(signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM


def test_a_hangup_that_was_ignored_stays_so(monkeypatch):
    """As nohup(1) starts a program."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with answered():
            send(signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_threads_leave_signals_alone():
    def work() -> None:
        with answered():
            assert signal.getsignal(signal.SIGTERM) == before

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_hdf5_is_not_interrupted(tmp_path):
    """The signal comes while an episode is written: then there is no file, nor a part of it."""

    def episodes():
        yield toy_episode()
        send(signal.SIGTERM)
        yield toy_episode(seed=1)

    with pytest.raises(StopSignal), answered():
        write_dataset(tmp_path / "a.h5", episodes(), TOY_INFO)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, time
from dreamer.boundary import guarded
from dreamer.signals import answers_signals, deferred

@answers_signals
def main(argv):
    return guarded(work)

def work():
    with deferred():
        print("ready", flush=True)
        sys.stdin.readline()
        print("again", flush=True)
        sys.stdin.readline()
    time.sleep(600)

code = main()
print("end", flush=True)
sys.stdin.readline()
sys.exit(code)
"""


@pytest.fixture
def program():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def step_on(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_second_ctrl_c_ends_at_once_in_one_line(program, monkeypatch):
    program.send_signal(signal.SIGINT)
    step_on(program)
    assert program.stdout.readline() == "again\n"
    signal_until_end(program)
    assert program.returncode == 130
    assert program.stderr.read() == "stopped at once; what was saved before is whole\n"


def test_a_second_sigterm_changes_nothing_and_the_end_is_not_interrupted(program):
    program.send_signal(signal.SIGTERM)
    step_on(program)
    assert program.stdout.readline() == "again\n"
    program.send_signal(signal.SIGTERM)
    step_on(program)
    assert program.stdout.readline() == "end\n"
    for number in STOP_SIGNALS:
        program.send_signal(number)
    step_on(program)
    assert program.wait(timeout=600) == 143
    assert program.stderr.read() == "stopped\n"
