"""Builds the package: the metadata are in pyproject.toml, and configs.yaml goes with the code."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """Put a copy of the repository's configs.yaml where `fosp_ext/run/presets.py` looks for it."""

    def run(self) -> None:
        """Build the packages, then copy; an editable installation reads the original."""
        super().run()
        if not self.editable_mode:
            self.copy_file("configs.yaml", self._target())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files of the packages and the copy."""
        copies = [] if self.editable_mode else [self._target()]
        return [*super().get_outputs(include_bytecode), *copies]

    def _target(self) -> str:
        return str(Path(self.build_lib) / "fosp_ext" / "configs.yaml")


setup(cmdclass={"build_py": BuildWithPresets})
