"""Where the presets of train.py are: configs.yaml of the repository."""

from __future__ import annotations

from pathlib import Path

PRESETS = Path(__file__).resolve().parents[2] / "configs.yaml"
