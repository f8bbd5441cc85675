"""An endless, repeatable stream of training batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.types import Batch

AHEAD = 2  # batches prepared while the agent learns


class WindowStream:
    """Batches of windows; batch number `index` depends on the seed and the index alone.

    A run that is continued therefore asks for its next index and needs no saved cursor. Windows
    start on any row, may run over episode ends (`is_first` marks them) and begin like an episode.
    """

    def __init__(self, store: RowStore, batch_size: int, length: int, seed: int) -> None:
        """Cut (batch_size, length) windows from `store`."""
        if len(store) < length:
            raise UserError(f"the dataset has {len(store)} rows, fewer than one window of {length}")
        self._store, self._seed = store, seed
        self._batch_size, self._length = batch_size, length

    def batch(self, index: int) -> Batch:
        """Batch number `index`, (B, T, ...) on the CPU."""
        windows = [self._store.window(int(start), self._length) for start in self._starts(index)]
        return as_batch(windows, self._store.cameras)

    def iterate(self, first_index: int, device: torch.device) -> Iterator[Batch]:
        """Batches first_index, first_index + 1, ... on `device`, prepared in one background thread.

        An error of the thread is raised here, at its batch. Closing the iterator stops the thread.
        """
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
            try:
                for index in range(first_index, first_index + AHEAD):
                    waiting.append(thread.submit(self._prepare, index, device))
                while True:
                    batch = waiting.popleft().result()
                    index += 1
                    waiting.append(thread.submit(self._prepare, index, device))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def _starts(self, index: int) -> np.ndarray:
        """First rows of the windows of a batch, uniform over all that fit, (B,)."""
        rng = np.random.default_rng([self._seed, index])
        return rng.integers(len(self._store) - self._length + 1, size=self._batch_size)

    def _prepare(self, index: int, device: torch.device) -> Batch:
        batch = self.batch(index)
        if device.type == "cuda":
            obs = {camera: frames.pin_memory() for camera, frames in batch.obs.items()}
            batch = batch._replace(obs=obs)
        return batch.to(device)


def as_batch(windows: Sequence[dict[str, np.ndarray]], cameras: Sequence[str]) -> Batch:
    """Stack windows of a store into a batch (B, T, ...); every window begins like an episode."""
    stacked = {
        key: torch.from_numpy(np.stack([window[key] for window in windows])) for key in windows[0]
    }
    stacked["is_first"][:, 0] = 1
    obs = {camera: stacked[f"images/{camera}"] for camera in cameras}
    return Batch(obs, *(stacked[field] for field in Batch._fields[1:]))
