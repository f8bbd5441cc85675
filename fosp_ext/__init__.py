"""What FOSP adds to the Dreamer agent: safety from offline data to online fine-tuning.

The names below are for programs and notebooks; docs/reference/python.md describes them. They are
imported when they are first asked for, so that `import fosp_ext` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fosp_ext.acting import ActingAgent, Step, load
    from fosp_ext.api import configure, evaluate, train
    from fosp_ext.hub import from_hub, push_to_hub

__all__ = [
    "ActingAgent",
    "Step",
    "configure",
    "evaluate",
    "from_hub",
    "load",
    "push_to_hub",
    "train",
]
_MODULES = {
    "fosp_ext.acting": ("ActingAgent", "Step", "load"),
    "fosp_ext.api": ("configure", "evaluate", "train"),
    "fosp_ext.hub": ("from_hub", "push_to_hub"),
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` from its module."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
