"""An endless, repeatable stream of training batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from dreamer.data.augment import Augmentation, unchanged
from dreamer.errors import UserError
from dreamer.types import Batch

PREFETCH = 2  # batches prepared while the agent learns
AT_ONCE = PREFETCH + 2  # batches in memory at one time: with the next one and the one in use
CPU = torch.device("cpu")


class Store(Protocol):
    """Rows of episodes, from which windows are cut."""

    def __len__(self) -> int:
        """Rows."""

    def starts(self, T: int) -> int:
        """How many windows of T rows there are."""

    def windows(self, starts: np.ndarray, T: int, pinned: bool = False) -> Batch:
        """These windows, (B, T, ...)."""

    def openings(self, T: int, count: int) -> Batch:
        """The first T rows of the first `count` episodes that have so many, (B, T, ...).

        T is less where all episodes are shorter.
        """


class WindowStream:
    """Batches of windows; batch number `index` depends on the seed and the index alone.

    A run that is continued therefore asks for its next index and needs no saved cursor. Windows
    start on any row, may run over episode ends (`is_first` marks them) and begin like an episode.
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        length: int,
        seed: int,
        augmentation: Augmentation = unchanged,
    ) -> None:
        """Cut (batch_size, length) windows from `store`; `augmentation` changes their images."""
        require_window(store, length)
        self._store, self._seed, self._augmentation = store, seed, augmentation
        self._batch_size, self._length = batch_size, length

    def batch(self, index: int, device: torch.device = CPU) -> Batch:
        """Batch number `index`, (B, T, ...) on `device`."""
        pinned = device.type == "cuda"
        batch = self._store.windows(self._starts(index), self._length, pinned).to(device)
        return self._augmentation(batch, np.random.default_rng([self._seed, index, 1]))

    def iterate(self, first_index: int, device: torch.device) -> Generator[Batch, None, None]:
        """Batches first_index, first_index + 1, ... on `device`, prepared in one background thread.

        An error of the thread is raised here, at its batch. Closing the iterator stops the thread.
        """
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
            try:
                for index in range(first_index, first_index + PREFETCH):
                    waiting.append(thread.submit(self.batch, index, device))
                while True:
                    batch = waiting.popleft().result()
                    index += 1
                    waiting.append(thread.submit(self.batch, index, device))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def _starts(self, index: int) -> np.ndarray:
        """First rows of the windows of a batch, uniform over all that fit, (B,)."""
        rng = np.random.default_rng([self._seed, index])
        return rng.integers(self._store.starts(self._length), size=self._batch_size)


def require_window(store: Store, length: int) -> None:
    """Refuse a dataset too short for one window of `length` rows."""
    if not store.starts(length):
        raise UserError(f"the dataset has {len(store)} rows, fewer than one window of {length}")
