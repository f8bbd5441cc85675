"""Types are checked, as the settings of mypy in pyproject.toml say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="types are checked where the extra `dev` is installed")

ROOT = Path(__file__).resolve().parents[1]


def test_types():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
