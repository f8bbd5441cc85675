"""Import Safety-Gymnasium 1.0.0 with today's Python, numpy, gymnasium and MuJoCo.

The release of 2023 was written for Python up to 3.10, numpy 1 and gymnasium 0.28. Three things
stand in its way, each mended in memory and only for its own modules; nothing on disk changes:

1. Its dataclasses have numpy arrays as defaults, "mutable defaults" that Python refuses since 3.11.
   While its modules are imported, an array default is turned into a default factory.
2. Importing it registers its environments with wrappers that gymnasium 1.0 removed, and imports a
   multi-agent module that needs gymnasium-robotics and pettingzoo. We make its tasks with its
   `Builder` and use none of that, so the package's own `__init__` is not run: the package is there
   as the parent of its modules, without `make`.
3. It looks up joints by one-element arrays, which numpy 2.4 no longer turns into an index. The one
   method that does so sees the model through a view that accepts them.

It pins old versions of its dependencies, so it has to be installed with `pip install --no-deps`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fosp_ext.envs.gl import choose_backend

_PACKAGE = "safety_gymnasium"


def import_safety_gymnasium() -> types.ModuleType:
    """The module `safety_gymnasium.builder`, ready to use. Chooses the OpenGL library as well."""
    choose_backend()
    builder = f"{_PACKAGE}.builder"
    if builder in sys.modules:
        return sys.modules[builder]
    if _PACKAGE not in sys.modules:
        sys.modules[_PACKAGE] = _empty_package()
    with _array_defaults():
        module = importlib.import_module(builder)
    _accept_array_indices(importlib.import_module(f"{_PACKAGE}.bases.base_agent").BaseAgent)
    return module


def _empty_package() -> types.ModuleType:
    """Patch 2: the package with its path, before its `__init__` is run."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{_PACKAGE}'", name=_PACKAGE)
    return importlib.util.module_from_spec(spec)


@contextmanager
def _array_defaults() -> Iterator[None]:
    """Patch 1: `@dataclass` accepts numpy arrays as defaults within the block."""
    original = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """As the original; a default that is an array is copied for each instance."""

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
