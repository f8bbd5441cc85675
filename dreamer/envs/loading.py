"""Import and make the environment of a Gymnasium id or of a task `MODULE:NAME`."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import load_env_creator

from dreamer.errors import UserError, did_you_mean

INTERFACE = ("observation_space", "action_space", "reset", "step")


class LoadedEnv(NamedTuple):
    """An environment and the steps after which its registration cuts an episode off, if any."""

    env: Any
    time_limit: int | None


def load_env(task: str) -> LoadedEnv:
    """Make the environment of a Gymnasium id, or import a module, and make one of its own.

    The module may lie in the working directory, too. Its name is that of a registered Gymnasium
    environment, or else of a class or function of the module. Gymnasium's own wrappers are left
    out: they do not understand six-tuples. A missing module, name or package is a `UserError`; what
    the environment itself raises is passed on.
    """
    module_name, colon, name = task.rpartition(":")
    if not colon:
        if name not in gymnasium.registry:
            hint = did_you_mean(name, gymnasium.registry)
            raise UserError(f"no Gymnasium environment '{name}'{hint}; of your own: MODULE:NAME")
        return _make_registered(name)
    module = import_named(module_name, f"task '{task}'")
    creator = getattr(module, name, None)
    if name in gymnasium.registry:
        loaded = _make_registered(name)
    elif callable(creator):
        loaded = LoadedEnv(creator(**_images_for_videos(creator)), None)
    else:
        hint = did_you_mean(name, _names(module))
        raise UserError(f"task '{task}': '{module_name}' has and registers no '{name}'{hint}")
    missing = [part for part in INTERFACE if not hasattr(loaded.env, part)]
    if missing:
        kind = type(loaded.env).__name__
        raise UserError(f"task '{task}' made an object of type {kind} without {missing[0]}")
    return loaded


def import_named(name: str, what: str) -> types.ModuleType:
    """Import a module, of the working directory as well. `what` needs it, and begins errors."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # to stay: the module may import its neighbours later
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module can raise anything
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            hint = did_you_mean(name, (file.stem for file in Path().glob("*.py")))
            raise UserError(
                f"{what}: no module '{missing}' in the working directory or Python's path{hint}"
            ) from error
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{what}: importing '{name}' failed with {type(error).__name__}: {reason}"
        ) from error


def _make_registered(name: str) -> LoadedEnv:
    spec = copy.copy(gymnasium.spec(name))
    time_limit, spec.max_episode_steps = spec.max_episode_steps, None
    spec.order_enforce, spec.disable_env_checker = False, True
    point = spec.entry_point
    try:
        creator = load_env_creator(point) if isinstance(point, str) else point
        return LoadedEnv(gymnasium.make(spec, **_images_for_videos(creator)), time_limit)
    except (ImportError, gymnasium.error.Error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"environment '{name}' cannot be made: {reason}") from error


def _images_for_videos(creator: Any) -> dict[str, Any]:
    """The argument that makes `render()` return an image, where the environment knows it."""
    parameters = inspect.signature(creator).parameters
    declared = getattr(creator, "metadata", {}).get("render_modes")
    passed_on = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    takes = "render_mode" in parameters or (passed_on and declared is not None)
    known = takes and (declared is None or "rgb_array" in declared)
    return {"render_mode": "rgb_array"} if known else {}


def _names(module: types.ModuleType) -> list[str]:
    """Candidates for a hint: ids of environments in this package, and the module's names."""
    package = module.__name__.split(".")[0]

    def origin(point: str | Callable | None) -> str:
        return point if isinstance(point, str) else getattr(point, "__module__", "")

    ids = [
        name
        for name, spec in gymnasium.registry.items()
        if origin(spec.entry_point).startswith(package)
    ]
    return ids + [name for name, value in vars(module).items() if callable(value)]
