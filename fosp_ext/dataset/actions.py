"""The range of recorded actions, and their scaling to that of the policy, [-1, 1]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamer.envs.adapter import bounds_text
from dreamer.errors import UserError

ROUNDING = 1e-5  # in units of half the range: so far beyond it a number may lie by rounding
ROUNDED = "action numbers beyond the range by rounding, clipped to it"
CUT = "action numbers beyond the range, clipped to it as --clip-actions says"
WAY_ON = "give the range that the environment has, --action-low LOW --action-high HIGH"


class ActionRange(NamedTuple):
    """What -1 and 1 are in the environment's own numbers."""

    low: tuple[float, ...]  # (A,)
    high: tuple[float, ...]

    def __str__(self) -> str:
        return bounds_text(self.low, self.high)

    @property
    def is_unit(self) -> bool:
        """Whether the numbers are those of the policy already."""
        return set(self.low) == {-1.0} and set(self.high) == {1.0}

    @property
    def finite(self) -> bool:
        """Whether there is a range at all."""
        return bool(np.isfinite([*self.low, *self.high]).all())

    def scaled(
        self, action: np.ndarray, where: str, cut: bool, remarks: Counter[str]
    ) -> np.ndarray:
        """Recorded actions (T, A) in [-1, 1], float32: what an environment with these bounds
        plays as what was recorded.

        Numbers that lie beyond by rounding are clipped and counted; if further, they are refused
        as those of another range, or clipped too where the user says so (`cut`).
        """
        unit = np.asarray(action, np.float64)
        if not self.is_unit:
            low, high = np.array(self.low), np.array(self.high)
            unit = 2 * (unit - low) / (high - low) - 1
        beyond, far = np.abs(unit) > 1, np.abs(unit) > 1 + ROUNDING
        if far.any() and not cut:
            raise UserError(
                f"{where}: actions from {np.min(action):g} to {np.max(action):g} leave the range "
                f"{self}; {WAY_ON}, or if it clipped them itself, --clip-actions"
            )
        remarks[CUT] += int(far.sum())
        remarks[ROUNDED] += int((beyond & ~far).sum())
        return np.clip(unit, -1, 1).astype(np.float32)


def unit_range(size: int) -> ActionRange:
    """The range of the policy."""
    return ActionRange((-1.0,) * size, (1.0,) * size)


def told_range(
    low: Sequence[float] | None, high: Sequence[float] | None, size: int
) -> ActionRange | None:
    """The range that the user gives, by one number for each side or one for each component."""
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise UserError("--action-low and --action-high belong together; give both")
    sides = []
    for name, numbers in (("low", low), ("high", high)):
        if len(numbers) not in (1, size):
            raise UserError(
                f"--action-{name} has {len(numbers)} numbers; an action has {size}: give one for "
                "each, or a single one for all"
            )
        sides.append(tuple(numbers) * (1 if len(numbers) == size else size))
    told = ActionRange(*sides)
    if not told.finite or any(a >= b for a, b in zip(*told, strict=True)):
        raise UserError(f"actions need finite bounds, the lower below the upper, not {told}")
    return told


def choose_range(
    path: Path, told: ActionRange | None, stated: ActionRange | None, known: ActionRange | None
) -> tuple[ActionRange, str]:
    """The range of the actions of a file, and a line that says so where they are scaled.

    What the user says counts before what the file states, that before what is `known` of the
    task; a file without any of them is refused.
    """
    if stated is not None and not stated.finite:
        stated = None
    chosen, by = next(
        ((each, by) for each, by in ((told, "as told"), (stated, "as the file says")) if each),
        (known, ""),
    )
    if chosen is None:
        raise UserError(f"{path} does not say the range of its actions; {WAY_ON}")
    if told and stated and told != stated:
        by = f"as told; the file says {stated}"
    return chosen, "" if chosen.is_unit else f"actions scaled from {chosen} to -1 to 1, {by}"
