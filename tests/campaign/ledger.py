"""The cases of a campaign on disk, so that it goes on where it was, and the table of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamer.files import parse_json


class Ledger:
    """A file of lines, one per case."""

    def __init__(self, path: Path, seed: int) -> None:
        """Go on with the cases of this seed that are in the file."""
        self._path, self._seed = path, seed
        path.parent.mkdir(parents=True, exist_ok=True)
        self.cases = [case for case in _lines(path) if case.get("seed") == seed]

    def count(self, part: str) -> int:
        """How many cases of a part there are; the number of its next one."""
        return sum(case["part"] == part for case in self.cases)

    def add(self, part: str, **case: Any) -> None:
        """Keep a case."""
        whole = {"seed": self._seed, "part": part, "number": self.count(part), **case}
        self.cases.append(whole)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(whole) + "\n")

    def wrong(self) -> list[dict[str, Any]]:
        """The cases in which something happened that must not."""
        return [case for case in self.cases if case["wrong"]]

    def table(self) -> str:
        """What was tried: accepted, refused, wrong."""
        rows = [("part", "tried", "accepted", "refused", "wrong")]
        sums: Counter[str] = Counter()
        for part in dict.fromkeys(case["part"] for case in self.cases):
            cases = [case for case in self.cases if case["part"] == part]
            wrong = sum(bool(case["wrong"]) for case in cases)
            refused = sum(case["refused"] and not case["wrong"] for case in cases)
            numbers = (len(cases), len(cases) - refused - wrong, refused, wrong)
            sums.update(dict(zip(rows[0][1:], numbers, strict=True)))
            rows.append((part, *map(str, numbers)))
        rows.append(("all", *(str(sums[name]) for name in rows[0][1:])))
        return "\n".join(f"{name:<22}" + "".join(f"{x:>10}" for x in rest) for name, *rest in rows)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield parse_json(line)
            except ValueError:  # cut off, when the campaign itself was killed
                continue
