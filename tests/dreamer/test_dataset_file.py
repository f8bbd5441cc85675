"""Episodes, and the file that holds them: what is written is read again, what is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest

from dreamer.data.episode import Episode
from dreamer.data.hdf5 import (
    check_compatible,
    fingerprint,
    read_episodes,
    validate_dataset,
    write_dataset,
)
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from tests.support.toy_data import TOY_INFO, toy_episode


@pytest.fixture
def editable(toy_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the toy dataset to damage."""
    return Path(shutil.copy(toy_dataset, tmp_path / "copy.hdf5"))


def test_round_trip(toy_dataset):
    episodes = list(read_episodes(toy_dataset))
    assert len(episodes) == 6
    for k, episode in enumerate(episodes):
        wanted = toy_episode(seed=k, terminated=k == 5)
        for camera, frames in wanted.images.items():
            np.testing.assert_array_equal(episode.images[camera], frames)
        for field in ("action", "reward", "cost"):
            np.testing.assert_array_equal(getattr(episode, field), getattr(wanted, field))
        assert (episode.terminated, episode.policy, episode.seed) == (
            k == 5,
            wanted.policy,
            k,
        )
    assert validate_dataset(toy_dataset) == TOY_INFO
    with h5py.File(toy_dataset) as file:
        assert file["images/vision"].chunks == (16, 64, 64, 3)
        assert "numpy" in json.loads(file.attrs["versions"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("action", np.zeros((40, 2)), "action must be float32, it is float64"),
        ("action", np.full((40, 2), 1.1, np.float32), "action must lie in"),
        ("reward", np.zeros((40, 1), np.float32), r"reward must have shape \(40,\)"),
        ("reward", np.full(40, np.nan, np.float32), "reward holds numbers that are not finite"),
        ("cost", np.zeros(39, np.float32), r"cost must have shape \(40,\), it has \(39,\)"),
        ("cost", -np.ones(40, np.float32), "cost must not be negative"),
        ("images", {}, "at least one camera"),
        ("images", {"vision": np.zeros((40, 64, 64, 3), np.uint8)}, r"images/vision .*\(41, 64"),
        ("images", {"vision": np.zeros((41, 64, 32, 3), np.uint8)}, r"images/vision .*\(41, 64"),
        ("images", {"vision": np.zeros((41, 64), np.uint8)}, "images/vision must have shape"),
        (
            "images",
            {"vision": np.zeros((41, 64, 64, 3), np.float32)},
            "images/vision must be uint8",
        ),
    ],
)
def test_malformed_episodes_are_named(field, value, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(toy_episode(), **{field: value})


def test_episode_sums():
    episode = toy_episode(length=3)
    assert episode.length == 3
    assert episode.score == pytest.approx(float(np.sum(episode.reward)))
    assert episode.total_cost == float(np.sum(episode.cost))


def test_an_existing_file_is_not_overwritten(editable):
    before = editable.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write_dataset(editable, [toy_episode()], TOY_INFO)
    assert editable.read_bytes() == before


def broken_source():
    yield toy_episode()
    raise RuntimeError("the simulator died")


@pytest.mark.parametrize(
    ("episodes", "error"),
    [
        (broken_source(), RuntimeError),
        ([], UserError),
        ([dataclasses.replace(toy_episode(), action=np.zeros((40, 3), np.float32))], UserError),
        (
            [dataclasses.replace(toy_episode(), images={"top": toy_episode().images["vision"]})],
            UserError,
        ),
    ],
)
def test_a_failed_write_leaves_nothing(tmp_path, episodes, error):
    with pytest.raises(error):
        write_dataset(tmp_path / "new.hdf5", episodes, TOY_INFO)
    assert list(tmp_path.iterdir()) == []


def test_episodes_are_written_as_they_come(tmp_path):
    """The writer holds one episode at a time: it is gone when the next but one is asked for."""
    made = []

    def source():
        for k in range(5):
            assert sum(reference() is not None for reference in made) <= 1
            episode = toy_episode(length=2, seed=k)
            made.append(weakref.ref(episode))
            yield episode
            del episode

    write_dataset(tmp_path / "new.hdf5", source(), TOY_INFO)
    assert len(list(read_episodes(tmp_path / "new.hdf5"))) == len(made) == 5


ROOT_KEYS = (
    "actions",
    "rewards",
    "costs",
    "terminals",
    "timeouts",
    "episode_starts",
    "episode_policies",
    "episode_seeds",
    "images/vision",
    "images/vision_back",
)


@pytest.mark.parametrize("key", ROOT_KEYS)
def test_every_missing_key_is_named(editable, key):
    with h5py.File(editable, "a") as file:
        del file[key]
    with pytest.raises(UserError, match=rf"copy\.hdf5: '{key}' is missing"):
        validate_dataset(editable)


@pytest.mark.parametrize("key", ROOT_KEYS)
@pytest.mark.parametrize("damage", ["dtype", "axes", "rows"])
def test_every_malformed_key_is_named(editable, key, damage):
    with h5py.File(editable, "a") as file:
        data = file[key][()]
        del file[key]
        if damage == "dtype":
            file[key] = data.astype("S8" if data.ndim < 4 else np.float32)
        elif damage == "axes":
            file[key] = data[..., None]
        else:
            file[key] = data[:-1]
    named = "rewards" if (key, damage) == ("rewards", "rows") else key
    with pytest.raises(UserError, match=rf"copy\.hdf5: .*'{named}'"):
        validate_dataset(editable)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "minari"),
        ("format", 3),
        ("format_version", 2),
        ("format_version", "1"),
        ("task", 5),
        ("cameras", "vision"),
        ("action_repeat", 1.5),
        ("environment", 1),
        ("environment", "[]"),
        ("environment", '{"render": 1}'),
        ("policies", 1),
        ("versions", 1),
    ],
)
def test_every_attribute_is_checked(editable, name, value):
    with h5py.File(editable, "a") as file:
        file.attrs[name] = value
    with pytest.raises(UserError, match=name):
        validate_dataset(editable)
    with h5py.File(editable, "a") as file:
        del file.attrs[name]
    with pytest.raises(UserError, match=f"attribute '{name}' is missing"):
        validate_dataset(editable)


@pytest.mark.parametrize(
    ("key", "row", "value", "message"),
    [
        ("actions", 3, 1.5, "'actions' must lie in"),
        ("costs", 3, -1, "'costs' must not be negative"),
        ("rewards", 3, np.nan, "'rewards' holds numbers that are not finite"),
        ("timeouts", 3, True, "must mark each episode's last row and no other, row 3 is wrong"),
        ("terminals", 39, True, "row 39 is wrong"),
        ("timeouts", 39, False, "row 39 is wrong"),
        ("episode_starts", 0, 1, "'episode_starts' must rise from 0"),
        ("episode_starts", 2, 40, "'episode_starts' must rise from 0"),
        ("episode_starts", 5, 240, "'episode_starts' must rise from 0 and stay below 240"),
        ("episode_policies", 0, 2, "'episode_policies' must index the 2 policies"),
    ],
)
def test_every_wrong_value_is_named(editable, key, row, value, message):
    with h5py.File(editable, "a") as file:
        file[key][row] = value
    with pytest.raises(UserError, match=message):
        validate_dataset(editable)


def test_truncated_foreign_and_absent_files(toy_dataset, tmp_path):
    content = toy_dataset.read_bytes()
    for name, part in {
        "half": content[: len(content) // 2],
        "text": b"hello",
        "empty": b"",
    }.items():
        (tmp_path / f"{name}.hdf5").write_bytes(part)
        for use in (validate_dataset, lambda path: RowStore.open(path, "ram")):
            with pytest.raises(UserError, match=rf"{name}\.hdf5 is not a readable HDF5 dataset"):
                use(tmp_path / f"{name}.hdf5")
    with pytest.raises(UserError, match=r"no dataset file .*; did you mean 'half\.hdf5'"):
        validate_dataset(tmp_path / "hal.hdf5")
    with pytest.raises(UserError, match="no dataset file"):
        validate_dataset(tmp_path / "nowhere" / "x.hdf5")


def test_damaged_pixels_are_an_error_where_they_are_read(editable):
    with h5py.File(editable) as file:
        place = file["images/vision"].id.get_chunk_info(0)
    with editable.open("r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        raw.write(b"\0" * 64)
    with pytest.raises(UserError, match="seems damaged"):
        RowStore.open(editable, "ram")
    with pytest.raises(UserError, match="seems damaged"):
        RowStore.open(editable, "disk")[0].windows([0], 8)
    with pytest.raises(UserError, match="seems damaged"):
        list(read_episodes(editable))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "SafetyCarGoal2-v0"),
        ("cameras", ("vision",)),
        ("action_repeat", 1),
        ("size", 32),
        ("action_size", 3),
    ],
)
def test_a_dataset_for_something_else_is_refused(field, value):
    check_compatible(TOY_INFO, dataclasses.replace(TOY_INFO, cameras=TOY_INFO.cameras[::-1]), "x")
    with pytest.raises(UserError, match=rf"x\.hdf5 was recorded with {field} "):
        check_compatible(TOY_INFO, dataclasses.replace(TOY_INFO, **{field: value}), "x.hdf5")


def test_fingerprint(toy_dataset, editable):
    assert fingerprint(editable) == fingerprint(toy_dataset)
    with h5py.File(editable, "a") as file:
        file["rewards"][7] += 1
    assert fingerprint(editable) != fingerprint(toy_dataset)


def test_episode_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        toy_episode().reward = None
    assert isinstance(toy_episode(), Episode)
