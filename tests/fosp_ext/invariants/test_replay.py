"""The invariant of sampling in the online phase: a dataset and the episodes of several streams."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.data.replay import EpisodeStore, ReplayStream
from dreamer.data.store import RowStore
from tests.support.marked import (
    DATASET,
    all_windows,
    first_marks,
    marked_dataset,
    marked_episode,
    marks,
)

CPU = torch.device("cpu")
T = 6


@pytest.fixture
def offline(tmp_path: Path) -> RowStore:
    """23 rows in three episodes."""
    return RowStore.open(marked_dataset(tmp_path / "data.h5", [9, 4, 7]), "ram", holdout=0)[0]


def fill(store: EpisodeStore, episodes: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Add episodes of random length to random streams; returns (stream, number, rows) of each."""
    rng, numbers, added = np.random.default_rng(seed), Counter(), []
    for _ in range(episodes):
        stream, length = int(rng.integers(3)), int(rng.integers(1, 12))
        store.add(stream, marked_episode(stream, numbers[stream], length))
        added.append((stream, numbers[stream], length + 1))
        numbers[stream] += 1
    return added


def places(kept: list[tuple[int, int, int]]) -> set[tuple[int, ...]]:
    """First rows of all windows of T rows, found by walking through each stream."""
    found = set()
    for stream in {stream for stream, _, _ in kept}:
        rows = [(s, number, row) for s, number, n in kept if s == stream for row in range(n)]
        found |= set(rows[: max(len(rows) - T + 1, 0)])
    return found


@pytest.mark.invariant(36)
@pytest.mark.parametrize("offline_frac", [None, 0.5])
def test_every_sample_of_a_mixture_begins_like_an_episode(offline, offline_frac):
    online = EpisodeStore(60)
    stream = ReplayStream(offline, online, 30, T, 1, offline_frac)
    for index in range(6):
        batch = stream.batch(index, CPU)
        assert (batch.is_first[:, 0] == 1).all()
        begins = torch.from_numpy(marks(batch)[..., 2] == 0).float()
        assert batch.is_first[:, 1:].equal(begins[:, 1:])
        fill(online, 3, seed=index)


@pytest.mark.invariant(36)
@pytest.mark.parametrize("capacity", [10_000, 60])
def test_sequences_never_join_two_streams(capacity):
    """Row after row the same episode goes on, or the next one of the same stream begins."""
    online = EpisodeStore(capacity)
    fill(online, 30)
    batch = all_windows(online, T)
    now, after = marks(batch)[:, :-1], marks(batch)[:, 1:]  # (B, T-1, 3)
    last = batch.is_last[:, :-1].numpy() == 1
    assert last.any()
    assert (~last).any()
    np.testing.assert_array_equal(after[~last], now[~last] + (0, 0, 1))
    np.testing.assert_array_equal(after[last][:, :2], now[last][:, :2] + (0, 1))
    assert (after[last][:, 2] == 0).all()


@pytest.mark.invariant(36)
def test_the_oldest_episodes_of_all_leave_first():
    """As many of the newest episodes as fit stay, whichever stream they belong to."""
    for capacity in (1, 20, 45, 100, 10_000):
        for count in range(1, 25):
            online = EpisodeStore(capacity)
            added = fill(online, count)
            fitting = [k for k in range(count) if sum(rows for *_, rows in added[k:]) <= capacity]
            kept = added[min([*fitting, count - 1]) :]
            assert (online.episodes, len(online)) == (len(kept), sum(rows for *_, rows in kept))
            assert set(first_marks(all_windows(online, 1))) == {
                (stream, number, row) for stream, number, n in kept for row in range(n)
            }
            if online.starts(T):
                begun = first_marks(all_windows(online, T))
                assert len(begun) == len(places(kept))
                assert set(begun) == places(kept)


@pytest.mark.invariant(36)
@pytest.mark.parametrize(
    ("offline_frac", "groups", "processes"), [(None, 1, 1), (0.5, 2, 1), (None, 1, 3), (0.5, 2, 3)]
)
def test_every_start_of_a_pool_or_half_is_as_likely_as_every_other(
    offline, offline_frac, groups, processes
):
    """Chi-square against the uniform distribution, over 200 draws per place.

    One of three processes draws its own windows for the two that do not have them.
    """
    online = EpisodeStore(60)
    own = places(fill(online, 30)[-online.episodes :])
    data = places([(DATASET, 0, 10), (DATASET, 1, 5), (DATASET, 2, 8)])
    stream = ReplayStream(offline, online, 250, T, 0, offline_frac, processes=processes)
    batches = range(200 * (len(own) + len(data)) // 250)
    drawn = Counter(mark for index in batches for mark in first_marks(stream.batch(index, CPU)))
    assert set(drawn) == own | data
    for group in [own | data] if groups == 1 else [own, data]:
        counts = np.array([drawn[mark] for mark in group])
        weights = np.array([processes if mark in own else 1 for mark in group])
        expected = weights * counts.sum() / weights.sum()
        chi_square = ((counts - expected) ** 2 / expected).sum()
        freedom = len(group) - 1
        assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.invariant(36)
@pytest.mark.parametrize(
    ("offline_frac", "wanted"), [(0.0, 0), (0.2, 2), (0.25, 2), (0.5, 5), (0.96, 10), (1.0, 10)]
)
def test_the_offline_share_is_kept_in_every_batch(offline, offline_frac, wanted):
    online = EpisodeStore(10_000)
    stream = ReplayStream(offline, online, 10, T, 0, offline_frac)
    fill(online, 20)
    for index in range(20):
        mark = marks(stream.batch(index, CPU))
        assert ((mark[..., 0] == DATASET).sum(0) == wanted).all()


@pytest.mark.invariant(36)
def test_the_dataset_is_never_evicted(offline):
    online = EpisodeStore(capacity=15)
    stream = ReplayStream(offline, online, 200, T, 0, 0.5)
    for index in range(10):
        fill(online, 5, seed=index)
        drawn = {mark for mark in first_marks(stream.batch(index, CPU)) if mark[0] == DATASET}
        assert drawn == places([(DATASET, 0, 10), (DATASET, 1, 5), (DATASET, 2, 8)])
    assert online.episodes < 15
    assert (len(offline), offline.episodes) == (23, 3)
