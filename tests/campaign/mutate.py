"""Seeded mutations of files: bytes, the arrays of a dataset, the parts of a checkpoint, text."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

Mutation = Callable[[Path, random.Random], str]  # changes a file, says what it did

ODD_TEXT = ("", "x" * 60_000, "\x00", "ü\n" * 50, "../../etc/passwd", "nan", "-1", "evil:Env", "{}")
ODD_NUMBERS = (0, -1, 1, 3, 2**31, 2**63 - 1, 2**64, 10**19, 10**400, 0.5, 1e308, -1e-300)
ODD_VALUES = (None, True, [], {}, [[]], float("nan"), float("inf"), *ODD_NUMBERS, *ODD_TEXT)


def change_bytes(path: Path, rng: random.Random) -> str:
    """Flip, cut, overwrite, insert or repeat some bytes."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "cut", "zeros", "noise", "insert", "repeat", "empty"))
    place, length = rng.randrange(len(content) + 1), rng.choice((1, 16, 700))
    if kind == "flip":
        for _ in range(rng.choice((1, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "empty":
        content.clear()
    elif kind == "zeros":
        content[place : place + length] = bytes(length)
    elif kind == "noise":
        content[place : place + length] = rng.randbytes(length)
    elif kind == "insert":
        content[place:place] = rng.randbytes(length)
    else:
        content[place:place] = content[place : place + length]
    path.write_bytes(content)
    return f"{kind} at {place}"


def change_dataset(path: Path, rng: random.Random) -> str:
    """Change a key, an array, an attribute, or where the data of a dataset lie."""
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        name = rng.choice(names)
        return rng.choice(DATASET_CHANGES)(file, name, path, rng)


def _drop(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    del file[name]
    return f"{name} removed"


def _values(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    data = file[name]
    odd = rng.choice((0, 1, 2, -1, 300, 1e30, np.nan, np.inf))
    place = rng.randrange(max(len(data), 1))
    with np.errstate(invalid="ignore", over="ignore"):
        data[place] = np.asarray(odd).astype(data.dtype)
    return f"{name}[{place}] = {odd}"


def _retype(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    values, kind = file[name][()], rng.choice(("float64", "float16", "int8", "uint64", "S3", "c8"))
    del file[name]
    with np.errstate(invalid="ignore", over="ignore"):
        file[name] = values.astype(kind)
    return f"{name} as {kind}"


def _reshape(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    values, kind = file[name][()], rng.choice(("flat", "short", "long", "extra", "empty", "scalar"))
    del file[name]
    file[name] = {
        "flat": values.reshape(-1),
        "short": values[:-1],
        "long": np.concatenate([values, values]),
        "extra": values[..., None],
        "empty": values[:0],
        "scalar": 1.0,
    }[kind]
    return f"{name} {kind}"


def _attribute(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    key = rng.choice(list(file.attrs))
    odd = rng.choice(
        (None, 0, -1, 2**63 - 1, 1.5, "", "x" * 30_000, "[" * 20_000, "{}", [1, 2], "ü")
    )
    del file.attrs[key]
    if odd is not None:
        file.attrs[key] = odd
    return f"attribute {key} = {odd!r:.40}"


def _door(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    kind = rng.choice(("external link", "virtual", "external storage", "loop", "soft"))
    shape, dtype = file[name].shape, file[name].dtype
    other = path.with_name("other.h5")
    shutil.copy(path, other) if not other.exists() else None
    del file[name]
    if kind == "external link":
        file[name] = h5py.ExternalLink("other.h5", name)
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("other.h5", name, shape, dtype)
        file.create_virtual_dataset(name, layout)
    elif kind == "external storage":
        size = int(np.prod(shape)) * dtype.itemsize
        file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, size)])
    elif kind == "loop":
        file[name] = file["/"]
    else:
        file[name] = h5py.SoftLink(rng.choice(("/nowhere", f"/{name}", "/images")))
    return f"{name} is a {kind}"


def _giant(file: h5py.File, name: str, path: Path, rng: random.Random) -> str:
    data = file[name]
    shape = tuple(rng.choice((size, 10**6, 20_000)) for size in data.shape)
    chunks = tuple(min(size, 64) for size in shape)
    dtype = data.dtype
    del file[name]
    file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip")
    return f"{name} of shape {shape}"


DATASET_CHANGES = (
    _drop,
    _values,
    _values,
    _retype,
    _reshape,
    _attribute,
    _attribute,
    _door,
    _giant,
)


def change_checkpoint(path: Path, rng: random.Random) -> str:
    """Replace, remove or add a part, somewhere in its tree."""
    state = torch.load(path, weights_only=True)
    node, where = state, ""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return "nothing"
        key = rng.choice(keys)
        inner = node[key]
        where += f"/{key}"
        deep = isinstance(inner, dict | list) and len(inner)
        if not deep or rng.random() < 0.25:
            break
        node = inner
    kind = rng.choice(("remove", "value", "value", "add", "tensor"))
    if kind == "remove":
        del node[key]
    elif kind == "add" and isinstance(node, dict):
        node["more"] = rng.choice(ODD_VALUES)
    else:
        odd = _odd_tensor(inner, rng) if kind == "tensor" else rng.choice(ODD_VALUES)
        node[key] = odd
        where += f" = {odd!r:.40}"
    torch.save(state, path)
    return f"{kind} {where}"


def _odd_tensor(like: Any, rng: random.Random) -> torch.Tensor:
    x = like if isinstance(like, torch.Tensor) else torch.zeros(2, 3)
    return rng.choice(
        (
            lambda: x.flatten(),
            lambda: x.long(),
            lambda: x.to(torch.complex64),
            lambda: x.unsqueeze(0),
            lambda: x.new_zeros(0),
            lambda: torch.zeros(1).expand(10**10),
            lambda: torch.zeros(2, 2).to_sparse(),
            lambda: x.bool(),
            lambda: x.double(),
        )
    )()


def change_text(path: Path, rng: random.Random) -> str:
    """Change text of JSON or YAML: a value, the depth, the digits, the encoding."""
    text = path.read_text()
    words = text.replace(",", " ").split()
    word = rng.choice(words) if words else ""
    kind = rng.choice(("value", "deep", "digits", "bytes", "alias", "drop", "twice", "line"))
    new = {
        "value": text.replace(word, rng.choice(ODD_TEXT), 1),
        "deep": text.replace(word, "[" * rng.choice((50, 5000, 50_000)), 1),
        "digits": text.replace(word, "9" * rng.choice((20, 400, 5000)), 1),
        "bytes": text,
        "alias": f"a: &a [1, 2]\nb: [*a, *a]\n{text}",
        "drop": text.replace(word, "", 1),
        "twice": text + text,
        "line": f"{json.dumps(rng.choice(ODD_TEXT))}\n{text}",
    }[kind]
    path.write_bytes(new.encode("utf-8", "surrogateescape"))
    if kind == "bytes":
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content) + 1) : 0] = b"\xff\xfe"
        path.write_bytes(content)
    return f"{kind} at {word[:40]!r}"


def change_place(path: Path, rng: random.Random) -> str:
    """Remove a file, or put something else in its place."""
    kind = rng.choice(("removed", "folder", "loop", "dangling"))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    return kind
