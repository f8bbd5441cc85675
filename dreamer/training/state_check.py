"""Checks of what a checkpoint holds, before any of it is used: every error is a `UserError`."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError, shown
from dreamer.training.checkpoint import is_dense

PARTS: dict[str, type] = {  # of every checkpoint
    "agent": dict,
    "config": dict,
    "info": dict,
    "dataset": str,
    "step": int,
}
FURTHER: dict[str, type] = {  # where there is one
    "left_out": list,
    "pretrain": int,
    "provenance": dict,
}
LARGEST_COUNT = 2**63 - 1
LARGEST_ACTION = 100_000  # numbers of an action; no robot has so many


def check_parts(state: Any, path: object) -> None:
    """Refuse a state without the parts that every one has, or with one of a wrong type."""
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path} holds no parts")
    missing = sorted(PARTS.keys() - state.keys())
    if missing:
        raise UserError(f"checkpoint {path} lacks {', '.join(missing)}")
    for name, kind in (PARTS | FURTHER).items():
        value = state.get(name, kind())
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"checkpoint {path}: '{name}' must be of type {kind.__name__}")
    for name in ("step", "pretrain"):
        if not 0 <= state.get(name, 0) <= LARGEST_COUNT:
            raise UserError(f"checkpoint {path}: '{name}' is {shown(state[name])}")


def load_weights(agent: Agent, saved: Mapping[str, Any], path: object) -> None:
    """Give an agent the weights and optimisers that a checkpoint has; all have to fit."""
    check_weights(agent, saved, path)
    try:
        agent.load_state_dict(saved)
    except UserError as error:  # of an optimiser
        raise UserError(f"checkpoint {path}: {error}") from error


def check_weights(agent: Agent, saved: Mapping[str, Any], path: object) -> None:
    """Refuse weights of other names, shapes or types than those of the agent."""
    wanted = agent.state_dict()
    for name in wanted.keys() - saved.keys():
        raise UserError(f"checkpoint {path} lacks the weights '{name}' of its agent")
    for name in saved.keys() - wanted.keys():
        raise UserError(f"checkpoint {path} has weights {shown(name)} that its agent has not")
    for name, like in wanted.items():
        if isinstance(like, Tensor):
            check_tensor(saved[name], like.shape, f"checkpoint {path}: '{name}'")


def check_tensor(value: Any, shape: Sequence[int], where: str) -> None:
    """Refuse what is no plain tensor of floating-point numbers of this shape."""
    if not isinstance(value, Tensor):
        raise UserError(f"{where} must be a tensor, it is {type(value).__name__}")
    if tuple(value.shape) != tuple(shape):
        raise UserError(f"{where} must have shape {tuple(shape)}, it has {tuple(value.shape)}")
    if not is_dense(value):
        raise UserError(
            f"{where} must hold floating-point numbers, not {value.dtype}, {value.layout}"
        )


def read_info(values: Mapping[str, Any], path: object) -> DatasetInfo:
    """What a checkpoint says about the episodes of its run."""
    kinds = typing.get_type_hints(DatasetInfo)
    given: dict[str, Any] = {}
    for field in fields(DatasetInfo):
        if field.name not in values:
            if field.default is MISSING and field.default_factory is MISSING:
                raise UserError(f"checkpoint {path}: 'info' lacks {field.name}")
            continue
        value = values[field.name]
        value = tuple(value) if isinstance(value, list) else value
        if not _is(value, kinds[field.name]):
            raise UserError(f"checkpoint {path}: {field.name} of 'info' is {shown(value)}")
        given[field.name] = value
    unknown = sorted(map(str, values.keys() - kinds.keys()))
    if unknown:
        raise UserError(f"checkpoint {path}: 'info' says {shown(unknown[0])}, which is not known")
    info = DatasetInfo(**given)
    if not 1 <= info.action_size <= LARGEST_ACTION:
        raise UserError(f"checkpoint {path}: an action of 'info' has {info.action_size} numbers")
    if len(info.action_scale) != info.action_size:
        raise UserError(f"checkpoint {path}: the action scale of 'info' has another size")
    return info


def check_record(value: Any, kinds: Mapping[str, Any], where: str) -> None:
    """Refuse what is no dict with values of these types under these names."""
    if not isinstance(value, dict):
        raise UserError(f"{where} is damaged: it is of type {type(value).__name__}")
    for name, kind in kinds.items():
        if name not in value:
            raise UserError(f"{where} is damaged: it lacks {name}")
        if not _is(value[name], kind):
            raise UserError(f"{where} is damaged: its {name} is {shown(value[name])}")


def _is(value: Any, kind: Any) -> bool:
    """Is it of this type? Whole numbers are counts: at least 0; numbers are finite."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, list):
        return isinstance(value, origin) and all(_is(item, inner[0]) for item in value)
    if origin is dict:
        keys, items = inner
        return isinstance(value, dict) and all(
            _is(key, keys) and _is(item, items) for key, item in value.items()
        )
    if kind is int:
        return type(value) is int and 0 <= value <= LARGEST_COUNT
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind)
