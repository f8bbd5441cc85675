"""DreamerV3's replay folders of npz chunks, in which FOSP's data come.

See docs/reference/data_format.md.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.errors import DatasetError, UserError
from dreamer.outputs import refuse_existing
from fosp_ext.dataset.conversion_plan import plan_conversion
from fosp_ext.dataset.exchange import (
    NOTE,
    OPEN,
    SIMULATED,
    Found,
    Labels,
    Recorded,
    Source,
    atomic_folder,
    camera_names,
    check_actions,
    is_vector,
    note_of,
    parse_note,
)

NAME = re.compile(r"(?P<time>\w+)-(?P<own>\w+)-(?P<next>\w+)-(?P<rows>\d+)\.npz")
NOTE_FILE = f"{NOTE}.json"  # beside the chunks; DreamerV3 reads only *.npz
ROWS = 1024  # of a full chunk
NO_SUCCESSOR = "0" * 22  # the successor of a stream's last chunk
KEYS = ("action", "reward", "is_first", "is_last", "is_terminal")
COST = "cost"  # may be missing
NO_OBSERVATIONS = ("reset", "id", "consec", "stepid")  # rows have them beside `KEYS`
LATE = "episodes that began before the first chunk, kept from there on"
SHORT = "episodes of a single row, which hold no transition, left out"


class Chunk(NamedTuple):
    """A file of consecutive rows of one environment."""

    path: Path
    own: str  # its id
    next: str  # id of the chunk that goes on
    rows: int  # arrays in the file may be longer; what follows is not data


class Piece(NamedTuple):
    """The rows `begin` to `end` of the chunks of one stream: one episode."""

    stream: list[Chunk]
    begin: int
    end: int


def read_dreamer(path: Path, labels: Labels) -> Source:
    """Episodes of a folder of chunks, those of each stream in order.

    Row t holds image t, the reward and cost that came with it, and the action taken at it.
    """
    streams = _streams(path)
    first = _load(streams[0][0].path)
    observed = {key: value for key, value in sorted(first.items()) if _is_observed(key)}
    images = {key: value.shape for key, value in observed.items() if _is_image(value)}
    if not images:
        raise UserError(f"{path} has no images, only {', '.join(sorted(first))}")
    note_file = path / NOTE_FILE
    note = parse_note(note_file, note_file.read_bytes()) if note_file.exists() else {}
    noted = note.get("info")
    names = camera_names(images, labels.task)
    if isinstance(noted, dict) and isinstance(noted.get("cameras"), list):
        names |= {key: camera for camera, key in _their_keys(noted["cameras"]).items()}
    vectors = {
        key: value[0].size for key, value in observed.items() if is_vector(value.shape, value.dtype)
    }
    found = Found(
        images=images,
        names=names,
        action_size=check_actions(path, first["action"].shape),
        has_costs=COST in first,
        vectors=vectors,
        others=tuple(key for key in observed if key not in images and key not in vectors),
    )
    plan = plan_conversion(path, found, noted, labels)
    pieces = [piece for stream in streams for piece in _pieces(stream)]
    needed = (*plan.cameras.values(), *plan.vectors.values(), *([COST] if found.has_costs else []))
    played = note.get("episodes", [[labels.policy or "unknown", 0]] * len(pieces))
    if len(played) != len(pieces):
        raise DatasetError(
            f"{note_file} names {len(played)} episodes, the chunks beside it hold {len(pieces)}"
        )
    return plan.source(len(pieces), _episodes(path, pieces, needed, played, plan.remarks))


def write_dreamer(path: Path, info: DatasetInfo, episodes: Iterator[Episode]) -> None:
    """All episodes as one stream of chunks, and a note of what chunks have no place for."""
    refuse_existing(path)
    played = []
    with atomic_folder(path) as folder:
        writer = _Writer(folder)
        keys = _their_keys(info.cameras)
        for episode in episodes:
            writer.add(_rows(episode, keys))
            played.append([episode.policy, episode.seed])
        writer.close()
        note = {"info": note_of(info), "episodes": played}
        (folder / NOTE_FILE).write_text(json.dumps(note))


class _Writer:
    """Cuts rows into full chunks; each file is named after the one that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, datetime.now()
        self.own = _new_id()
        self.waiting: list[dict[str, np.ndarray]] = []

    def add(self, rows: dict[str, np.ndarray]) -> None:
        self.waiting.append(rows)
        while sum(len(part["reward"]) for part in self.waiting) > ROWS:
            merged = self._merged()
            self._save({key: value[:ROWS] for key, value in merged.items()}, _new_id())
            self.waiting = [{key: value[ROWS:] for key, value in merged.items()}]

    def close(self) -> None:
        self._save(self._merged(), NO_SUCCESSOR)

    def _merged(self) -> dict[str, np.ndarray]:
        return {key: np.concatenate([p[key] for p in self.waiting]) for key in self.waiting[0]}

    def _save(self, rows: dict[str, np.ndarray], successor: str) -> None:
        time = self.time.strftime("%Y%m%dT%H%M%SF%f")
        name = f"{time}-{self.own}-{successor}-{len(rows['reward'])}.npz"
        arrays: dict[str, Any] = dict(rows)
        np.savez_compressed(self.folder / name, **arrays)
        self.own, self.time = successor, self.time + timedelta(microseconds=1)


def _new_id() -> str:
    """An id that DreamerV3 reads: 22 digits to the base 62; those of base 16 are among them."""
    return f"{uuid.uuid4().int >> 48:022x}"


def _their_keys(cameras: Sequence[str]) -> dict[str, str]:
    """Camera -> key in a chunk. FOSP calls the simulator's cameras `image` and `image2`."""
    theirs = {camera: key for key, camera in SIMULATED.items()}
    return {
        camera: theirs[camera] if camera in theirs and theirs[camera] not in cameras else camera
        for camera in cameras
    }


def _rows(episode: Episode, keys: dict[str, str]) -> dict[str, np.ndarray]:
    """T transitions -> T + 1 rows."""
    T = episode.length
    edge = np.arange(T + 1)
    zero = np.zeros(1, np.float32)
    return {
        **{keys[name]: frames for name, frames in episode.images.items()},
        **episode.vectors,
        "action": np.concatenate([episode.action, np.zeros((1, episode.action.shape[1]), "f4")]),
        "reward": np.concatenate([zero, episode.reward]),
        COST: np.concatenate([zero, episode.cost]),
        "is_first": edge == 0,
        "is_last": edge == T,
        "is_terminal": (edge == T) & episode.terminated,
        "reset": edge == T,
    }


def _streams(folder: Path) -> list[list[Chunk]]:
    """The chunks of each environment in order. Of two versions of a chunk, the longer one."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of chunks")
    chunks: dict[str, Chunk] = {}
    for path in sorted(folder.glob("*.npz")):
        name = NAME.fullmatch(path.name)
        if not name:
            raise DatasetError(f"{path} is not named <time>-<id>-<next id>-<rows>.npz")
        chunk = Chunk(path, name["own"], name["next"], int(name["rows"]))
        if chunk.own not in chunks or chunks[chunk.own].rows < chunk.rows:
            chunks[chunk.own] = chunk
    if not chunks:
        raise UserError(f"{folder} holds no chunks (*.npz)")
    followers = {chunk.next for chunk in chunks.values()}
    streams = []
    for chunk in [chunk for chunk in chunks.values() if chunk.own not in followers]:
        stream: list[Chunk] = []
        follower: Chunk | None = chunk
        while follower:
            stream.append(follower)
            follower = chunks.get(follower.next)
        streams.append(stream)
    if sum(map(len, streams)) != len(chunks):
        raise DatasetError(f"{folder}: the chunks' names form a circle")
    return streams


def _load(path: Path, only: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a chunk, all or these."""
    rows = int(path.stem.split("-")[3])
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (only or file.files)}
    except KeyError as error:
        raise DatasetError(f"{path}: {error.args[0]}") from error
    except Exception as error:  # NumPy, zip and zlib have some ten kinds for damaged bytes
        raise DatasetError(f"{path} cannot be read, it seems damaged ({error})") from error
    for key in only or KEYS:
        if key not in arrays:
            raise DatasetError(f"{path}: '{key}' is missing")
        if len(arrays[key]) < rows:
            raise DatasetError(f"{path}: '{key}' has {len(arrays[key])} rows, not {rows}")
    return {key: value[:rows] for key, value in arrays.items() if value.ndim}


def _is_image(value: np.ndarray) -> bool:
    return value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] == 3


def _is_observed(key: str) -> bool:
    """Whether a key of a chunk is a part of the observation."""
    known = (*KEYS, COST, *NO_OBSERVATIONS)
    return key not in known and not key.startswith("log_") and "/" not in key


def _pieces(stream: list[Chunk]) -> Iterator[Piece]:
    """The episodes of a stream: they begin where one says so and after each end."""
    flags = [_load(chunk.path, ("is_first", "is_last")) for chunk in stream]
    first = np.concatenate([part["is_first"] for part in flags]).astype(bool)
    last = np.concatenate([part["is_last"] for part in flags]).astype(bool)
    starts = np.flatnonzero(first | np.append(True, last[:-1]))
    for begin, end in zip(starts, np.append(starts[1:], len(first)), strict=True):
        yield Piece(stream, int(begin), int(end))


def _take(piece: Piece, load: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of an episode, which may lie in several chunks."""
    parts, offset = [], 0
    for chunk in piece.stream:
        begin, end = max(piece.begin - offset, 0), min(piece.end - offset, chunk.rows)
        if begin < end:
            parts.append({key: value[begin:end] for key, value in load(chunk.path).items()})
        offset += chunk.rows
    keys = set.intersection(*(set(part) for part in parts))
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def _episodes(
    folder: Path,
    pieces: list[Piece],
    needed: Sequence[str],
    played: list[Any],
    remarks: Counter[str],
) -> Iterator[Recorded]:
    load = lru_cache(maxsize=1)(_load)  # episodes come in order: each chunk is decoded once
    for index, (piece, (policy, seed)) in enumerate(zip(pieces, played, strict=True)):
        rows = _take(piece, load)
        if len(rows["reward"]) < 2:
            remarks[SHORT] += 1
            continue
        _check_alignment(folder, index, rows)
        remarks[LATE] += int(not rows["is_first"][0])
        remarks[OPEN] += int(not rows["is_last"][-1])
        missing = [key for key in needed if key not in rows]
        if missing:
            raise DatasetError(f"{folder}, episode {index}: '{missing[0]}' is missing")
        yield Recorded(
            images=rows,
            vectors=rows,
            action=rows["action"][:-1],
            reward=rows["reward"][1:],
            cost=rows[COST][1:] if COST in needed else None,
            terminated=bool(rows["is_terminal"][-1]),
            policy=str(policy),
            seed=int(seed),
            arrays=rows,
        )


def _check_alignment(folder: Path, index: int, rows: dict[str, np.ndarray]) -> None:
    """Refuse rows that hold the action which led to their image, as other programs write them."""
    complete = rows["is_first"][0] and rows["is_last"][-1]
    if complete and np.any(rows["action"][-1]) and not np.any(rows["action"][0]):
        raise DatasetError(
            f"{folder}, episode {index}: its first action is zero and its last is not, so a row "
            "seems to hold the action before its image; DreamerV3 stores the one after it"
        )
