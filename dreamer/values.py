"""One setting: from what a file or the command line says to a value of the right type."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

from dreamer.errors import UserError, did_you_mean, shown

BOOLS = {"true": True, "false": False}
LARGEST = 2**63 - 1  # whole number that a file, and a library below, can hold
DIGITS = 64  # of a number as text; Python would read thousands, and then refuse to show them
FAR = 10**DIGITS  # further away, no number is meant


def convert(raw: Any, kind: Any, limits: Mapping[str, Any], where: str) -> Any:
    """`raw` (a string, or what YAML made of it) as `kind`, inside its limits.

    `kind` is int, float, bool, str, tuple[str, ...] or dict[str, float]; the choices of a tuple
    apply to its items, those of a dict to its keys. `where` begins the message of an error.
    """
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = _items(raw, where)
        for item in items:
            _check_choice(item, limits, where)
        return items
    if origin is dict:
        pairs = _pairs(raw, where)
        for key, number in pairs.items():
            _check_choice(key, limits, where)
            _check_range(number, limits, f"{where}: {key}")
        return pairs
    readers: dict[Any, Callable[[Any, str], Any]]
    readers = {int: _int, float: _float, bool: _bool, str: _str}
    value = readers[kind](raw, where)
    _check_choice(value, limits, where)
    if kind in (int, float):
        _check_range(value, limits, where)
    return value


def _int(raw: Any, where: str) -> int:
    number = _number(raw)
    if number is None or number != int(number):
        raise UserError(f"{where} must be a whole number, not {shown(raw)}")
    if abs(int(number)) > LARGEST:
        raise UserError(f"{where} must be at most {LARGEST}, it is {shown(raw)}")
    return int(number)


def _float(raw: Any, where: str) -> float:
    number = _number(raw)
    if number is None:
        raise UserError(f"{where} must be a number, not {shown(raw)}")
    return float(number)


def _number(raw: Any) -> int | float | None:
    """An int where `raw` is written as one, else a finite float, else nothing."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    if len(raw) > DIGITS if isinstance(raw, str) else abs(raw) > FAR:
        return None
    for kind in (int, float):
        try:
            number = kind(raw) if isinstance(raw, str) else raw
        except ValueError:
            continue
        return number if abs(number) <= FAR else None  # and so no NaN
    return None


def _bool(raw: Any, where: str) -> bool:
    value = BOOLS.get(raw.lower()) if isinstance(raw, str) else raw
    if not isinstance(value, bool):
        raise UserError(f"{where} must be true or false, not {shown(raw)}")
    return value


def _str(raw: Any, where: str) -> str:
    if not isinstance(raw, str):
        raise UserError(f"{where} must be text, not {shown(raw)}")
    if "\0" in raw:
        raise UserError(f"{where} must not hold the character NUL")
    return raw


def _items(raw: Any, where: str) -> tuple[str, ...]:
    items = (
        [item.strip() for item in raw.split(",") if item.strip()] if isinstance(raw, str) else raw
    )
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise UserError(f"{where} must be a list of names such as a,b, not {shown(raw)}")
    return tuple(items)


def _pairs(raw: Any, where: str) -> dict[str, float]:
    wanted = f"{where} must be names with numbers such as a=0.5,b=0.5, not {shown(raw)}"
    if isinstance(raw, str):
        pieces = [piece.partition("=") for piece in raw.split(",") if piece.strip()]
        if not all(equals for _, equals, _ in pieces):
            raise UserError(wanted)
        raw = {key.strip(): value.strip() for key, _, value in pieces}
    if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
        raise UserError(wanted)
    return {key: _float(value, f"{where}: {key}") for key, value in raw.items()}


def _check_choice(value: Any, limits: Mapping[str, Any], where: str) -> None:
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        names = [str(choice) for choice in choices]
        hint = did_you_mean(str(value), names)
        raise UserError(f"{where} must be one of {', '.join(names)}, not {shown(value)}{hint}")


def _check_range(value: float, limits: Mapping[str, Any], where: str) -> None:
    minimum, maximum = limits.get("minimum"), limits.get("maximum")
    if minimum is not None and value < minimum:
        raise UserError(f"{where} must be at least {minimum}, it is {value}")
    if maximum is not None and value > maximum:
        raise UserError(f"{where} must be at most {maximum}, it is {value}")
