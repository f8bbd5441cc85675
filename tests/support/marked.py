"""Tiny episodes whose every row says where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.hdf5 import write_dataset
from dreamer.data.replay import EpisodeStore
from dreamer.types import Batch

INFO = DatasetInfo("SafetyPointGoal1-v0", ("front", "back"), 4, 4, 2)
DATASET = 200  # what rows of a dataset say instead of a stream


def marked_episode(stream: int, number: int, length: int) -> Episode:
    """Pixels of the first camera are (stream, number, row), of the second the same mirrored."""
    rng = np.random.default_rng([stream, number])
    front = np.zeros((length + 1, INFO.size, INFO.size, 3), np.uint8)
    front[..., 0], front[..., 1] = stream, number
    front[..., 2] = np.arange(length + 1)[:, None, None]
    return Episode(
        images={"front": front, "back": 255 - front},
        action=rng.uniform(-1, 1, (length, INFO.action_size)).astype(np.float32),
        reward=rng.normal(size=length).astype(np.float32),
        cost=rng.integers(0, 3, length).astype(np.float32),
        terminated=number % 2 == 1,
        policy="online",
        seed=1000 * stream + number,
    )


def marked_dataset(path: Path, lengths: list[int]) -> Path:
    """A dataset file of such episodes."""
    episodes = [marked_episode(DATASET, k, length) for k, length in enumerate(lengths)]
    write_dataset(path, episodes, INFO)
    return path


def marks(batch: Batch) -> np.ndarray:
    """(stream, number, row) of each row of a batch, (B, T, 3), the same in every pixel."""
    front, back = (batch.obs[camera].numpy() for camera in INFO.cameras)
    assert np.array_equal(front, 255 - back)
    assert (front == front[:, :, :1, :1]).all()
    return front[:, :, 0, 0].astype(int)


def first_marks(batch: Batch) -> list[tuple[int, ...]]:
    """(stream, number, row) of the first row of each window."""
    return [tuple(mark) for mark in marks(batch)[:, 0].tolist()]


def all_windows(store: EpisodeStore, T: int) -> Batch:
    """Every window of a store."""
    return store.windows(np.arange(store.starts(T)), T)
