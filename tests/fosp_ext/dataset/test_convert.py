"""Conversions: nothing is lost on the way and back; files of DSRL and Minari are read."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from dreamer.data.episode import Episode
from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from fosp_ext.dataset.__main__ import main
from tests.support.commands import snapshot
from tests.support.conversions import (
    INFO,
    LABELS,
    assert_same,
    assert_same_files,
    convert,
    write_own,
)
from tests.support.toy_data import toy_episode

TARGETS = {"dsrl": "out.hdf5", "minari": "toy-v0", "dreamer": "chunks"}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset `own.h5`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_own("own.h5")
    return tmp_path / "own.h5"


# there and back


@pytest.mark.parametrize("kind", TARGETS)
def test_nothing_is_lost_on_the_way_and_back(own, kind):
    convert("own.h5", TARGETS[kind], "--to", kind)
    convert(TARGETS[kind], "back.h5", "--from", kind)
    assert_same_files("own.h5", "back.h5")


@pytest.mark.parametrize("kind", TARGETS)
def test_one_small_camera_of_another_name(own, kind):
    """Below 32 pixels Minari stores images in another way."""
    info = replace(INFO, cameras=("fixedfar",), size=16)
    episodes = [
        replace(episode, images={"fixedfar": episode.images["vision"][:, 20:36, 20:36]})
        for episode in read_episodes("own.h5")
    ]
    write_dataset("small.h5", episodes, info)
    convert("small.h5", TARGETS[kind], "--to", kind)
    convert(TARGETS[kind], "back.h5", "--from", kind)
    assert_same_files("small.h5", "back.h5")


@pytest.mark.parametrize("kind", TARGETS)
def test_the_order_and_the_names_of_cameras_are_kept(own, kind):
    """Also names that mean other images in the other format."""
    names = {"wrist": "vision", "image": "vision_back"}
    episodes = [
        replace(episode, images={new: episode.images[old] for new, old in names.items()})
        for episode in read_episodes("own.h5")
    ]
    write_dataset("named.h5", episodes, replace(INFO, task="my:Env", cameras=tuple(names)))
    convert("named.h5", TARGETS[kind], "--to", kind)
    convert(TARGETS[kind], "back.h5", "--from", kind)
    assert_same_files("named.h5", "back.h5")
    words = ["--cameras", "image", "--rename", "image=front", "--size", "32"]
    convert(TARGETS[kind], "one.h5", "--from", kind, *words)
    info = validate_dataset("one.h5")
    assert (info.cameras, info.size, info.task) == (("front",), 32, "my:Env")


def test_over_all_kinds_without_a_stop_at_ours(own):
    convert("own.h5", "one-v0", "--to", "minari")
    convert("one-v0", "two", "--from", "minari", "--to", "dreamer")
    convert("two", "three.hdf5", "--from", "dreamer", "--to", "dsrl")
    convert("three.hdf5", "back.h5", "--from", "dsrl")
    assert_same_files("own.h5", "back.h5")


# DSRL


@pytest.fixture(scope="module")
def dsrl() -> ModuleType:
    """DSRL's reader by itself: the package around it would import simulators."""
    (folder,) = importlib.util.find_spec("dsrl").submodule_search_locations
    spec = importlib.util.spec_from_file_location("dsrl_reader", Path(folder) / "offline_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dsrl_reads_what_we_write(own, dsrl):
    from gymnasium.spaces import Box

    convert("own.h5", "out.hdf5", "--to", "dsrl")
    env = dsrl.OfflineEnv()
    env.observation_space = Box(0, 255, (64, 64, 6), np.uint8)
    env.action_space = Box(-1, 1, (2,))
    data = env.get_dataset("out.hdf5")
    done = data["terminals"] | data["timeouts"]
    assert np.flatnonzero(done).tolist() == [6, 18, 23, 32]
    assert np.flatnonzero(data["terminals"]).tolist() == [23]
    begin = 0
    for episode in read_episodes("own.h5"):
        rows = slice(begin, begin + episode.length)
        both = np.concatenate(list(episode.images.values()), -1)  # (T+1, 64, 64, 6)
        np.testing.assert_array_equal(data["observations"][rows], both[:-1])
        np.testing.assert_array_equal(data["next_observations"][rows], both[1:])
        for key, values in (
            ("actions", episode.action),
            ("rewards", episode.reward),
            ("costs", episode.cost),
        ):
            np.testing.assert_array_equal(data[key][rows], values)
        begin += episode.length


def write_plain_dsrl(path: Path, **changes: np.ndarray) -> None:
    """The seven keys alone, as DSRL documents them; two episodes of one camera, the last open."""
    one, two = toy_episode(6, 1, terminated=True), toy_episode(4, 2)
    frames = [episode.images["vision"] for episode in (one, two)]
    arrays = {
        "observations": np.concatenate([f[:-1] for f in frames]),
        "next_observations": np.concatenate([f[1:] for f in frames]),
        "actions": np.concatenate([one.action, two.action]),
        "rewards": np.concatenate([one.reward, two.reward])[:, None],  # (N, 1) is allowed
        "costs": np.concatenate([one.cost, two.cost]),
        "terminals": np.arange(10) == 5,
        "timeouts": np.zeros(10),
    }
    with h5py.File(path, "w") as file:
        for key, value in {**arrays, **changes}.items():
            if value is not None:
                file[key] = value


def test_a_plain_dsrl_file_is_read(own, capsys):
    write_plain_dsrl(Path("plain.hdf5"))
    convert("plain.hdf5", "new.h5", "--from", "dsrl", *LABELS, "--policy", "theirs")
    assert (
        "note: 1 episodes without an end in the source, taken as cut off" in capsys.readouterr().out
    )
    info = validate_dataset("new.h5")
    assert (info.cameras, info.environment["render"], info.action_repeat) == (
        ("vision",),
        "exact",
        4,
    )
    for seed, episode in zip((1, 2), read_episodes("new.h5"), strict=True):
        wanted = toy_episode((6, 4)[seed - 1], seed, terminated=seed == 1)
        only = {"vision": wanted.images["vision"]}
        assert_same(replace(wanted, images=only, policy="theirs", seed=0), episode)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"rewards": None}, 4, "'rewards' is missing"),
        ({"costs": np.zeros(9)}, 4, "'costs' must have 10 rows"),
        ({"costs": np.full(10, -1.0)}, 4, "episode 0: cost must not be negative"),
        ({"actions": np.full((10, 2), 1.5)}, 2, "episode 0: actions from 1.5 to 1.5 leave the"),
        ({"observations": np.zeros((10, 60), np.float32)}, 2, "has no images"),
        ({"observations": np.zeros((10, 64, 64, 3), np.uint8)}, 4, "not the observation of the"),
    ],
)
def test_bad_dsrl_files_are_refused(own, capsys, changes, code, message):
    write_plain_dsrl(Path("plain.hdf5"), **changes)
    before = snapshot(own.parent)
    convert("plain.hdf5", "new.h5", "--from", "dsrl", *LABELS, code=code)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert snapshot(own.parent) == before


# Minari


@pytest.fixture(scope="module")
def minari() -> ModuleType:
    return importlib.import_module("minari")


def test_minari_reads_what_we_write_without_loss(own, minari):
    convert("own.h5", "group/toy-v3", "--to", "minari")
    dataset = minari.load_dataset("group/toy-v3")
    assert (dataset.total_episodes, dataset.total_steps) == (4, 33)
    assert dataset.observation_space["vision_back"].shape == (64, 64, 3)
    for theirs, episode in zip(dataset.iterate_episodes(), read_episodes("own.h5"), strict=True):
        for camera, frames in episode.images.items():
            np.testing.assert_array_equal(theirs.observations[camera], frames)
        np.testing.assert_array_equal(theirs.actions, episode.action)
        np.testing.assert_array_equal(theirs.rewards, episode.reward)
        np.testing.assert_array_equal(theirs.infos["cost"][1:], episode.cost)
        assert theirs.terminations.tolist() == [False] * (episode.length - 1) + [episode.terminated]
        assert theirs.truncations[-1] != episode.terminated


@pytest.mark.filterwarnings("ignore::UserWarning")  # about an author and a link to the code
@pytest.mark.parametrize("reset_has_infos", [True, False])
def test_minaris_own_files_are_read(own, minari, capsys, reset_has_infos):
    """Its images are JPEG, which is said; all else is exact."""
    from gymnasium.spaces import Box, Dict

    def buffer(episode: Episode) -> minari.data_collector.EpisodeBuffer:
        ends = np.arange(episode.length) == episode.length - 1
        speed = np.zeros((episode.length + 1, 3))
        return minari.data_collector.EpisodeBuffer(
            seed=episode.seed,
            observations={**episode.images, "speed": speed},
            actions=episode.action,
            rewards=list(episode.reward),
            terminations=list(ends & episode.terminated),
            truncations=list(ends & (not episode.terminated)),
            infos={"cost": np.append(np.zeros(int(reset_has_infos)), episode.cost)},
        )

    image = Box(0, 255, (64, 64, 3), np.uint8)
    minari.create_dataset_from_buffers(
        "theirs-v0",
        [buffer(episode) for episode in read_episodes("own.h5")],
        observation_space=Dict(vision=image, vision_back=image, speed=Box(0, 1, (3,))),
        action_space=Box(-1, 1, (2,)),
    )
    convert("theirs-v0", "new.h5", "--from", "minari", *LABELS, "--policy", "theirs")
    out = capsys.readouterr().out
    assert "note: 74 images stored as JPEG: close to what was drawn, not equal" in out
    assert "note: 4 episodes whose observations 'speed' were left out" in out
    for one, other in zip(read_episodes("own.h5"), read_episodes("new.h5"), strict=True):
        for camera, frames in one.images.items():
            error = np.abs(frames.astype(int) - other.images[camera])
            assert 0 < error.mean() < 3
        assert_same(replace(one, policy="theirs"), replace(other, images=one.images))


def test_bad_minari_datasets_are_refused(own, capsys):
    def refused(code: int) -> str:
        capsys.readouterr()
        convert("toy-v0", "new.h5", "--from", "minari", code=code)
        return capsys.readouterr().err.splitlines()[-1]

    assert "no Minari dataset: toy-v0/metadata.json is missing" in refused(2)
    convert("own.h5", "toy-v0", "--to", "minari")
    main_file, metadata = Path("toy-v0/data/main_data.hdf5"), Path("toy-v0/data/metadata.json")
    with h5py.File(main_file, "a") as file:
        file["episode_1/observations/vision"][3] = np.arange(40, dtype=np.uint8)
        del file["episode_2/infos/cost"]
    assert "an image cannot be decoded" in refused(4)
    with h5py.File(main_file, "a") as file:
        file["episode_1/observations/vision"][3] = file["episode_1/observations/vision"][2]
    assert "'episode_2/infos/cost' is missing" in refused(4)
    metadata.write_text(metadata.read_text()[:50])
    assert "metadata.json is not readable as JSON" in refused(4)
    convert("own.h5", "toy", "--to", "minari", code=2)
    assert "named like 'safe-goal-v0', not 'toy'" in capsys.readouterr().err
    assert not Path("new.h5").exists()


# all of them


@pytest.mark.parametrize("limit", [None, "7", "8"])
def test_time_limits_that_were_stored_as_ends(own, capsys, limit):
    """FOSP's data say that the task ended when the time was over."""
    write_dataset("ended.h5", [toy_episode(7, k, terminated=True) for k in range(3)], INFO)
    words = ["--time-limit", limit] if limit else []
    convert("ended.h5", "chunks", "--to", "dreamer", *words)
    said = "note: 3 episodes that ended the task, all of them" in capsys.readouterr().out
    assert said == (limit != "7")
    convert("chunks", "back.h5", "--from", "dreamer")
    assert [e.terminated for e in read_episodes("back.h5")] == [limit != "7"] * 3


@pytest.mark.parametrize("kind", TARGETS)
def test_nothing_is_overwritten_or_contradicted(own, capsys, kind):
    target = TARGETS[kind]
    convert("own.h5", target, "--to", kind)
    before = snapshot(own.parent)
    for words, message in (
        (["own.h5", target, "--to", kind], f"{target} exists already"),
        (["own.h5", "x-v0", "--to", kind, "--task", "a"], "own.h5 says its task itself"),
        (
            [target, "new.h5", "--from", kind, "--action-repeat", "2"],
            f"{target} says action_repeat 4 itself, not 2",
        ),
    ):
        convert(*words, code=2)
        assert message in capsys.readouterr().err
        assert snapshot(own.parent) == before


@pytest.mark.parametrize("kind", TARGETS)
def test_a_source_that_breaks_off_leaves_nothing(own, capsys, kind):
    """The third episode of ours cannot be decoded."""
    with h5py.File(own) as file:
        chunk = file["images/vision"].id.get_chunk_info(1)
    with own.open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\0" * 16)
    before = snapshot(own.parent)
    convert("own.h5", TARGETS[kind], "--to", kind, code=4)
    assert "own.h5 cannot be read, it seems damaged" in capsys.readouterr().err
    assert snapshot(own.parent) == before


def test_the_note_of_a_conversion_is_plain_json(own, capsys):
    convert("own.h5", "chunks", "--to", "dreamer")
    file = Path("chunks/fosp.json")
    note = json.loads(file.read_text())
    assert note["info"]["environment"]["variant"] == "night"
    assert note["episodes"] == [["safe", 30], ["unsafe", 31], ["safe", 32], ["unsafe", 33]]
    del note["info"]["environment"]
    for text, message in (
        ("[", "fosp.json is not readable as JSON"),
        ("[]", "fosp.json must be a JSON object"),
        (json.dumps(note), "'environment' is missing or wrong in its note 'fosp'"),
        (json.dumps({"episodes": []}), "does not say its task"),
    ):
        file.write_text(text)
        assert main(["convert", "chunks", "new.h5", "--from", "dreamer"]) in (2, 4)
        assert message in capsys.readouterr().err
    file.write_text(json.dumps({"episodes": note["episodes"][1:]}))
    convert("chunks", "new.h5", "--from", "dreamer", *LABELS, code=4)
    assert "fosp.json names 3 episodes, the chunks beside it hold 4" in capsys.readouterr().err


def test_actions_must_be_numbers(own, capsys):
    """A discrete action is one number per step, without an axis."""
    write_plain_dsrl(Path("discrete.hdf5"), actions=np.arange(10))
    convert("discrete.hdf5", "new.h5", "--from", "dsrl", *LABELS, code=2)
    assert "actions must be rows of numbers (N, A), their shape is (10,)" in capsys.readouterr().err
