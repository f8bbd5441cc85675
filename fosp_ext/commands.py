"""The commands by name: `python train.py` in the repository, `fosp-train` once installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

INSTALLED = {  # in the repository: as pyproject.toml names it
    "torchrun --nproc_per_node 4 train.py": "torchrun --no-python --nproc_per_node 4 fosp-train",
    "python train.py": "fosp-train",
    "python eval.py": "fosp-eval",
    "python -m fosp_ext.dataset": "fosp-dataset",
    "python -m fosp_ext.report": "fosp-report",
    "python -m fosp_ext.export": "fosp-export",
    "python -m fosp_ext.doctor": "fosp-doctor",
}


def as_called(text: str) -> str:
    """`text`, which names commands as in the repository, in the manner this one was called."""
    if Path(sys.argv[0]).stem not in INSTALLED.values():
        return text
    return "\n".join(_installed(line) for line in text.split("\n"))


def _installed(line: str) -> str:
    """A line with the names once installed; a comment in a column of its own stays there."""
    shorter = line
    for in_repository, installed in INSTALLED.items():
        shorter = shorter.replace(in_repository, installed)
    saved = " " * (len(line) - len(shorter))
    return re.sub(r"(?<=\S) {3,}", lambda gap: gap[0] + saved, shorter)
