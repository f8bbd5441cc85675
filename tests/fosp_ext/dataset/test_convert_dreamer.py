"""DreamerV3's chunks, written and read by the library's own driver and saver."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from tests.support.commands import snapshot
from tests.support.conversions import INFO, LABELS, convert, write_own
from tests.support.toy_data import toy_episode

ACTIONS = np.random.default_rng(7).uniform(-1, 1, (200, 2)).astype(np.float32)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset `own.h5`."""
    monkeypatch.chdir(tmp_path)
    write_own("own.h5")
    return tmp_path / "own.h5"


@pytest.fixture(scope="module")
def embodied() -> Iterator[ModuleType]:
    """The part of the dreamerv3 package that plays and records; the rest would need JAX."""
    (folder,) = importlib.util.find_spec("dreamerv3").submodule_search_locations
    sys.path.append(folder)
    yield importlib.import_module("embodied")
    sys.path.remove(folder)


def shade(action: np.ndarray) -> int:
    return int(127 + 100 * action[0])


def played_env(embodied: ModuleType, first: int, length: int) -> object:
    """An environment whose image, reward and cost encode the action before them."""

    class Telling(embodied.Env):
        obs_space = {  # noqa: RUF012
            "image": embodied.Space(np.uint8, (16, 16, 3)),
            "image2": embodied.Space(np.uint8, (16, 16, 3)),
            "log_extra": embodied.Space(np.float32),
            "reward": embodied.Space(np.float32),
            "cost": embodied.Space(np.float32),
            "is_first": embodied.Space(bool),
            "is_last": embodied.Space(bool),
            "is_terminal": embodied.Space(bool),
        }
        act_space = {  # noqa: RUF012
            "action": embodied.Space(np.float32, (2,), -1, 1),
            "reset": embodied.Space(bool),
        }
        count = length

        def step(self, action: dict) -> dict:
            begins = bool(action["reset"]) or self.count >= length
            self.count = 0 if begins else self.count + 1
            told = np.zeros(2, np.float32) if begins else action["action"]
            ends = self.count == length
            return {
                "image": np.full((16, 16, 3), shade(told), np.uint8),
                "image2": np.full((16, 16, 3), first + self.count, np.uint8),
                "log_extra": np.float32(0),
                "reward": np.float32(told.sum()),
                "cost": np.float32(told[1] > 0),
                "is_first": begins,
                "is_last": ends,
                "is_terminal": ends,
            }

    return Telling()


@pytest.fixture
def recorded(own, embodied) -> Path:
    """Two environments played by DreamerV3's driver, saved by its saver in chunks of 16 rows.

    Episodes of 9 and 11 transitions run over the ends of chunks, the last ones are not finished,
    and the last chunks were saved twice, the second time longer.
    """
    from embodied.replay.saver import Saver

    folder = Path("replay")
    saver = Saver(folder, chunks=16)
    envs = [played_env(embodied, 10, 9), played_env(embodied, 100, 11)]
    driver = embodied.Driver(embodied.BatchEnv(envs, parallel=False))
    keep = {"log_extra"}
    driver.on_step(
        lambda step, worker: saver.add({k: v for k, v in step.items() if k not in keep}, worker)
    )
    wide = 1.2 * ACTIONS.reshape(-1, 2, 2)  # policies may leave [-1, 1]; environments cut
    acts = iter(wide)
    driver(lambda obs, state: ({"action": next(acts)}, state), steps=2 * 39)
    saver.save(wait=True)
    driver(lambda obs, state: ({"action": next(acts)}, state), steps=2 * 4)
    saver.save(wait=True)
    return folder


def test_dreamers_own_chunks_are_read(recorded, capsys):
    convert("replay", "new.h5", "--from", "dreamer", *LABELS, "--clip-actions")
    out = capsys.readouterr().out
    info = validate_dataset("new.h5")
    assert (info.cameras, info.size, info.environment["render"]) == (
        ("vision", "vision_back"),
        16,
        "exact",
    )
    episodes = list(read_episodes("new.h5"))
    assert [episode.length for episode in episodes] == [9, 9, 9, 9, 2, 11, 11, 11, 6]
    assert "note: 2 episodes without an end in the source, taken as cut off" in out
    assert re.search(r"note: \d+ action numbers beyond the range, clipped", out)
    assert [e.terminated for e in episodes] == [True] * 4 + [False] + [True] * 3 + [False]
    for number, episode in enumerate(episodes):
        begin = 10 if number < 5 else 100
        shown = episode.images["vision"][:, 0, 0, 0].astype(int)
        inside = np.abs(episode.action).max(1) < 1
        assert inside.any()
        assert shown[0] == shade(np.zeros(2))
        # what came of action t: reward t, cost t and image t + 1
        wanted = np.array([shade(action) for action in episode.action])
        assert np.abs(shown[1:] - wanted)[inside].max() <= 1
        np.testing.assert_allclose(episode.reward[inside], episode.action.sum(1)[inside], 1e-5)
        np.testing.assert_array_equal(episode.cost, episode.action[:, 1] > 0)
        counted = episode.images["vision_back"][:, 0, 0, 0]
        np.testing.assert_array_equal(counted, begin + np.arange(episode.length + 1))


def test_dreamer_reads_what_we_write(own, embodied):
    from embodied.replay.saver import Saver

    episodes = [toy_episode(700, k) for k in range(2)]
    write_dataset("long.h5", episodes, INFO)
    convert("long.h5", "chunks", "--to", "dreamer")
    names = sorted(path.name for path in Path("chunks").glob("*.npz"))
    assert [int(name.split("-")[3][:-4]) for name in names] == [1024, 378]
    assert all(len(str(embodied.uuid(name.split("-")[1]))) == 22 for name in names)
    steps, streams = zip(*Saver("chunks").load(None, 1), strict=True)
    assert len(steps) == 1402
    assert len(set(streams)) == 1
    for number, episode in enumerate(episodes):
        rows = steps[701 * number : 701 * (number + 1)]
        flags = {key: [bool(row[key]) for row in rows] for key in ("is_first", "is_last")}
        assert flags["is_first"] == [True] + [False] * 700
        assert flags["is_last"] == [False] * 700 + [True]
        assert not any(row["is_terminal"] for row in rows)
        for t in (0, 1, 350, 699):
            np.testing.assert_array_equal(rows[t]["action"], episode.action[t])
            np.testing.assert_array_equal(rows[t + 1]["image"], episode.images["vision"][t + 1])
            assert rows[t + 1]["reward"] == episode.reward[t]
            assert rows[t + 1]["cost"] == episode.cost[t]
        assert rows[0]["reward"] == rows[0]["cost"] == 0
        assert not rows[-1]["action"].any()


def test_a_stream_without_its_beginning_is_kept_from_there_on(recorded, capsys):
    """The first chunks are gone, and with them rows 0 to 15: 10 rows of an episode and 6."""
    for path in sorted(recorded.glob("*-16.npz"))[:2]:
        path.unlink()
    convert("replay", "new.h5", "--from", "dreamer", *LABELS, "--clip-actions")
    assert "note: 2 episodes that began before the first chunk" in capsys.readouterr().out
    episodes = list(read_episodes("new.h5"))
    assert [episode.length for episode in episodes] == [3, 9, 9, 2, 7, 11, 6]
    counted = [episode.images["vision_back"][0, 0, 0, 0] for episode in episodes]
    assert counted == [16, 10, 10, 10, 104, 100, 100]


def test_rows_after_the_written_ones_are_not_data(recorded):
    """A saver's unfinished chunk has arrays of full length."""
    sizes = {int(path.stem.split("-")[3]): path for path in recorded.glob("*.npz")}
    short = min(sizes)
    assert short < 16
    assert len(np.load(sizes[short])["reward"]) == 16


def test_images_can_be_chosen_and_named(recorded):
    words = ["--from", "dreamer", *LABELS, "--clip-actions"]
    convert("replay", "new.h5", *words, "--cameras", "image2=vision")
    assert validate_dataset("new.h5").cameras == ("vision",)
    first = next(read_episodes("new.h5"))
    assert first.images["vision"][3, 0, 0, 0] == 13
    convert("replay", "two.h5", *words, "--rename", "image=fixednear,vision_back=track")
    assert validate_dataset("two.h5").cameras == ("fixednear", "track")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "replay does not say its task; give it: --task"),
        ("--task SafetyPointGoal1-v0", 2, "does not say its action repeat; give it: --action-rep"),
        ("--task SafetyPointGaol1-v0 --action-repeat 4", 2, "did you mean 'SafetyPointGoal1-v0'"),
        ("--task SafetyPointGoal1-v0 --action-repeat 0", 2, "at least 1, got 0"),
        ("--cameras left", 2, "no images 'left', only image, image2; --cameras chooses some"),
        ("--rename left=x", 2, "replay has no 'left' to rename"),
        ("--rename image", 2, "--rename wants old=new, not 'image'"),
        (" ".join(LABELS), 2, "leave the range -1 to 1; give the range that the environment has"),
        ("--cameras imag=vision", 2, "replay has no images 'imag', only image, image2"),
        ("--to dreamer", 2, "both sides are 'dreamer'"),
    ],
)
def test_what_is_missing_or_wrong_is_said(recorded, capsys, words, code, message):
    before = snapshot(Path())
    convert("replay", "new.h5", "--from", "dreamer", *words.split(), code=code)
    assert message in capsys.readouterr().err
    assert snapshot(Path()) == before


def test_damaged_chunks_are_refused(recorded, capsys):
    def refused(code: int = 4) -> str:
        capsys.readouterr()
        convert("replay", "new.h5", "--from", "dreamer", *LABELS, "--clip-actions", code=code)
        assert not Path("new.h5").exists()
        return capsys.readouterr().err.splitlines()[-1]

    path = max(recorded.glob("*-16.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path} cannot be read, it seems damaged" in refused()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(30) + whole[middle + 30 :])
    assert f"{path} cannot be read, it seems damaged" in refused()
    arrays = dict(np.load(recorded / min(p.name for p in recorded.glob("*-16.npz"))))
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if key != "cost"})
    assert "replay, episode 7: 'cost' is missing" in refused()
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if key != "reward"})
    assert f"{path}: 'reward' is missing" in refused()
    np.savez_compressed(path, **{key: value[:9] for key, value in arrays.items()})
    assert "has 9 rows, not 16" in refused()
    path.rename(recorded / "episode1.npz")
    assert "episode1.npz is not named <time>-<id>-<next id>-<rows>.npz" in refused()
    shutil.rmtree(recorded)
    assert "replay is not a folder of chunks" in refused(2)


def test_actions_stored_beside_the_image_they_led_to_are_refused(own, capsys):
    convert("own.h5", "chunks", "--to", "dreamer")
    (path,) = Path("chunks").glob("*.npz")
    arrays = dict(np.load(path))
    np.savez_compressed(path, **{**arrays, "action": np.roll(arrays["action"], 1, 0)})
    convert("chunks", "new.h5", "--from", "dreamer", code=4)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "episode 0: its first action is zero and its last is not" in line
