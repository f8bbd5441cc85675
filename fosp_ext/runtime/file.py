"""The file of an exported policy: an ONNX graph whose metadata say what it was trained for.

`KEY` of the metadata is a JSON object with the fields of `PolicyFacts`, `DIGEST` the SHA-256 of the
whole file in which that digest is replaced by zeros.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamer.errors import UserError

KEY, DIGEST = "fosp_policy", "fosp_sha256"
FORMAT = 1
BLANK = "0" * 64  # where the digest will stand


@dataclass(frozen=True)
class PolicyFacts:
    """What whoever acts with the policy has to know."""

    format: int
    task: str
    cameras: tuple[str, ...]  # images of each are (size, size, 3) uint8
    size: int
    action_size: int  # numbers of an action, each in [-1, 1]
    action_scale: tuple[float, ...]  # share of the robot's range that they cover
    rate: float | None  # actions per second; None: unknown
    latent: tuple[tuple[int, ...], tuple[int, ...]]  # shapes of deterministic and stochastic state
    estimates: tuple[str, ...]  # outputs beside action and state
    warning: float  # violation probability above which a step is a warning
    calibration: dict[str, Any] | None  # how `warning` was chosen; None: it is the setting
    updates: int  # that the agent has learned
    provenance: dict[str, Any]  # run, dataset, versions

    def to_json(self) -> str:
        """The text for the metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PolicyFacts:
        """The inverse; a text of another format is a `ValueError`, `TypeError` or `KeyError`."""
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, this version reads {FORMAT}")
        for name in ("cameras", "action_scale", "estimates"):
            values[name] = tuple(values[name])
        values["latent"] = tuple(tuple(shape) for shape in values["latent"])
        return cls(**values)


def seal(blank: bytes) -> bytes:
    """The file with its digest in place of the zeros, which must occur once."""
    marked = BLANK.encode()
    assert blank.count(marked) == 1, "the metadata hold one blank digest"
    return blank.replace(marked, hashlib.sha256(blank).hexdigest().encode())


def check_seal(content: bytes, digest: str, path: Path) -> None:
    """Refuse a file that is not as it was written."""
    if len(digest) == len(BLANK) and content.count(digest.encode()) == 1:
        blank = content.replace(digest.encode(), BLANK.encode())
        if hashlib.sha256(blank).hexdigest() == digest:
            return
    raise UserError(f"{path} was altered after it was exported; export it again")


def read_facts(metadata: dict[str, str], path: Path) -> PolicyFacts:
    """The facts in the metadata of an ONNX file; one that is not ours is a `UserError`."""
    if KEY not in metadata or DIGEST not in metadata:
        raise UserError(f"{path} is no exported policy; python -m fosp_ext.export writes one")
    try:
        return PolicyFacts.from_json(metadata[KEY])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: its metadata cannot be read ({error})") from error
