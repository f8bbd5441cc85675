"""Rows in memory and on disk, the batches cut from them, and the memory they take."""

from __future__ import annotations

import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from dreamer.data import memory
from dreamer.data.episode import ACTION_SCALE
from dreamer.data.hdf5 import validate_dataset, write_dataset
from dreamer.data.memory import plan_memory
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.errors import UserError
from dreamer.types import Batch
from tests.support.agents import same_batch
from tests.support.toy_data import TOY_INFO, toy_episode

CPU = torch.device("cpu")


@pytest.fixture(params=["ram", "disk"])
def store(request, toy_dataset) -> RowStore:
    return RowStore.open(toy_dataset, request.param, holdout=0)[0]


def all_rows(store: RowStore) -> dict[str, np.ndarray]:
    """Every row of a store, by name, cameras included."""
    rows = store.windows([0], len(store))
    named = {**rows.obs, **rows._asdict()}
    del named["obs"]
    return {key: value[0].numpy() for key, value in named.items()}


def test_rows_are_aligned(store):
    """Row t: image t, what came with it, and the action taken at it."""
    rows = all_rows(store)
    assert len(store) == 6 * 41
    for k in range(6):
        wanted = toy_episode(seed=k, terminated=k == 5)
        row = {key: value[41 * k : 41 * (k + 1)] for key, value in rows.items()}
        np.testing.assert_array_equal(row["vision"], wanted.images["vision"])
        np.testing.assert_array_equal(row["vision_back"], wanted.images["vision_back"])
        np.testing.assert_array_equal(row["action"], np.append(wanted.action, [[0, 0]], axis=0))
        np.testing.assert_array_equal(row["reward"], np.append(0, wanted.reward))
        np.testing.assert_array_equal(row["cost"], np.append(0, wanted.cost))
        np.testing.assert_array_equal(row["is_first"], np.eye(41)[0])
        np.testing.assert_array_equal(row["is_last"], np.eye(41)[40])
        np.testing.assert_array_equal(row["is_terminal"], np.eye(41)[40] * (k == 5))


@pytest.mark.parametrize(("holdout", "held"), [(0.1, 1), (0.2, 2), (0.5, 3)])
@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_the_last_episodes_are_held_out(toy_dataset, holdout, held, storage):
    train, heldout = RowStore.open(toy_dataset, storage, holdout)
    assert (train.episodes, heldout.episodes) == (6 - held, held)
    everything = all_rows(RowStore.open(toy_dataset, storage, 0)[0])
    first, second = all_rows(train), all_rows(heldout)
    for key, value in everything.items():
        np.testing.assert_array_equal(np.concatenate([first[key], second[key]]), value)


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_actions_come_in_the_scale_that_is_wanted(toy_dataset, tmp_path, storage):
    """A file without the fact covers the whole range; the way back loses only what was cut off."""
    as_recorded = all_rows(RowStore.open(toy_dataset, storage, 0)[0])
    scaled = all_rows(RowStore.open(toy_dataset, storage, 0, action_scale=(0.05, 1.0))[0])
    thrust, turn = as_recorded.pop("action").T
    np.testing.assert_allclose(scaled["action"][:, 0], np.clip(thrust / 0.05, -1, 1), rtol=1e-6)
    np.testing.assert_array_equal(scaled.pop("action")[:, 1], turn)
    for key, value in as_recorded.items():
        np.testing.assert_array_equal(scaled[key], value)
    info = replace(TOY_INFO, environment={ACTION_SCALE: "0.05 1"})
    write_dataset(tmp_path / "scaled.h5", [toy_episode()], info)
    assert validate_dataset(tmp_path / "scaled.h5").action_scale == (0.05, 1)
    whole = RowStore.open(tmp_path / "scaled.h5", storage, 0, action_scale=(1.0, 1.0))[0]
    thrust = toy_episode().action[:, 0]
    np.testing.assert_allclose(all_rows(whole)["action"][:-1, 0], 0.05 * thrust, rtol=1e-6)


def test_holdout_limits(toy_dataset):
    assert RowStore.open(toy_dataset, "disk", 0)[1] is None
    with pytest.raises(UserError, match="6 episodes and 6 would be held out"):
        RowStore.open(toy_dataset, "disk", 0.9)
    with pytest.raises(UserError, match="storage must be one of ram, disk"):
        RowStore.open(toy_dataset, "tape")


def test_small_arrays_are_read_only(store):
    with pytest.raises(ValueError, match="read-only"):
        store.small("cost")[0] = 1


def test_a_batch_depends_on_seed_and_index_only(store):
    stream = WindowStream(store, 4, 8, seed=3)
    batch = stream.batch(5)
    stream.batch(1)
    assert same_batch(batch, stream.batch(5))
    assert same_batch(batch, WindowStream(store, 4, 8, seed=3).batch(5))
    assert not same_batch(batch, stream.batch(6))
    assert not same_batch(batch, WindowStream(store, 4, 8, seed=4).batch(5))


def test_both_storages_give_the_same_batches(toy_dataset):
    streams = [
        WindowStream(RowStore.open(toy_dataset, storage)[0], 3, 10, seed=0)
        for storage in ("ram", "disk")
    ]
    for index in range(4):
        assert same_batch(*(stream.batch(index) for stream in streams))


def test_shapes_types_and_window_starts(store):
    batch = WindowStream(store, 5, 12, seed=0).batch(0)
    assert {key: value.shape for key, value in batch.obs.items()} == {
        "vision": (5, 12, 64, 64, 3),
        "vision_back": (5, 12, 64, 64, 3),
    }
    assert all(value.dtype == torch.uint8 for value in batch.obs.values())
    assert batch.action.shape == (5, 12, 2)
    assert all(value.shape == (5, 12) for value in batch[2:])
    assert all(value.dtype == torch.float32 for value in batch[1:])
    assert batch.is_first[:, 0].eq(1).all()


@pytest.mark.invariant(36)
def test_windows_straddle_episodes_and_cover_every_row(store):
    """The longest window has one place; shorter ones reach the first and the last row."""
    whole = WindowStream(store, 1, len(store), seed=0).batch(0)
    assert whole.is_first[0].nonzero().flatten().tolist() == [41 * k for k in range(6)]
    assert whole.is_last[0].nonzero().flatten().tolist() == [41 * k + 40 for k in range(6)]
    assert whole.is_terminal[0].nonzero().flatten().tolist() == [245]
    assert store.small("is_first").sum() == 6, "forcing is_first must not write to the store"
    pairs = WindowStream(store, 2000, 2, seed=0)._starts(0)
    assert set(pairs.tolist()) == set(range(245))


def test_too_short_a_dataset_is_refused(store):
    with pytest.raises(UserError, match="246 rows, fewer than one window of 247"):
        WindowStream(store, 1, 247, seed=0)


def test_prefetch_keeps_the_order_and_stops(store):
    stream = WindowStream(store, 2, 6, seed=1)
    batches = stream.iterate(7, CPU)
    for index in range(7, 13):
        assert same_batch(next(batches), stream.batch(index))
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_prefetch_raises_at_the_batch_that_failed(store, monkeypatch):
    stream = WindowStream(store, 2, 6, seed=1)
    whole = stream.batch

    def batch(index: int, device: torch.device = CPU) -> Batch:
        if index == 3:
            raise OSError("disk gone")
        return whole(index, device)

    monkeypatch.setattr(stream, "batch", batch)
    batches = stream.iterate(1, CPU)
    assert same_batch(next(batches), whole(1))
    assert same_batch(next(batches), whole(2))
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_images_are_read_in_one_piece(toy_dataset, monkeypatch):
    train = RowStore.open(toy_dataset, "disk")[0]
    reads = []
    whole = h5py.Dataset.__getitem__

    def read(self, where):
        reads.append((self.name, where))
        return whole(self, where)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", read)
    train.windows([30, 7], 20)
    cameras = ("/images/vision", "/images/vision_back")
    assert reads == [(name, slice(k, k + 20)) for name in cameras for k in (30, 7)]


# Memory


def test_streaming_keeps_nothing(toy_dataset):
    """HDF5's own cache is off, or it would grow beside ours."""
    images = RowStore.open(toy_dataset, "disk")[0]._images
    assert [data.file.id.get_access_plist().get_cache()[2] for data in images.values()] == [0, 0]


def test_decoding_reports_every_image(toy_dataset):
    plan, seen = plan_memory(toy_dataset, "ram", 0, 0), []
    RowStore.open(toy_dataset, "ram", 0.1, seen.append)
    assert sum(seen) == plan.images == 2 * 6 * 41
    RowStore.open(toy_dataset, "disk", 0.1, lambda _: pytest.fail("nothing is decoded"))


def test_auto_takes_memory_where_the_images_fit(toy_dataset, monkeypatch):
    needed = 2 * 6 * 41 * 64 * 64 * 3
    for limit, free, storage, said in (
        (1, 2**40, "ram", "0.01 GiB decoded, 1024.0 GiB free: kept in memory"),
        (1, None, "ram", "decoded: kept in memory"),
        (1, int(needed / 0.79), "ram", "kept in memory"),
        (1, int(needed / 0.81), "disk", "streamed from disk (that would not fit)"),
        (1e-3, 2**40, "disk", "streamed from disk (the limit is 0.001 GiB)"),
    ):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        plan = plan_memory(toy_dataset, "auto", limit, batch_rows=1000)
        assert (plan.storage, plan.needed, plan.free) == (storage, needed, free)
        assert said in str(plan)
        assert str(plan).endswith(", 23 MiB for batches")


def test_every_process_of_the_machine_needs_the_images(toy_dataset, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 2 * 6 * 41 * 64 * 64 * 3)
    for copies, storage in ((2, "ram"), (3, "disk")):
        assert plan_memory(toy_dataset, "auto", 1, 0, copies).storage == storage
    with pytest.raises(UserError, match="decoded in each of 3 processes"):
        plan_memory(toy_dataset, "ram", 1, 0, copies=3)


def test_what_was_asked_for_is_taken_or_refused(toy_dataset, monkeypatch):
    assert plan_memory(toy_dataset, "disk", ram_limit_gb=1, batch_rows=0).storage == "disk"
    assert plan_memory(toy_dataset, "ram", ram_limit_gb=0, batch_rows=0).storage == "ram"
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    with pytest.raises(UserError, match=r"toy\.hdf5 take 0\.0 GiB decoded .* use storage 'disk'"):
        plan_memory(toy_dataset, "ram", ram_limit_gb=1, batch_rows=0)
    assert plan_memory(toy_dataset, "disk", ram_limit_gb=1, batch_rows=0).storage == "disk"


MEMINFO = "MemTotal:  9000 kB\nMemAvailable:  4000 kB\n"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/job/step", {}, 4000 * 1024),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": "2048000"}, 1048000),
        ("0::/", {"memory.max": "1001000"}, 1000),
        ("0::/job", {"job/memory.max": "900000"}, 0),
        ("3:cpu,cpuacct:/x\n9:memory:/x", {"memory/x/memory.limit_in_bytes": "1500000"}, 500000),
        ("9:memory:/unseen", {"memory/memory.limit_in_bytes": "1500000"}, 500000),
        ("9:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, 4000 * 1024),
    ],
)
def test_limits_of_containers_count(tmp_path, monkeypatch, groups, files, free):
    """Each group uses 1 100 000 bytes, of which 100 000 are files that can be dropped."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text(f"{groups}\n")
    for name, limit in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
        for used in ("memory.current", "memory.usage_in_bytes"):
            (file.parent / used).write_text("1100000\n")
        statistics = "inactive_file 100000\ntotal_inactive_file 100000\n"
        (file.parent / "memory.stat").write_text(statistics)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    assert memory.free_memory() == free


def test_systems_that_do_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory.free_memory() is None
