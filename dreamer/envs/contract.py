"""Checks of the spaces and values of a custom environment, one value at a time.

Each function converts a value that the environment returned to our types, or raises a `UserError`
that says what is accepted. docs/reference/custom_environments.md has the rules in full.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamer.errors import UserError

IMAGE = "image"  # the camera's name where the whole observation is one image
RENDERED = "rendered"  # and where it is what `render()` returns
A_CAMERA = "a camera is uint8 (height, width, 3)"


class RawStep(NamedTuple):
    """The unchecked result of `step`, in either of the two conventions."""

    obs: Any
    reward: Any
    cost: Any  # None where there is none
    terminated: Any
    truncated: Any
    success: Any = None  # None where the environment does not say


def split_reset(result: Any) -> Any:
    """The observation out of what `reset` returned."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise UserError(f"reset returned {_kind(result)}; (observation, info) is needed")
    return result[0]


def split_step(result: Any) -> RawStep:
    """Gymnasium's five values, with the cost in `info`, or Safety-Gymnasium's six."""
    if isinstance(result, tuple) and len(result) == 5:
        obs, reward, terminated, truncated, info = result
        said = info if isinstance(info, Mapping) else {}
        outcome = (said.get("cost"), terminated, truncated, said.get("success"))
        return RawStep(obs, reward, *outcome)
    if isinstance(result, tuple) and len(result) == 6:
        said = result[5] if isinstance(result[5], Mapping) else {}
        return RawStep(*result[:5], said.get("success"))
    raise UserError(
        f"step returned {_kind(result)}; (observation, reward, terminated, truncated, info), "
        "or six with the cost behind the reward, are needed"
    )


def read_reward(value: Any) -> float:
    """A finite number."""
    return _number(value, "the reward")


def read_cost(value: Any) -> float:
    """A finite number of at least 0."""
    if value is None:
        raise UserError(
            "no cost: every step has to put a number, also a 0, into info['cost'] "
            "(docs/reference/custom_environments.md)"
        )
    cost = _number(value, "the cost")
    if cost < 0:
        raise UserError(f"the cost must be at least 0, it is {cost:g}")
    return cost


def read_flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name} must be True or False, it is {_kind(value)}")
    return bool(value)


def read_images(obs: Any, cameras: Sequence[str]) -> dict[str, np.ndarray]:
    """A copy of each camera's image, (height, width, 3) uint8."""
    entries = entries_of(obs)
    images = {}
    for camera in cameras:
        if camera not in entries:
            raise UserError(f"the observation lacks '{camera}'; it has {', '.join(entries)}")
        if not is_image(entries[camera]):
            raise UserError(f"observation '{camera}' is {_kind(entries[camera])}; {A_CAMERA}")
        images[camera] = entries[camera].copy()
    return images


def read_vectors(obs: Any, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A copy of each vector, (D,) float32; `sizes` are name -> D."""
    entries = entries_of(obs)
    vectors = {}
    for name, size in sizes.items():
        if name not in entries:
            raise UserError(f"the observation lacks '{name}'; it has {', '.join(entries)}")
        try:
            vector = np.array(entries[name], np.float32).reshape(-1)
        except (TypeError, ValueError):
            raise UserError(f"observation '{name}' must be numbers") from None
        if len(vector) != size or not np.isfinite(vector).all():
            kind = _kind(entries[name])
            raise UserError(f"observation '{name}' must be {size} finite numbers, it is {kind}")
        vectors[name] = vector
    return vectors


def entries_of(obs: Any) -> dict[str, Any]:
    """The parts of an observation, or of the space of one, by name: `outer.inner` where nested.

    An observation that is one array is called `image`, be it one or not.
    """
    inner = obs.spaces if isinstance(obs, gymnasium.spaces.Dict) else obs
    return dict(_entries(inner, "")) if isinstance(inner, Mapping) else {IMAGE: obs}


def _entries(obs: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in obs.items():
        inner = value.spaces if isinstance(value, gymnasium.spaces.Dict) else value
        if isinstance(inner, Mapping):
            yield from _entries(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_action_space(space: Any) -> gymnasium.spaces.Box:
    """A box of A real numbers with finite bounds."""
    if isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
        raise UserError(
            f"actions must be a one-dimensional Box, the action space is {space}: discrete actions "
            "are not supported"
        )
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UserError(f"actions must be a one-dimensional Box, the action space is {space}")
    if not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"actions must be real numbers, the action space is {space}")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(f"actions need finite bounds, the action space is {space}")
    if (space.low >= space.high).any():
        raise UserError(f"the lower bounds must lie below the upper ones, not as in {space}")
    return space


def cameras_of(space: Any) -> dict[str, tuple[int, ...]]:
    """The images in an observation space: name -> (height, width, 3)."""
    return {
        name: tuple(entry.shape or ())
        for name, entry in entries_of(space).items()
        if _is_image_box(entry)
    }


def vectors_of(space: Any) -> dict[str, int]:
    """The vectors in an observation space, boxes of real numbers with up to one axis: name -> D."""
    return {
        name: int(np.prod(entry.shape))
        for name, entry in entries_of(space).items()
        if isinstance(entry, gymnasium.spaces.Box)
        and np.issubdtype(entry.dtype, np.floating)
        and len(entry.shape) <= 1
        and int(np.prod(entry.shape))
    }


def choose_vectors(names: Sequence[str], space: Any) -> dict[str, int]:
    """Name -> D of these vectors; one that the space does not have is refused."""
    known = vectors_of(space)
    for name in names:
        if name not in known:
            have = f"the vectors are {', '.join(known)}" if known else "it has no vectors"
            raise UserError(f"no vector '{name}' in the observation; {have}")
    return {name: known[name] for name in names}


def unused_of(space: Any, chosen: Collection[str]) -> dict[str, str]:
    """The parts of an observation space that are not `chosen`: name -> what it is."""
    unused = {name: entry for name, entry in entries_of(space).items() if name not in chosen}
    return {
        name: f"{getattr(entry, 'dtype', '?')} {getattr(entry, 'shape', '')}".strip()
        for name, entry in unused.items()
    }


def check_choice(cameras: Sequence[str], space: Any) -> None:
    """Refuse cameras that the observation space does not have; say which it has."""
    known = cameras_of(space)
    if not known:
        raise UserError(f"no image in the observation space {space}; {A_CAMERA}")
    for camera in cameras:
        if camera not in known:
            raise UserError(
                f"no camera '{camera}'; the cameras are {', '.join(known)}: "
                f"--env.cameras {','.join(known)}"
            )


def is_image(value: Any) -> bool:
    """Whether a value is a (height, width, 3) uint8 array."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and _is_rgb(value.shape)


def _is_image_box(space: Any) -> bool:
    box = isinstance(space, gymnasium.spaces.Box)
    return box and space.dtype == np.uint8 and _is_rgb(space.shape)


def _is_rgb(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[2] == 3 and min(shape) > 0


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, it is {_kind(value)}") from None
    if not math.isfinite(number):
        raise UserError(f"{name} must be a finite number, it is {value!r}")
    return number


def _kind(value: Any) -> str:
    """Type or shape of a value, for a message."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return f"a value of type {type(value).__name__}"
