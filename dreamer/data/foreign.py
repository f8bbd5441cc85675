"""Doors of an HDF5 file that lead out of it, and sizes that no memory holds: refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np

from dreamer.errors import DatasetError, shown

LARGEST_CHUNK = 2**30  # bytes that are unpacked at once, to read anything of it
LARGEST_SIDE = 2048  # pixels of an image
MOST_PACKED = 1100  # bytes in one of a file: deflate packs at most 1032
SHARE = 0.8  # of the free memory that arrays may take


def refuse_doors(file: h5py.File, path: Path) -> None:
    """Refuse links to other files, virtual datasets and raw data that lie in other files.

    HDF5 would follow them while it reads. Only links and headers are read here.
    """
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = {file.id.__hash__()}
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            full = f"{prefix}{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise DatasetError(
                    f"{path}: {shown(full)} is an external link, to {shown(link.filename)}; "
                    "links to other files are not followed"
                )
            if isinstance(link, h5py.SoftLink):
                continue  # to a place in this file, which is met by itself
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _refuse_storage(item, full, path)
            elif isinstance(item, h5py.Group) and item.id.__hash__() not in seen:
                seen.add(item.id.__hash__())
                waiting.append((f"{full}/", item))


def require_memory(arrays: dict[str, h5py.Dataset], path: Path) -> None:
    """Refuse arrays that together do not fit into memory, before one is read."""
    from dreamer.data.memory import free_memory  # which plans with valid files, and imports this

    needed, free = sum(data.size * data.dtype.itemsize for data in arrays.values()), free_memory()
    if free is not None and needed > SHARE * free:
        raise DatasetError(
            f"{path}: the arrays {', '.join(arrays)} take {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free"
        )


def require_unpacked(path: Path) -> None:
    """Refuse a zip archive whose parts do not fit into memory, before one is unpacked."""
    from dreamer.data.memory import free_memory

    with zipfile.ZipFile(path) as archive:
        needed, free = sum(entry.file_size for entry in archive.infolist()), free_memory()
    if free is not None and needed > SHARE * free:
        raise DatasetError(
            f"{path} unpacks to {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free"
        )


def refuse_giants(data: h5py.Dataset, name: str, path: Path) -> None:
    """Refuse images (N, height, width, 3) too large to be anyone's."""
    if max(data.shape[1:3]) > LARGEST_SIDE:
        size = "x".join(map(str, data.shape[1:3]))
        raise DatasetError(
            f"{path}: '{name}' has images of {size} pixels; at most {LARGEST_SIDE} can be read"
        )


def require_stored(data: h5py.Dataset, name: str, path: Path) -> None:
    """Refuse images of which a file says that they are there, and has no room for them."""
    size = path.stat().st_size
    if data.size > MOST_PACKED * size:
        raise DatasetError(
            f"{path}: '{name}' would be {data.size / 2**30:.1f} GiB and the file has "
            f"{size / 2**20:.2f} MiB: most of it was never written"
        )


def _refuse_storage(data: h5py.Dataset, name: str, path: Path) -> None:
    layout = data.id.get_create_plist().get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise DatasetError(
            f"{path}: {shown(name)} is a virtual dataset, whose data lie in other places; "
            "copy them into one file"
        )
    if data.external:
        raise DatasetError(
            f"{path}: {shown(name)} has external storage, in {shown(data.external[0][0])}; "
            "copy its data into the file"
        )
    if data.chunks is not None:
        chunk = int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize
        if chunk > LARGEST_CHUNK:
            raise DatasetError(
                f"{path}: {shown(name)} has chunks of {chunk / 2**30:.1f} GiB; write it anew "
                "with smaller ones"
            )
