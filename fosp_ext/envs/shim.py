"""Import Safety-Gymnasium 1.0.0 on Python 3.10 to 3.13 with today's numpy. Nothing on disk changes.

The release of 2023 was written for Python up to 3.10 and numpy 1. Three things stand in its way,
each mended in memory and only for its own modules:

1. Its dataclasses have numpy arrays as defaults, "mutable defaults" that Python refuses since 3.11.
   While its modules are imported, an array default is turned into a default factory.
2. It imports its multi-agent module, which needs gymnasium-robotics and pettingzoo. We use
   single-agent tasks only, so an empty stand-in takes its place and neither has to be installed.
3. It looks up joints by one-element arrays, which numpy 2.4 no longer turns into an index. The one
   method that does so sees the model through a view that accepts them.

It pins old versions of its dependencies, so it has to be installed with `pip install --no-deps`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fosp_ext.envs.gl import choose_backend

_MULTI_AGENT = "safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi"


def import_safety_gymnasium() -> types.ModuleType:
    """The `safety_gymnasium` package, ready to use. Chooses the OpenGL library as well."""
    choose_backend()
    loaded = sys.modules.get("safety_gymnasium")
    if loaded is not None and "safety_gymnasium.builder" in sys.modules:
        return loaded
    with _array_defaults(), _without_multi_agent():
        package = importlib.import_module("safety_gymnasium")
        importlib.import_module("safety_gymnasium.builder")  # its dataclasses are defined here too
    _accept_array_indices(importlib.import_module("safety_gymnasium.bases.base_agent").BaseAgent)
    return package


@contextmanager
def _array_defaults() -> Iterator[None]:
    """Patch 1: `@dataclass` accepts numpy arrays as defaults within the block."""
    original = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(target: type) -> type:
            for name in inspect.get_annotations(target):
                default = target.__dict__.get(name)
                if isinstance(default, np.ndarray):
                    setattr(target, name, dataclasses.field(default_factory=default.copy))
            return original(target, **options)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = original


@contextmanager
def _without_multi_agent() -> Iterator[None]:
    """Patch 2: the multi-agent module is a stand-in within the block."""

    def make_ma(*_: Any, **__: Any) -> None:
        raise NotImplementedError("multi-agent tasks are not supported")

    stand_in = types.ModuleType(_MULTI_AGENT)
    vars(stand_in)["make_ma"] = make_ma
    sys.modules[_MULTI_AGENT] = stand_in
    try:
        yield
    finally:
        del sys.modules[_MULTI_AGENT]


class _ModelView:
    """A MuJoCo model whose joints can also be looked up by a one-element array."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def jnt(self, index: np.ndarray | int) -> Any:
        return self._model.jnt(int(np.asarray(index).item()))


def _accept_array_indices(agent_class: Any) -> None:
    """Patch 3: `_init_jnt_sensors` reads the model through `_ModelView`."""
    original: Callable[[Any], None] = agent_class._init_jnt_sensors

    def init_jnt_sensors(self: Any) -> None:
        engine = self.engine
        self.engine = types.SimpleNamespace(model=_ModelView(engine.model), data=engine.data)
        try:
            original(self)
        finally:
            self.engine = engine

    agent_class._init_jnt_sensors = init_jnt_sensors
