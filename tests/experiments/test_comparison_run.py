"""Running the jobs of `experiments.comparison`: in parallel, in order, and stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from experiments.comparison.jobs import Job
from experiments.comparison.run import minutes_spent, past_jobs, run_jobs

WAIT = """
import pathlib, signal, sys, time
def wait(path):
    for _ in range(600):
        if pathlib.Path(path).exists():
            return
        time.sleep(0.02)
    sys.exit(9)
def stop(number, _):
    print('heard', int(number), flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
"""


def python(code: str, name: str = "step", done: bool = False, **more: object) -> Job:
    """A job that runs these lines."""
    return Job(name, ("-c", WAIT + code), lambda: done, **more)


def says(place: Path, name: str, then: str = "", **more: object) -> Job:
    """A job that makes a file of its own name, and does `then`."""
    return python(f"pathlib.Path({str(place / name)!r}).touch()\n{then}", name, **more)


def ended(out: Path) -> dict[str, int]:
    """The exit codes of the jobs that were run, by name, in the order in which they ended."""
    return {row["job"]: row["exit_code"] for row in past_jobs(out)}


def test_output_is_shown_and_kept(tmp_path, capfdbinary):
    jobs = [python("print('hello', flush=True)"), python("print('never')", "skipped", done=True)]
    assert run_jobs(jobs, tmp_path, 1) == 0
    out = capfdbinary.readouterr().out.decode()
    assert out.count("hello\n") == 1
    assert "[2/2] skipped: done before" in out
    log = (tmp_path / "logs" / "step.log").read_text()
    assert log == f"$ {jobs[0].command}\nhello\n"
    (row,) = past_jobs(tmp_path)
    assert (row["job"], row["exit_code"], row["command"]) == ("step", 0, jobs[0].command)


def test_a_job_that_fails_ends_it(tmp_path, capsys):
    jobs = [python("raise SystemExit(3)", "first"), python("print('never')", "second")]
    assert run_jobs(jobs, tmp_path, 1) == 3
    err = capsys.readouterr().err
    assert err == f"error: first ended with exit code 3; its output: {tmp_path}/logs/first.log\n"
    assert [row["job"] for row in past_jobs(tmp_path)] == ["first"]


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_job_once_and_ends_it(tmp_path, capsys, number, parallel):
    names = [f"step{k}" for k in range(parallel)]
    jobs = [says(tmp_path, name, "time.sleep(60)") for name in names]
    asked = threading.Thread(target=ask_to_stop, args=(tmp_path, names, number))
    asked.start()
    assert run_jobs([*jobs, python("", "never")], tmp_path, 1, parallel) == 128 + number
    asked.join()
    for name in names:
        log = (tmp_path / "logs" / f"{name}.log").read_text()
        assert log.count(f"heard {int(number)}\n") == 1
    assert ended(tmp_path) == dict.fromkeys(names, 128 + number)
    assert capsys.readouterr().err == "stopped; the same command continues\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def ask_to_stop(place: Path, names: list[str], number: int) -> None:
    """Send a signal to this process once the jobs are ready for it."""
    for _ in range(600):
        if all((place / name).exists() for name in names):
            break
        threading.Event().wait(0.02)
    os.kill(os.getpid(), number)


def test_jobs_run_in_parallel_and_in_order(tmp_path, capfdbinary):
    """Two that wait for each other; what needs one of them; and never more than two at once."""
    both = [
        says(tmp_path, "a", f"wait({str(tmp_path / 'b')!r})\nprint('loud')"),
        says(tmp_path, "b", f"wait({str(tmp_path / 'a')!r})"),
    ]
    alone = f"here = pathlib.Path({str(tmp_path)!r})\nassert len(list(here.glob('[cde]'))) < 3\n"
    leave = "time.sleep(0.1)\n(here / '{}').unlink()"
    later = [says(tmp_path, x, alone + leave.format(x), needs=("a", "b")) for x in "cde"]
    last = says(tmp_path, "last", needs=tuple("abcde"))
    assert run_jobs([last, *later, *both], tmp_path, 1, parallel=2) == 0
    order = list(ended(tmp_path))
    assert (set(order[:2]), set(order[2:5]), order[5]) == ({"a", "b"}, set("cde"), "last")
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[:2] == ["[5/6] a: begins", "[6/6] b: begins"]
    assert len(lines) == 12  # two for each, and nothing of what they say
    assert lines[-1].startswith("[1/6] last: 0 s; 0.0 of 1 minutes")
    assert "loud" in (tmp_path / "logs" / "a.log").read_text()


def test_a_job_that_fails_stops_the_others(tmp_path, capsys):
    jobs = [
        python(f"wait({str(tmp_path / 'good')!r})\nsys.exit(3)", "bad"),
        says(tmp_path, "good", "time.sleep(60)"),
        python("", "never"),
    ]
    assert run_jobs(jobs, tmp_path, 1, parallel=2) == 3
    assert ended(tmp_path) == {"bad": 3, "good": 143}
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"error: bad ended with exit code 3; its output: {tmp_path}/logs/bad.log",
        "stopping the other jobs: good",
    ]
    assert "[2/3] good: stopped after" in out


def test_nothing_is_left_running_after_an_unexpected_error(tmp_path):
    def broken() -> bool:
        while not (tmp_path / "good").exists():
            threading.Event().wait(0.02)
        raise OSError("no disk")

    jobs = [says(tmp_path, "good", "time.sleep(60)"), Job("odd", ("-c", ""), broken)]
    with pytest.raises(OSError, match="no disk"):
        run_jobs(jobs, tmp_path, 1, parallel=2)
    assert ended(tmp_path) == {"good": 143}


def test_a_missed_bound_is_no_failure(tmp_path):
    """Exit code 1 of a job that diagnoses counts as done if its file is there."""
    missed, report = "sys.exit(1)", python("", "report", needs=("asked",))
    path = tmp_path / "asked"
    job = Job("asked", says(tmp_path, "asked", missed).words, path.exists, diagnoses=True)
    assert run_jobs([job, report], tmp_path, 1) == 0
    assert ended(tmp_path) == {"asked": 1, "report": 0}
    path.unlink()
    crashed = Job("asked", ("-c", "raise OSError"), path.exists, diagnoses=True)
    assert run_jobs([crashed, report], tmp_path, 1) == 1


def test_minutes_are_those_in_which_something_ran():
    def row(begin: int, end: int) -> dict:
        return {"ended": f"2026-01-01T12:{end:02d}:00+0000", "seconds": 60.0 * (end - begin)}

    assert minutes_spent([]) == 0
    assert minutes_spent([row(0, 2), row(1, 5), row(2, 3), row(10, 11)]) == pytest.approx(6)
