"""Dataset files that lead elsewhere, or would take more memory than there is, are refused."""

from __future__ import annotations

import fcntl
import resource
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from dreamer.data import memory
from dreamer.data.episode import DatasetInfo
from dreamer.data.foreign import require_unpacked
from dreamer.data.hdf5 import read_episodes, validate_dataset
from dreamer.errors import DatasetError, UserError
from fosp_ext.dataset.summary import summarise, table


@pytest.fixture
def data(toy_dataset, tmp_path):
    return Path(shutil.copy(toy_dataset, tmp_path / "data.h5"))


def replace(path: Path, name: str, **how: object) -> None:
    """Another dataset in the place of one, of its shape and type unless said otherwise."""
    with h5py.File(path, "a") as file:
        like = {"shape": file[name].shape, "dtype": file[name].dtype}
        del file[name]
        file.create_dataset(name, **{**like, **how})


@pytest.mark.parametrize("name", ["rewards", "images/vision", "images", "notes"])
def test_external_links_are_refused_by_name(data, toy_dataset, name):
    with h5py.File(data, "a") as file:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink(str(toy_dataset), name)
    with pytest.raises(DatasetError, match=f"'{name}' is an external link, to .*not followed"):
        validate_dataset(data)


def test_a_soft_link_to_an_external_link_does_not_help(data, toy_dataset):
    with h5py.File(data, "a") as file:
        del file["costs"]
        file["costs"] = h5py.SoftLink("/other/costs")
        file["other"] = h5py.ExternalLink(str(toy_dataset), "/")
    with pytest.raises(DatasetError, match="'other' is an external link"):
        validate_dataset(data)


def test_virtual_datasets_are_refused_by_name(data, toy_dataset):
    with h5py.File(data, "a") as file:
        shape, dtype = file["rewards"].shape, file["rewards"].dtype
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(toy_dataset), "rewards", shape, dtype)
        del file["rewards"]
        file.create_virtual_dataset("rewards", layout)
    with pytest.raises(DatasetError, match="'rewards' is a virtual dataset"):
        validate_dataset(data)


def test_raw_data_in_other_files_are_refused_by_name(data, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(10_000))
    replace(data, "rewards", external=[(str(tmp_path / "secret"), 0, 10_000)])
    with pytest.raises(DatasetError, match=r"'rewards' has external storage, in '.*secret'"):
        validate_dataset(data)


def test_links_in_a_circle_end(data):
    with h5py.File(data, "a") as file:
        file["images/again"] = file["/"]
    assert isinstance(validate_dataset(data), DatasetInfo)


@pytest.mark.parametrize("name", ["actions", "rewards", "episode_seeds"])
def test_shapes_are_compared_before_anything_is_read(data, name):
    """A file of some kilobytes says that it has gigabytes."""
    with h5py.File(data) as file:
        shape = (10**9, *file[name].shape[1:])
    replace(data, name, shape=shape, chunks=(10**5, *shape[1:]), compression="gzip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match=r"has \d+ rows"):
        validate_dataset(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_images_of_giants_are_refused(data):
    with h5py.File(data) as file:
        frames = len(file["images/vision"])
    shape = (frames, 20_000, 20_000, 3)
    replace(data, "images/vision", shape=shape, chunks=(1, 64, 64, 3), compression="gzip")
    with pytest.raises(DatasetError, match="images of 20000x20000 pixels; at most 2048"):
        validate_dataset(data)


def test_images_that_were_never_written_are_refused(data):
    with h5py.File(data) as file:
        frames = len(file["images/vision"])
    for camera in ("vision", "vision_back"):
        shape = (frames, 1024, 1024, 3)
        replace(data, f"images/{camera}", shape=shape, chunks=(1, 64, 64, 3), compression="gzip")
    with pytest.raises(DatasetError, match=r"'images/vision' would be .* was never written"):
        validate_dataset(data)


def test_chunks_that_unpack_to_gigabytes_are_refused(data):
    replace(data, "rewards", shape=(10**9,), chunks=(5 * 10**8,), compression="gzip")
    with pytest.raises(DatasetError, match=r"'rewards' has chunks of 1.9 GiB"):
        validate_dataset(data)


def test_arrays_that_do_not_fit_into_memory_are_refused(data, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    with pytest.raises(DatasetError, match=r"the arrays actions, rewards.* GiB are free"):
        validate_dataset(data)


def test_a_locked_file_is_called_locked(data):
    with data.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is locked: another program writes to it") as error:
            validate_dataset(data)
    assert error.value.exit_code == 2
    assert isinstance(validate_dataset(data), DatasetInfo)


def test_a_folder_is_no_dataset(tmp_path):
    with pytest.raises(UserError, match="no dataset file"):
        validate_dataset(tmp_path)


@pytest.mark.parametrize("scale", ["abc", "1", "1 0", "1 nan", "1 -1", "1 1 1"])
def test_an_action_scale_that_is_none_is_refused(scale):
    info = DatasetInfo("t", ("vision",), 1, 64, 2, {"action_scale": scale})
    with pytest.raises(UserError, match="action_scale must be 2 numbers above 0"):
        _ = info.action_scale


def test_starts_that_fall_are_refused_whatever_their_type(data):
    with h5py.File(data, "a") as file:
        starts = file["episode_starts"][()].astype(np.uint64)
        starts[[1, 2]] = starts[[2, 1]]
        del file["episode_starts"]
        file["episode_starts"] = starts
    with pytest.raises(DatasetError, match="'episode_starts' must rise"):
        validate_dataset(data)


def test_whole_numbers_of_any_kind_are_read_alike(data, toy_dataset):
    with h5py.File(data, "a") as file:
        for name, kind in (("episode_starts", "u8"), ("episode_policies", "u1"), ("rewards", "f8")):
            values = file[name][()].astype(kind)
            del file[name]
            file[name] = values
    assert list(table(summarise(data))) == list(table(summarise(toy_dataset)))
    assert [x.length for x in read_episodes(data)] == [x.length for x in read_episodes(toy_dataset)]


def test_archives_that_unpack_to_more_than_memory_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "chunk.npz", action=np.zeros((10**6, 2)))
    require_unpacked(tmp_path / "chunk.npz")
    monkeypatch.setattr(memory, "free_memory", lambda: 10**7)
    with pytest.raises(DatasetError, match=r"unpacks to 0\.0 GiB"):
        require_unpacked(tmp_path / "chunk.npz")
