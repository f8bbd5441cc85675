"""Costs, and rewards, that a function of the user computes from a recorded episode."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.envs.loading import import_named
from dreamer.errors import UserError, did_you_mean

CostFunction = Callable[[Mapping[str, np.ndarray]], Any]


def load_cost_function(spec: str) -> CostFunction:
    """The function `MODULE:FUNCTION`; the module may lie in the working directory.

    It gets the arrays of an episode by the names that the file gives them, and returns the costs
    (T,) of its T transitions, or costs and rewards as a pair.
    """
    module_name, colon, name = spec.rpartition(":")
    if not colon or not module_name:
        raise UserError(f"--cost-from '{spec}' is not MODULE:FUNCTION")
    module = import_named(module_name, f"--cost-from '{spec}'")
    function = getattr(module, name, None)
    if not callable(function):
        hint = did_you_mean(name, [key for key, value in vars(module).items() if callable(value)])
        raise UserError(f"--cost-from '{spec}': '{module_name}' has no function '{name}'{hint}")
    return function


def computed(
    function: CostFunction, arrays: Mapping[str, np.ndarray], T: int, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Costs and, if the function returns them too, rewards of an episode, (T,) float32 each."""
    try:
        result = function(arrays)
    except Exception as error:  # a function can raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: the cost function raised {type(error).__name__} in "
            f"{Path(place.filename).name}, line {place.lineno}: {reason}"
        ) from error
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) not in (1, 2):
        raise UserError(f"{where}: the cost function must return costs, or costs and rewards")
    cost, reward = _numbers(parts[0], "costs", T, where), None
    if np.any(cost < 0):
        raise UserError(f"{where}: the cost function returned costs below 0")
    if len(parts) == 2:
        reward = _numbers(parts[1], "rewards", T, where)
    return cost, reward


def _numbers(values: Any, name: str, T: int, where: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        numbers = np.empty(0, np.float32)
    if numbers.shape != (T,) or not np.isfinite(numbers).all():
        raise UserError(
            f"{where}: the cost function must return {T} finite {name}, one for each transition; "
            f"their shape is {np.shape(numbers)}"
        )
    return numbers
