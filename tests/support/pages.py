"""What the documentation names: metrics and commands."""

from __future__ import annotations

import re
import shlex
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


PROGRAMS = ("python", "make", "tensorboard", ".venv/bin/python")


def documented() -> set[str]:
    """Tags in the first column of the tables of metrics.md, placeholders filled in."""
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    meaning = {}
    for item in re.findall(r"^- (`<.*?)(?=^- |^#)", text, re.S | re.M):
        name, *values = re.findall(r"`([^`]+)`", item)
        meaning[name] = [value for value in values if re.fullmatch(r"[a-z_0-9/]+", value)]
    tags = set()
    for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.M):
        for tag in re.findall(r"`([^`]+)`", cell):
            used = [name for name in meaning if name in tag]
            for values in product(*(meaning[name] for name in used)):
                filled = tag
                for name, value in zip(used, values, strict=True):
                    filled = filled.replace(name, value)
                tags.add(filled)
    return tags


def commands(page: Path) -> list[list[str]]:
    """Lines of shell blocks and inline code that begin with a program of ours, as words."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.S | re.M)
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose)]
    found = (line.strip() for line in lines if line.strip().startswith(PROGRAMS))
    return [shlex.split(line, comments=True) for line in found]
