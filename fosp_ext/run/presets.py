"""Where the presets are: configs.yaml of the repository, or its copy in an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_COPY = _PACKAGE / "configs.yaml"  # made by setup.py; the repository has none
PRESETS = _COPY if _COPY.exists() else _PACKAGE.parent / "configs.yaml"
