"""Replay of the agent's own episodes, and batches that mix them with a dataset."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from dreamer.data.augment import Augmentation, unchanged
from dreamer.data.episode import Episode
from dreamer.data.rows import empty_batch, episode_rows
from dreamer.data.store import RowStore
from dreamer.data.stream import require_window
from dreamer.types import Batch


class _Recorded(NamedTuple):
    """One episode as rows."""

    stream: int
    obs: dict[str, np.ndarray]  # camera or vector -> (rows, ...)
    small: dict[str, np.ndarray]  # name -> (rows, ...) float32

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.small["reward"])


class EpisodeStore:
    """Finished episodes of several streams, in memory; with too many rows the oldest leave first.

    A stream is what one environment recorded, episode after episode. Rows are those of `RowStore`:
    an episode of T transitions has T + 1. Episodes leave as a whole, and the oldest of all is the
    oldest of its stream, so what stays of a stream has no gap.
    """

    def __init__(self, capacity: int) -> None:
        """Keep at most `capacity` rows; a single episode that is longer stays until the next."""
        self._capacity = capacity
        self._episodes: deque[_Recorded] = deque()  # oldest first
        self._arrange()

    def add(self, stream: int, episode: Episode) -> None:
        """Append a finished episode to its stream; its images are kept, not copied."""
        obs = {**episode.images, **episode.vectors}
        self._episodes.append(_Recorded(stream, obs, episode_rows(episode)))
        excess = len(self) + episode.length + 1 - self._capacity
        while excess > 0 and len(self._episodes) > 1:
            excess -= self._episodes.popleft().rows
        self._arrange()

    def __len__(self) -> int:
        """Rows."""
        return int(self._stream_rows.sum())

    @property
    def episodes(self) -> int:
        """Episodes."""
        return len(self._episodes)

    def starts(self, T: int) -> int:
        """Number of windows of T rows; none runs from one stream into another."""
        return int(self._starts(T).sum())

    def windows(self, indices: Sequence[int] | np.ndarray, T: int, pinned: bool = False) -> Batch:
        """B of the `starts(T)` windows, (B, T, ...); each begins like an episode.

        They are counted stream by stream, oldest first. They run over episode ends (`is_first`
        marks them). `pinned` puts the images into page-locked memory, as `RowStore.windows` does.
        """
        batch = self.empty(len(indices), T, pinned)
        self.fill_(batch, indices)
        return batch

    def openings(self, T: int, count: int) -> Batch:
        """The first T rows of the first `count` episodes that have so many, (B, T, ...).

        T is less where all episodes are shorter.
        """
        rows = np.diff(self._ends, prepend=0)
        T = min(T, int(rows.max()))
        firsts = (self._ends - rows)[rows >= T][:count]
        batch = self.empty(len(firsts), T)
        self._fill(batch, firsts)
        return batch

    def empty(self, B: int, T: int, pinned: bool = False) -> Batch:
        """Room for B windows of T rows with images like those of the newest episode."""
        newest = self._episodes[-1]
        return empty_batch(B, T, newest.obs, newest.small["action"].shape[1], pinned)

    def fill_(self, batch: Batch, indices: Sequence[int] | np.ndarray) -> None:
        """Write these windows into a batch (B, T, ...), with its cameras."""
        self._fill(batch, self._first_rows(indices, batch.reward.shape[1]))

    def _fill(self, batch: Batch, firsts: np.ndarray) -> None:
        """Write the windows (B, T, ...) that begin at these rows."""
        T = batch.reward.shape[1]
        for number, first in enumerate(firsts.tolist()):
            for rows, recorded, source in self._window(first, T):
                for name, values in batch.obs.items():
                    values.numpy()[number, rows] = recorded.obs[name][source]
                for key, value in recorded.small.items():
                    getattr(batch, key).numpy()[number, rows] = value[source]
        batch.is_first[:, 0] = 1

    def _arrange(self) -> None:
        """Number all rows through, stream after stream, the oldest of each stream first."""
        self._ordered = sorted(self._episodes, key=lambda recorded: recorded.stream)  # stable
        lengths = [recorded.rows for recorded in self._ordered]
        self._ends = np.cumsum(lengths, dtype=np.int64)  # row after each episode's last, (E,)
        rows: Counter[int] = Counter()
        for recorded, length in zip(self._ordered, lengths, strict=True):
            rows[recorded.stream] += length
        self._stream_rows = np.array(list(rows.values()), np.int64)  # (streams,)

    def _starts(self, T: int) -> np.ndarray:
        """Windows in each stream, (streams,)."""
        return np.maximum(self._stream_rows - T + 1, 0)

    def _first_rows(self, indices: Sequence[int] | np.ndarray, T: int) -> np.ndarray:
        """The first rows of these windows, (B,)."""
        indices, starts = np.asarray(indices), self._starts(T)
        assert 0 <= indices.min() <= indices.max() < starts.sum(), (indices, T, starts)
        stream = np.searchsorted(np.cumsum(starts), indices, side="right")  # (B,)
        barren = self._stream_rows - starts  # rows at a stream's end from which no window fits
        return indices + (np.cumsum(barren) - barren)[stream]

    def _window(self, first: int, T: int) -> Iterator[tuple[slice, _Recorded, slice]]:
        """The T rows from row `first` on: (rows of the window, an episode, rows of it)."""
        number = int(np.searchsorted(self._ends, first, side="right"))
        begin = first
        while begin < first + T:
            recorded, end = self._ordered[number], int(self._ends[number])
            origin, stop = end - recorded.rows, min(first + T, end)
            yield slice(begin - first, stop - first), recorded, slice(begin - origin, stop - origin)
            begin, number = stop, number + 1


class ReplayStream:
    """Batches of windows from the agent's own episodes and, if there is one, from a dataset.

    Batch number `index` depends on the seed, the index and what the episode store holds now. In a
    batch, the dataset's windows come first; until there is an own window, all are the dataset's.
    """

    def __init__(
        self,
        offline: RowStore | None,
        online: EpisodeStore,
        batch_size: int,
        length: int,
        seed: int,
        offline_frac: float | None,
        augmentation: Augmentation = unchanged,
        processes: int = 1,
    ) -> None:
        """Cut (batch_size, length) windows; `augmentation` changes their images.

        `offline_frac` in [0, 1]: the share of each batch from the dataset, rounded to whole
        windows; None: every window of both is as likely as every other (pool). Where several
        `processes` train together, all draw from the dataset, but each from episodes of its own
        alone; these then count so many times in the pool.
        """
        if offline is not None:
            require_window(offline, length)
        assert offline_frac is None or 0 <= offline_frac <= 1, offline_frac
        self._offline, self._online, self._augmentation = offline, online, augmentation
        self._batch_size, self._length, self._seed = batch_size, length, seed
        self._offline_frac, self._processes = offline_frac, processes

    def ready(self) -> bool:
        """Can a batch be drawn? Without a dataset, once a window of own rows is there."""
        return self._offline is not None or self._online.starts(self._length) > 0

    def batch(self, index: int, device: torch.device) -> Batch:
        """Batch number `index`, (B, T, ...) on `device`, cameras in the dataset's order."""
        offline, online = self._choose(np.random.default_rng([self._seed, index]))
        like = self._online if self._offline is None else self._offline
        batch = like.empty(self._batch_size, self._length, device.type == "cuda")
        if self._offline is not None and len(offline):
            self._offline.fill_(_part(batch, slice(len(offline))), offline)
        if len(online):
            self._online.fill_(_part(batch, slice(len(offline), None)), online)
        batch = batch.to(device)
        return self._augmentation(batch, np.random.default_rng([self._seed, index, 1]))

    def _choose(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the windows from the dataset and from the own episodes, B in all."""
        B, online = self._batch_size, self._online.starts(self._length)
        offline = 0 if self._offline is None else self._offline.starts(self._length)
        if self._offline_frac is None or not online:
            drawn = rng.integers(offline + self._processes * online, size=B)
            return drawn[drawn < offline], (drawn[drawn >= offline] - offline) % max(online, 1)
        share = round(self._offline_frac * B) if offline else 0
        return rng.integers(offline, size=share), rng.integers(online, size=B - share)


def _part(batch: Batch, windows: slice) -> Batch:
    """Some windows of a batch, in its own memory."""
    obs = {camera: images[windows] for camera, images in batch.obs.items()}
    return Batch(obs, *(value[windows] for value in batch[1:]))
