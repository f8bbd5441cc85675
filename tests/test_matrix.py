"""tools/matrix.py: which Pythons are found, what is run in each, and the table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = f"3.{sys.version_info[1]}"


@pytest.fixture
def matrix(monkeypatch, tmp_path) -> ModuleType:
    """The program, with environments in an empty folder."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    module = importlib.import_module("matrix")
    monkeypatch.setattr(module, "PLACE", tmp_path)
    return module


def venv_that(tmp_path: Path, name: str) -> None:
    """A virtual environment with this Python and its packages; set-up has nothing to do in it."""
    folder = tmp_path / name / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(0o755)


def test_the_python_of_the_tests_is_found(matrix):
    found = dict(matrix.pythons())
    assert HERE in found
    assert set(found) <= {"3.10", "3.11", "3.12", "3.13"}


def test_the_tests_of_each_python_are_a_row(matrix, monkeypatch, tmp_path, capsys):
    """Real processes; only the set-up is left out."""
    venv_that(tmp_path, HERE)
    bootstrap = tmp_path / "tools" / "bootstrap.py"
    bootstrap.parent.mkdir()
    bootstrap.write_text("print('set up')\n")
    (tmp_path / "test_good.py").write_text("def test_it():\n    pass\n")
    (tmp_path / "test_bad.py").write_text("def test_it():\n    assert False\n")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    assert matrix.main(["--pythons", HERE, "--tests", "test_good.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("| Python | torch | numpy | gymnasium | mujoco | tests | minutes |")
    assert lines[-1].startswith(f"| {HERE} | 2.")
    assert "1 passed" in lines[-1]
    assert matrix.main(["--pythons", HERE, "--tests", "test_good.py test_bad.py"]) == 1
    assert "1 failed, 1 passed" in capsys.readouterr().out.splitlines()[-1]
    bootstrap.write_text("raise SystemExit(2)\n")
    assert matrix.main(["--pythons", HERE]) == 1
    assert "| failed: " in capsys.readouterr().out.splitlines()[-1]


def test_a_python_that_is_not_here(matrix, capsys):
    assert matrix.main(["--pythons", "3.9"]) == 2
    assert "no Python 3.9 here; there are" in capsys.readouterr().err
