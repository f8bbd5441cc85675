"""Locks against processes that are alive, killed and on other machines; new files and folders."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dreamer.errors import UserError
from dreamer.locks import locked
from dreamer.outputs import UNFINISHED, new_folder, new_output, remove_parts
from tests.support.commands import ROOT, snapshot

HOLD = """
import sys, time
from pathlib import Path
from dreamer.locks import locked
from dreamer.outputs import new_folder
place = Path(sys.argv[2])
kinds = {"lock": locked(place / ".lock", "it"), "folder": new_folder(place, ["*.txt"], "end")}
with kinds[sys.argv[1]] as folder:
    if folder:
        (folder / "own.txt").write_text("a result")
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(kind: str, place: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of a place, or fills a new folder, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen) -> None:
    process.kill()
    assert process.wait(timeout=600) == -signal.SIGKILL


def test_a_place_in_use_is_refused_and_death_frees_it(tmp_path):
    file = tmp_path / "run" / ".lock"
    with holder("lock", tmp_path / "run") as process:
        message = rf"^run is in use by process {process.pid} on .+ since \d{{4}}-.*; wait until"
        for _ in range(2):
            with pytest.raises(UserError, match=message), locked(file, "run"):
                raise AssertionError("entered")
        kill(process)
    assert file.exists()
    with locked(file, "run"):
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert not file.exists()


def test_in_one_process_too(tmp_path):
    with (
        locked(tmp_path / ".lock", "it"),
        pytest.raises(UserError, match=f"process {os.getpid()} on"),
        locked(tmp_path / ".lock", "it"),
    ):
        raise AssertionError("entered")


def test_folders_that_were_made_for_a_lock_go_with_it(tmp_path):
    with locked(tmp_path / "a" / "b" / ".lock", "it"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b" / ".lock", "it"):
        (tmp_path / "a" / "c").mkdir()
    assert list(snapshot(tmp_path)) == ["a", "a/c"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"^cannot write to run folder x: Not a directory$"),
        locked(tmp_path / "file" / "x" / ".lock", "run folder x"),
    ):
        raise AssertionError("entered")


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 5000, '{"pid": ' + "9" * 5000 + "}"])
def test_a_damaged_note_does_no_harm(tmp_path, content):
    file = tmp_path / ".lock"
    with locked(file, "it"):
        file.write_text(content)
        with pytest.raises(UserError) as refused, locked(file, "it"):
            raise AssertionError("entered")
        assert len(str(refused.value)) < 200
    file.write_text(content)
    with locked(file, "it"):
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / ".lock", "run folder x"):
        said = capsys.readouterr().err
    assert re.fullmatch(r"run folder x is on a file system without locks .*: start no .*\n", said)


def test_a_lock_of_another_machine_is_told_of(tmp_path, capsys):
    note = {"host": "node7", "pid": 12, "since": "then"}
    (tmp_path / ".lock").write_text(json.dumps(note))
    with locked(tmp_path / ".lock", "run folder x"):
        said = capsys.readouterr().err
    assert said.startswith("run folder x was left by process 12 on node7 since then; if that still")


# New files


def test_an_output_is_made_once_and_swept_before(tmp_path):
    path = tmp_path / "data.h5"
    (tmp_path / "data.h5.17.part").write_text("left by a kill")
    (tmp_path / "data.h5.18.part").mkdir()
    (tmp_path / "other.h5.17.part").write_text("another's")
    with new_output(path):
        assert not list(tmp_path.glob("data*"))
        with pytest.raises(UserError, match="in use by process"), new_output(path):
            raise AssertionError("entered")
        path.write_text("whole")
    assert list(snapshot(tmp_path)) == ["data.h5", "other.h5.17.part"]
    with pytest.raises(UserError, match="exists already"), new_output(path):
        raise AssertionError("entered")
    assert path.read_text() == "whole"


def test_only_unfinished_files_are_swept(tmp_path):
    names = ("a.pt.5.part", "a.part", "a.pt.x.part", "a.pt.5.part.h5", ".5.part")
    for name in names:
        (tmp_path / name).write_text("")
    remove_parts(tmp_path)
    assert sorted(snapshot(tmp_path)) == sorted(names[1:])
    remove_parts(tmp_path / "missing")


# New folders


def test_no_folder_is_used_twice(tmp_path):
    wanted = tmp_path / "eval" / "000000100"
    for name in ("000000100", "000000100-2", "000000100-3"):
        with new_folder(wanted, ["*.txt"], "end") as folder:
            (folder / "own.txt").write_text("")
        assert folder == tmp_path / "eval" / name
        assert [file.name for file in folder.iterdir()] == ["own.txt"]
    assert len(list(wanted.parent.iterdir())) == 3


def test_a_folder_of_a_killed_process_is_removed_by_the_next_start(tmp_path):
    """Whatever its name is; not that of a process that lives, nor what is not its own."""
    with holder("folder", tmp_path / "alive"), holder("folder", tmp_path / "dead") as process:
        with (
            pytest.raises(UserError, match="dead is in use by process"),
            new_folder(tmp_path / "dead", ["*.txt"], "end"),
        ):
            raise AssertionError("entered")
        kill(process)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "own.txt").write_text("no process made it")
        with new_folder(tmp_path / "next", ["*.txt"], "end"):
            files = list(snapshot(tmp_path))
        assert files == [
            ".alive.lock", ".next.lock", "alive", f"alive/{UNFINISHED}",
            "alive/own.txt", "mine", "mine/own.txt", "next", f"next/{UNFINISHED}",
        ]  # fmt: skip


def test_what_a_user_put_beside_the_results_stays(tmp_path):
    with holder("folder", tmp_path / "dead") as process:
        (tmp_path / "dead" / "notes.md").write_text("mine")
        kill(process)
    with new_folder(tmp_path / "dead", ["*.txt"], "end") as folder:
        assert folder == tmp_path / "dead-2"
    assert list(snapshot(tmp_path / "dead")) == ["notes.md"]


@pytest.mark.parametrize("kept", ["", "own.txt"])
def test_a_folder_that_fails_goes_at_once_unless_something_is_kept(tmp_path, kept):
    def fail() -> None:
        with new_folder(tmp_path / "a", ["*.txt"], "end", kept) as folder:
            (folder / "own.txt").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "a").exists() == bool(kept)
    with new_folder(tmp_path / "b", ["*.txt"], "end"):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["b"]


@pytest.mark.parametrize("kept", ["", "own.txt"])
def test_what_is_complete_stays_whatever_comes_then(tmp_path, kept):
    def fail() -> None:
        with new_folder(tmp_path / "a", ["*.txt"], "end", kept) as folder:
            (folder / "own.txt").write_text("")
            (folder / "end").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with holder("folder", tmp_path / "dead") as process:
        (tmp_path / "dead" / "end").write_text("")
        kill(process)
    with new_folder(tmp_path / "b", ["*.txt"], "end"):
        pass
    files = [name for name, content in snapshot(tmp_path).items() if content is not None]
    assert files == ["a/end", "a/own.txt", "dead/end", "dead/own.txt"]
