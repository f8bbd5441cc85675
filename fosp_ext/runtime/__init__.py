"""A trained policy without PyTorch and simulator: needs numpy and onnxruntime alone.

`fosp_ext.export RUN --out FILE.onnx` writes the files; docs/reference/runtime.md says how to act.
"""

from __future__ import annotations

from fosp_ext.runtime.file import FORMAT, PolicyFacts
from fosp_ext.runtime.policy import Decision, ObservationError, Policy

__all__ = ["FORMAT", "Decision", "ObservationError", "Policy", "PolicyFacts"]
