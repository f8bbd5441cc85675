"""Targets of measurements and whether they hold: the last lines of each benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One measured number and the range it should lie in, both ends included."""

    name: str
    value: float
    least: float = -math.inf
    most: float = math.inf
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the number lies in the range; NaN does not."""
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.least), ("at most", self.most))
            if math.isfinite(bound)
        ]
        verdict = "holds" if self.holds else "FALLS SHORT"
        unit = f" {self.unit}" if self.unit else ""
        return f"{verdict:<11}  {self.name}: {self.value:.4g}{unit} ({' and '.join(bounds)})"


def conclude(targets: Sequence[Target]) -> int:
    """Print every target; returns the exit code, 0 if all hold, else 1."""
    print("\ntargets")
    for target in targets:
        print(f"  {target}")
    return 0 if all(target.holds for target in targets) else 1
