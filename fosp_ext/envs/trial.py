"""Test episodes of random actions, recorded with the first broken rule of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dreamer.envs.contract import (
    read_action_space,
    read_cost,
    read_flag,
    read_images,
    read_reward,
    read_vectors,
    split_reset,
    split_step,
)
from dreamer.envs.loading import LoadedEnv
from dreamer.errors import UserError


class Seen(NamedTuple):
    """What of the observations is looked at."""

    cameras: tuple[str, ...]
    vectors: dict[str, int]  # name -> numbers


class Row(NamedTuple):
    """The values of one step; None where a rule is broken. The first row is the reset."""

    images: str | None  # the digest of what was observed
    reward: float | None = 0.0
    cost: float | None = 0.0
    terminated: bool | None = False
    truncated: bool | None = False


class Trace:
    """One recorded episode, and the first broken rule of each kind."""

    def __init__(self) -> None:
        """An empty trace."""
        self.rows: list[Row] = []
        self.problems: dict[str, str] = {}

    @property
    def steps(self) -> int:
        """Steps played."""
        return max(len(self.rows) - 1, 0)

    @property
    def over(self) -> bool:
        """Whether the episode ended by itself or by its time limit."""
        return bool(self.rows and (self.rows[-1].terminated or self.rows[-1].truncated))

    def read(self, about: str, function: Callable, *arguments: Any) -> Any:
        """The function's result, or None if it refuses its arguments."""
        try:
            return function(*arguments)
        except UserError as error:
            when = f"step {len(self.rows)}" if self.rows else "reset"
            self.problems.setdefault(about, f"{error} (at {when})")
            return None


def play(loaded: LoadedEnv, seen: Seen, seed: int, limit: int) -> Trace:
    """One episode of random actions, stopped after `limit` steps or where it cannot go on.

    The seed decides the actions as well. What the environment raises is passed on.
    """
    env, trace, rng = loaded.env, Trace(), np.random.default_rng(seed)
    box = read_action_space(env.action_space)
    result = env.reset(seed=seed)
    obs = trace.read("reset", split_reset, result)
    if trace.problems:
        return trace
    trace.rows.append(Row(_digest(trace, obs, seen)))
    for step in range(1, limit + 1):
        result = env.step(rng.uniform(box.low, box.high).astype(box.dtype))
        raw = trace.read("step", split_step, result)
        if raw is None:
            break
        row = Row(
            _digest(trace, raw.obs, seen),
            trace.read("reward", read_reward, raw.reward),
            trace.read("cost", read_cost, raw.cost),
            trace.read("terminated", read_flag, raw.terminated, "terminated"),
            trace.read("truncated", read_flag, raw.truncated, "truncated"),
        )
        trace.rows.append(row._replace(truncated=True) if step == loaded.time_limit else row)
        if trace.over or row.terminated is None or row.truncated is None:
            break
    return trace


def first_difference(one: Trace, other: Trace) -> str:
    """The first difference between two episodes, as far as both were played; empty if none."""
    for step, (a, b) in enumerate(zip(one.rows, other.rows, strict=False)):
        names = [name for name in Row._fields if getattr(a, name) != getattr(b, name)]
        if names:
            return f"other {' and '.join(names)} at {f'step {step}' if step else 'reset'}"
    return ""


def _digest(trace: Trace, obs: Any, seen: Seen) -> str | None:
    images = trace.read("images", read_images, obs, seen.cameras)
    vectors = trace.read("vectors", read_vectors, obs, seen.vectors)
    if images is None or vectors is None:
        return None
    parts = (*images.values(), *vectors.values())
    return hashlib.sha256(b"".join(x.tobytes() for x in parts)).hexdigest()
