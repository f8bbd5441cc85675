"""The packages of a virtual environment, installed by pip or by uv."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple


class Planned(NamedTuple):
    """A package that an installation would bring."""

    name: str
    url: str


class Packages:
    """Installs into the environment of `python`: with the program `uv`, or else with pip."""

    def __init__(self, python: Path, uv: str = "") -> None:
        self.python, self.uv = python, uv

    def prepare(self) -> None:
        """Bring pip to a version that can plan."""
        if not self.uv:
            self.install("pip>=22.3")  # for --dry-run with --report

    def install(self, *words: str | Path) -> None:
        """What `pip install` does with these arguments."""
        # Safety-Gymnasium's pins are known to be broken
        known = () if self.uv else ("--no-warn-conflicts",)
        subprocess.run([*self._command("install"), *known, *words], check=True)

    def can_install(self, *words: str) -> bool:
        """Would that work? Says nothing."""
        command = [*self._command("install"), "--dry-run", *words]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def remove(self, name: str) -> None:
        """Uninstall one package."""
        sure = () if self.uv else ("--yes",)
        subprocess.run([*self._command("uninstall"), *sure, name], check=True)

    def plan(self, *words: str) -> list[Planned]:
        """What an installation by pip would bring."""
        command = [*self._command("install"), "--dry-run", "--report", "-", *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        items = json.loads(done.stdout)["install"]
        return [Planned(i["metadata"]["name"].lower(), i["download_info"]["url"]) for i in items]

    def _command(self, command: str) -> list[str | Path]:
        if self.uv:
            return [self.uv, "pip", command, "--quiet", "--python", self.python]
        quiet = ("--quiet", "--disable-pip-version-check")
        return [self.python, "-m", "pip", command, *quiet]
