"""Own episodes in memory and on disk, and batches that mix them with a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dreamer.data.episode import Episode
from dreamer.data.episode_folder import EpisodeFolder
from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from dreamer.data.replay import EpisodeStore, ReplayStream
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.errors import DatasetError, UserError
from dreamer.types import Batch
from fosp_ext.dataset.__main__ import main
from tests.support.agents import same_batch
from tests.support.marked import (
    DATASET,
    INFO,
    all_windows,
    first_marks,
    marked_dataset,
    marked_episode,
    marks,
)

CPU = torch.device("cpu")
T = 6


@pytest.fixture(params=["ram", "disk"])
def offline(request: pytest.FixtureRequest, tmp_path: Path) -> RowStore:
    path = marked_dataset(tmp_path / "data.h5", [9, 4, 7])
    return RowStore.open(path, request.param, holdout=0)[0]


def some_episodes(capacity: int = 10_000) -> EpisodeStore:
    """Two streams that take turns."""
    store = EpisodeStore(capacity)
    for number in range(4):
        for stream in (1, 0):
            store.add(stream, marked_episode(stream, number, 5 + number))
    return store


# EpisodeStore


def test_rows_are_those_of_a_dataset_file(tmp_path):
    """Rewards and costs are on the row they came with, actions on the row they were taken at."""
    episodes = [marked_episode(0, number, length) for number, length in enumerate([7, 1, 12, 3])]
    write_dataset(tmp_path / "same.h5", episodes, INFO)
    rows = RowStore.open(tmp_path / "same.h5", "ram", holdout=0)[0]
    store = EpisodeStore(10_000)
    for episode in episodes:
        store.add(0, episode)
    assert (len(store), store.episodes) == (len(rows), rows.episodes) == (27, 4)
    for length in (1, 2, 9, 27):
        assert store.starts(length) == rows.starts(length) == 27 - length + 1
        wanted = rows.windows(np.arange(rows.starts(length)), length)
        assert same_batch(all_windows(store, length), wanted)
    assert store.starts(28) == rows.starts(28) == 0
    whole = store.windows([0], 27)
    assert whole.reward[0, :9].tolist() == [0, *episodes[0].reward.tolist(), 0]
    assert whole.cost[0, :9].tolist() == [0, *episodes[0].cost.tolist(), 0]
    assert whole.action[0, :8].tolist() == [*episodes[0].action.tolist(), [0, 0]]
    assert whole.is_terminal[0].nonzero().flatten().tolist() == [9, 26]


def test_windows_longer_than_every_episode_need_several():
    store = EpisodeStore(10_000)
    counts = []
    for stream, number in ((0, 0), (1, 0), (2, 0), (1, 1), (1, 2)):
        store.add(stream, marked_episode(stream, number, 3))
        counts.append(store.starts(10))
    assert counts == [0, 0, 0, 0, 3]
    mark = marks(all_windows(store, 10))
    assert (mark[..., 0] == 1).all()
    assert mark[1, :, 1].tolist() == [0] * 3 + [1] * 4 + [2] * 3


def test_an_episode_beyond_the_capacity_stays_until_the_next():
    store = EpisodeStore(capacity=5)
    for number, stream in enumerate([0, 1, 1]):
        store.add(stream, marked_episode(stream, number, 20))
        assert (store.episodes, len(store)) == (1, 21)
        assert (marks(all_windows(store, T))[..., 1] == number).all()
    store.add(1, marked_episode(1, 3, 4))
    assert (store.episodes, len(store)) == (1, 5)
    store.add(0, marked_episode(0, 4, 1))
    store.add(0, marked_episode(0, 5, 1))
    assert (store.episodes, len(store)) == (2, 4)


def test_an_empty_store_has_no_windows():
    store = EpisodeStore(10)
    assert (len(store), store.episodes, store.starts(1)) == (0, 0, 0)


def test_windows_do_not_write_to_the_store():
    store = some_episodes()
    before = store.windows([0], 20)
    store.windows([1], 4).reward.fill_(7)
    assert same_batch(before, store.windows([0], 20))
    assert before.is_first.sum() == 3


# ReplayStream


@pytest.mark.parametrize("offline_frac", [None, 0.0, 0.5])
def test_before_the_first_own_window_the_dataset_is_all(offline, offline_frac):
    """The batches are even those of training from the dataset alone."""
    online = EpisodeStore(10_000)
    stream = ReplayStream(offline, online, 7, T, 3, offline_frac)
    plain = WindowStream(offline, 7, T, 3)
    assert all(same_batch(stream.batch(k, CPU), plain.batch(k)) for k in range(3))
    online.add(0, marked_episode(0, 0, 4))  # 5 rows: no window yet
    assert all(same_batch(stream.batch(k, CPU), plain.batch(k)) for k in range(3))
    online.add(0, marked_episode(0, 1, 4))
    assert any(mark[0] == 0 for k in range(3) for mark in first_marks(stream.batch(k, CPU)))


@pytest.mark.parametrize("offline_frac", [None, 0.3])
def test_each_window_is_one_of_its_store(offline, offline_frac):
    online = some_episodes()
    batch = ReplayStream(offline, online, 40, T, 0, offline_frac).batch(5, CPU)
    all_of = {
        DATASET: offline.windows(np.arange(offline.starts(T)), T),
        None: all_windows(online, T),
    }
    place = {key: {m: k for k, m in enumerate(first_marks(w))} for key, w in all_of.items()}
    for number, mark in enumerate(first_marks(batch)):
        key = DATASET if mark[0] == DATASET else None
        assert same_batch(one(batch, number), one(all_of[key], place[key][mark]))
    assert {mark[0] for mark in first_marks(batch)} == {0, 1, DATASET}


def one(batch: Batch, number: int) -> Batch:
    """A single window."""
    obs = {camera: images[number] for camera, images in batch.obs.items()}
    return Batch(obs, *(value[number] for value in batch[1:]))


def test_shapes_types_and_the_order_of_the_cameras(offline):
    """The images of an environment may come in another order than those of the file."""
    online = EpisodeStore(10_000)
    for number in range(4):
        episode = marked_episode(0, number, 9)
        mirrored = dict(reversed(episode.images.items()))
        online.add(0, replace(episode, images=mirrored))
    batch = ReplayStream(offline, online, 5, T, 0, 0.4).batch(0, CPU)
    assert list(batch.obs) == ["front", "back"]
    assert all(images.shape == (5, T, 4, 4, 3) for images in batch.obs.values())
    assert all(images.dtype == torch.uint8 for images in batch.obs.values())
    assert batch.action.shape == (5, T, 2)
    assert all(value.shape == (5, T) for value in batch[2:])
    assert all(value.dtype == torch.float32 for value in batch[1:])
    assert [mark[0] for mark in first_marks(batch)] == [DATASET] * 2 + [0] * 3


@pytest.mark.parametrize("offline_frac", [None, 0.5])
def test_a_batch_depends_on_seed_index_and_content_only(offline, offline_frac):
    online = some_episodes(capacity=40)
    stream = ReplayStream(offline, online, 9, T, 3, offline_frac)
    batch = stream.batch(5, CPU)
    stream.batch(1, CPU)
    assert same_batch(batch, stream.batch(5, CPU))
    again = ReplayStream(offline, some_episodes(capacity=40), 9, T, 3, offline_frac)
    assert same_batch(batch, again.batch(5, CPU))
    assert not same_batch(batch, stream.batch(6, CPU))
    other = ReplayStream(offline, online, 9, T, 4, offline_frac)
    assert not same_batch(batch, other.batch(5, CPU))
    online.add(0, marked_episode(0, 9, 30))
    assert not same_batch(batch, stream.batch(5, CPU))


def test_the_whole_batch_is_changed_at_once(offline):
    calls = []

    def change(batch: Batch, rng: np.random.Generator) -> Batch:
        calls.append((len(batch.reward), rng.integers(1 << 30)))
        return batch._replace(reward=batch.reward + 100)

    stream = ReplayStream(offline, some_episodes(), 8, T, 2, 0.5, change)
    plain = ReplayStream(offline, some_episodes(), 8, T, 2, 0.5)
    changed = stream.batch(4, CPU)
    assert calls == [(8, np.random.default_rng([2, 4, 1]).integers(1 << 30))]
    assert changed.reward.equal(plain.batch(4, CPU).reward + 100)


def test_a_gpu_gets_its_images_from_page_locked_memory(offline, monkeypatch):
    """Seen from the outside, for a machine without a GPU cannot lock pages."""
    locked, empty = [], torch.empty

    def noted(*shape, pin_memory: bool = False, **options) -> torch.Tensor:
        locked.append((options.get("dtype"), pin_memory))
        return empty(*shape, **options)

    stream = ReplayStream(offline, some_episodes(), 4, T, 0, 0.5)
    monkeypatch.setattr(torch, "empty", noted)
    monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
    stream.batch(0, torch.device("cuda"))
    assert locked.count((torch.uint8, True)) == 2
    assert sum(pinned for _, pinned in locked) == 2 + 6  # images; action and scalars
    locked.clear()
    stream.batch(0, CPU)
    assert not any(pinned for _, pinned in locked)


def test_too_short_a_dataset_is_refused(offline):
    with pytest.raises(UserError, match="23 rows, fewer than one window of 24"):
        ReplayStream(offline, some_episodes(), 1, 24, 0, None)


def test_a_damaged_dataset_is_named(tmp_path):
    path = marked_dataset(tmp_path / "data.h5", [200])
    offline = RowStore.open(path, "disk", holdout=0)[0]
    file = offline._images["front"].file
    offset = offline._images["front"].id.get_chunk_info(0).byte_offset
    file.close()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(64))
    offline = RowStore.open(path, "disk", holdout=0)[0]
    with pytest.raises(DatasetError, match=r"data\.h5 cannot be read, it seems damaged"):
        ReplayStream(offline, some_episodes(), 50, T, 0, 0.9).batch(0, CPU)


# EpisodeFolder


def same_episode(left: Episode, right: Episode) -> bool:
    """Bit for bit, not only equal: 0.0 is not -0.0."""
    arrays = [(getattr(left, key), getattr(right, key)) for key in ("action", "reward", "cost")]
    arrays += [(left.images[camera], right.images[camera]) for camera in left.images]
    bits = all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)
    plain = [(e.terminated, e.policy, e.seed, *sorted(e.images)) for e in (left, right)]
    return bits and plain[0] == plain[1]


@pytest.fixture
def folder(tmp_path: Path) -> EpisodeFolder:
    """Four episodes of two streams."""
    folder = EpisodeFolder(tmp_path / "replay", INFO)
    for number in range(4):
        folder.write(number, number % 2, marked_episode(number % 2, number, 5 + number))
    return folder


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_each_file_is_opened_once(folder, monkeypatch):
    """A run with thousands of episodes reads them all before it goes on."""
    opened = []

    class Counted(h5py.File):
        def __init__(self, name, *words, **options):
            opened.append(Path(name).name)
            super().__init__(name, *words, **options)

    monkeypatch.setattr(h5py, "File", Counted)
    read = list(folder.read(2))
    assert len(read) == len(opened) == len(set(opened)) == 2


def test_episodes_come_back_bit_for_bit(tmp_path):
    folder = EpisodeFolder(tmp_path / "replay", INFO)
    episode = marked_episode(3, 0, 9)
    reward = episode.reward.copy()
    reward[:4] = (-0.0, 1e-42, np.float32(0.1), np.finfo(np.float32).max)
    written = [replace(episode, reward=reward), marked_episode(11, 1, 1)]
    paths = [folder.write(k, (3, 11)[k], one) for k, one in enumerate(written)]
    assert [path.name for path in paths] == ["episode_000000_env3.h5", "episode_000001_env11.h5"]
    assert names(tmp_path / "replay") == [path.name for path in paths]
    read = list(folder.read(2))
    assert [stream for stream, _ in read] == [3, 11]
    assert all(same_episode(a, b) for a, (_, b) in zip(written, read, strict=True))


def test_reading_in_order_restores_the_store(tmp_path, folder):
    stores = [EpisodeStore(20), EpisodeStore(20)]
    for number in range(4):
        stores[0].add(number % 2, marked_episode(number % 2, number, 5 + number))
    for stream, episode in folder.read(4):
        stores[1].add(stream, episode)
    assert stores[0].starts(T) > 0
    assert same_batch(*(all_windows(store, T) for store in stores))


def test_numbers_beyond_the_padding_keep_their_order(tmp_path):
    folder = EpisodeFolder(tmp_path, INFO)
    folder.write(999_999, 0, marked_episode(0, 0, 2))
    folder.write(1_000_000, 0, marked_episode(0, 1, 2))
    folder.keep(1_000_000)
    assert names(tmp_path) == ["episode_999999_env0.h5"]


def test_what_a_killed_run_wrote_too_much_goes(tmp_path, folder):
    place = tmp_path / "replay"
    (place / "episode_000004_env0.h5.123.part").write_bytes(b"half")
    (place / "notes.txt").write_text("mine")
    folder.keep(2)
    assert names(place) == ["episode_000000_env0.h5", "episode_000001_env1.h5", "notes.txt"]
    folder.write(2, 1, marked_episode(1, 7, 3))  # the run continues, and another one comes first
    assert [stream for stream, _ in folder.read(3)] == [0, 1, 1]
    EpisodeFolder(tmp_path / "none", INFO).keep(0)
    assert list(EpisodeFolder(tmp_path / "none", INFO).read(0)) == []


def test_a_missing_file_is_named(tmp_path, folder):
    (tmp_path / "replay" / "episode_000001_env1.h5").unlink()
    reading = folder.read(4)
    assert next(reading)[0] == 0
    with pytest.raises(UserError, match=r"replay/episode_000001_env\*\.h5 is missing"):
        next(reading)


def test_foreign_and_damaged_files_are_refused(tmp_path, folder):
    path = tmp_path / "replay" / "episode_000000_env0.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(DatasetError, match="episode_000000_env0"):
        next(folder.read(1))
    path.write_bytes(whole)
    other = EpisodeFolder(tmp_path / "replay", replace(INFO, task="SafetyCarGoal1-v0"))
    with pytest.raises(UserError, match="recorded with task 'SafetyPointGoal1-v0'"):
        next(other.read(1))
    path.unlink()
    marked_dataset(path, [3, 4])
    with pytest.raises(UserError, match="must hold one episode, it holds 2"):
        next(folder.read(1))


def test_an_episode_is_written_whole_or_not_at_all(tmp_path, folder):
    before = names(tmp_path / "replay")
    wrong = replace(marked_episode(0, 0, 3), action=np.zeros((3, 5), np.float32))
    with pytest.raises(UserError, match="action_size 5"):
        folder.write(4, 0, wrong)
    assert names(tmp_path / "replay") == before


def test_a_file_is_a_dataset_of_its_variant_that_can_be_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = EpisodeFolder(Path("replay"), replace(INFO, environment={"variant": "night"})).write(
        0, 2, marked_episode(2, 0, 5)
    )
    assert validate_dataset(path) == replace(INFO, environment={"variant": "night"})
    marked_dataset(Path("data.h5"), [9, 4])
    assert main(["merge", "all.h5", "data.h5", str(path)]) == 0
    assert validate_dataset("all.h5").environment["variant"] == "night,none"
    merged = {episode.seed: episode for episode in read_episodes("all.h5")}
    assert len(merged) == 3
    assert same_episode(merged[2000], marked_episode(2, 0, 5))
