"""Checkpoints that are whole or absent, hold plain types only, and carry the random state."""

from __future__ import annotations

import errno
import random
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer.errors import UserError, shown
from dreamer.files import atomic_path, read_text, write_text

FORMAT_VERSION = 1
POINTER = "latest"
CANNOT_WRITE = "writing failed; the disk is full, or no file may be so large"
NAME = re.compile(r"step_(\d{9,})\.pt")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # types of weights
PLAIN = (torch.Tensor, str, int, float, bool, type(None))


class Checkpoint:
    """A folder of `step_<updates>.pt` files and a file `latest` that names the newest."""

    def __init__(self, folder: str | Path, keep_last: int) -> None:
        """Keep the newest `keep_last` files."""
        self.folder, self._keep_last = Path(folder), keep_last

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write `state` (nested dicts and lists of tensors and plain values) at update `step`."""
        path = self.folder / f"step_{step:09d}.pt"
        self.write(path, step, state)
        with atomic_path(self.folder / POINTER) as part:
            write_text(part, f"{path.name}\n")
        older = [file for file in self._files() if _step(file) <= step]
        for file in older[: -self._keep_last]:
            file.unlink()
        return path

    @staticmethod
    def write(path: Path, step: int, state: dict[str, Any]) -> None:
        """Write one file that `load` reads, whole or not at all; a full disk is an `OSError`."""
        _check_plain(state, "state")
        with atomic_path(path) as part:
            part.open("wb").close()  # where that is forbidden, Python says why
            try:
                torch.save({**state, "format_version": FORMAT_VERSION, "step": step}, part)
            except RuntimeError as error:  # torch does not say what the disk said
                raise OSError(errno.EIO, CANNOT_WRITE, str(path)) from error

    def latest(self) -> Path | None:
        """The file to continue from, or nothing; `latest` counts while it names one that exists."""
        pointer = self.folder / POINTER
        if pointer.is_file():
            try:
                name = read_text(pointer).strip()
            except UserError:  # damaged
                name = ""
            if NAME.fullmatch(name) and (self.folder / name).is_file():
                return self.folder / name
        return next(reversed(self._files()), None)

    @staticmethod
    def load(path: str | Path) -> dict[str, Any]:
        """The saved state with its `step`, on the CPU; a damaged file is a `UserError`.

        A file that may not be read is an `OSError`.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no checkpoint {path}")
        path.open("rb").close()
        try:
            state = _read(path)
        except ValueError as error:
            raise UserError(f"checkpoint {path} cannot be read{_older_hint(path)}") from error
        version = state.get("format_version") if isinstance(state, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            raise UserError(
                f"checkpoint {path} has format_version {shown(version)}, "
                f"this program reads {FORMAT_VERSION}"
            )
        return state

    def _files(self) -> list[Path]:
        """Saved files from old to new."""
        files = [file for file in self.folder.glob("step_*.pt") if NAME.fullmatch(file.name)]
        return sorted(files, key=_step)


def rng_state() -> dict[str, Any]:
    """Every global generator as plain types and tensors."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (the global one is the point)
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            **{key: numpy_state[key] for key in ("bit_generator", "has_gauss", "gauss")},
            "key": numpy_state["state"]["key"].tolist(),
            "pos": int(numpy_state["state"]["pos"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every generator back; CUDA ones only where as many devices exist as before.

    A state that is none is a `UserError`.
    """
    try:
        _set_rng_state(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise UserError("the checkpoint's state of the random generators is damaged") from e


def _set_rng_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = dict(state["numpy"])
    key = np.array(numpy_state.pop("key"), dtype=np.uint32)
    np.random.set_state(  # noqa: NPY002
        {**numpy_state, "state": {"key": key, "pos": numpy_state.pop("pos")}}
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def _check_plain(value: Any, where: str) -> None:
    """Only what `torch.load(weights_only=True)` gives back."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in PLAIN and not isinstance(value, torch.Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold plain values only")


def _read(path: Path) -> Any:
    """What a file holds; one that cannot be read is a `ValueError`."""
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of a reader that meets anything
        raise ValueError(str(error)) from error


def _check_sums(path: Path) -> None:
    """Torch does not compare the checksums of its archive, so a flipped bit would go unseen."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ValueError("more would be unpacked than the file holds")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    if damaged is not None:
        raise ValueError(f"checksum of {damaged}")


def not_finite(weights: Mapping[str, Any]) -> str:
    """The name of a tensor with a NaN or an infinite number; empty where all are finite."""
    for name, value in weights.items():
        if is_dense(value) and not bool(torch.isfinite(value).all()):
            return str(name)
    return ""


def is_dense(value: Any) -> bool:
    """Is it a tensor of `FLOATS` that holds all its numbers, which no sparse one does?"""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype in FLOATS
        and value.layout == torch.strided
        and value.device.type != "meta"
        and value.nbytes <= value.untyped_storage().nbytes()  # or one number would stand for many
    )


def check_sound(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse the state of a checkpoint file whose weights or whose step cannot be right."""
    fault = _fault(state)
    if fault:
        raise UserError(f"checkpoint {path} has {fault}{_older_hint(path)}")


def _fault(state: Mapping[str, Any]) -> str:
    step, weights = state.get("step"), state.get("agent", {})
    if type(step) is not int or step < 0:
        return f"the impossible step {step!r:.40}"
    broken = not_finite(weights) if isinstance(weights, Mapping) else ""
    return f"weights that are not finite, {broken}" if broken else ""


def _older_hint(path: Path) -> str:
    others = [file for file in path.parent.glob("step_*.pt") if NAME.fullmatch(file.name)]
    for other in sorted(others, key=_step, reverse=True):
        if other.name == path.name:
            continue
        try:
            state = _read(other)
        except ValueError:
            continue
        if isinstance(state, dict) and "step" in state and not _fault(state):
            hint = "is intact, remove the damaged file to continue from there"
            return f"; {other.name} beside it {hint}"
    return " and there is no intact one beside it"


def _step(path: Path) -> int:
    name = NAME.fullmatch(path.name)
    assert name is not None, path
    return int(name[1])
