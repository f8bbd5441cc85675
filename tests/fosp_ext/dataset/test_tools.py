"""Inspecting, validating, merging and splitting datasets; and the effect of a full disk."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import train
from dreamer.data.episode import ACTION_SCALE, Episode
from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from fosp_ext.dataset.__main__ import main
from fosp_ext.dataset.collect import env_choice, part_file, parts_folder
from fosp_ext.dataset.recording import part_note
from tests.support.commands import snapshot
from tests.support.toy_data import TOY_INFO, toy_episode

Refuse = Callable[..., str]


@pytest.fixture
def refuse(place: Path, capsys: pytest.CaptureFixture) -> Refuse:
    """Call the command with arguments it must refuse; return the one line it prints."""

    def call(words: str, code: int = 2) -> str:
        before = snapshot(place)
        capsys.readouterr()
        assert main(words.split()) == code
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if "per second" not in line]
        assert not out
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert snapshot(place) == before
        return lines[0]

    return call


def toy(path: Path, seeds: range, length: int = 6, **changes) -> Path:
    """A dataset of short episodes."""
    info = replace(TOY_INFO, **changes)
    size = info.size
    episodes = [toy_episode(length, seed) for seed in seeds]
    if size != 64 or info.action_size != 2 or info.cameras != TOY_INFO.cameras:
        episodes = [
            replace(
                episode,
                images=dict.fromkeys(info.cameras, episode.images["vision"][:, :size, :size]),
                action=np.resize(episode.action, (length, info.action_size)),
            )
            for episode in episodes
        ]
    write_dataset(path, episodes, info)
    return path


def seeds_in(path: str | Path) -> list[int]:
    return [episode.seed for episode in read_episodes(path)]


def same(one: Episode, other: Episode) -> bool:
    numbers = ("action", "reward", "cost", "terminated", "policy", "seed")
    images = [np.array_equal(one.images[name], other.images[name]) for name in one.images]
    return all(images) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in numbers
    )


# inspect


def test_inspect_prints_the_numbers_of_each_policy(place, capsys):
    assert main(["inspect", "data.h5", "--no-figure"]) == 0
    out = capsys.readouterr().out
    for words in (
        "SafetyPointGoal1-v0, variant none",
        "vision and vision_back, 64x64, fast",
        "6, of which 1 truly ended",
        "240",
        "numpy",
    ):
        assert words in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "+-" in line}
    episodes = list(read_episodes("data.h5"))
    for name, chosen in (("safe", episodes[::2]), ("unsafe", episodes[1::2]), ("all", episodes)):
        costs = [episode.total_cost for episode in chosen]
        share = 100 * np.mean(np.concatenate([episode.cost for episode in chosen]) > 0)
        assert rows[name][1] == str(len(chosen))
        assert float(rows[name][2]) == pytest.approx(np.mean([e.score for e in chosen]), abs=0.005)
        assert float(rows[name][5]) == pytest.approx(np.mean(costs), abs=0.005)
        assert float(rows[name][7]) == pytest.approx(np.std(costs), abs=0.005)
        assert float(rows[name][8]) == pytest.approx(share, abs=0.05)
    assert sorted(path.name for path in place.iterdir()) == ["data.h5"]


def test_inspect_draws_one_figure_and_never_over_another(place, capsys):
    (place / "data.png").write_text("precious")
    assert main(["inspect", "data.h5"]) == 0
    assert capsys.readouterr().out.endswith("figure: data-2.png\n")
    assert (place / "data.png").read_text() == "precious"
    image = np.asarray(Image.open(place / "data-2.png").convert("RGB"))
    assert min(image.shape[:2]) > 800
    for colour in ((40, 90, 160), (170, 60, 50), (208, 0, 0), (0, 114, 178), (213, 94, 0)):
        found = np.all(image == colour, -1).sum()  # ground, frames of cost, policies
        assert found > 200, colour
    assert main(["inspect", "data.h5", "--figure", "data.png"]) == 2
    assert capsys.readouterr().err.startswith("error: data.png exists already")


# validate


def damage_chunk(path: Path, camera: str) -> None:
    """Overwrite some bytes in the middle of a compressed chunk of images."""
    with h5py.File(path) as file:
        images = file[f"images/{camera}"]
        offset, size = (getattr(images.id.get_chunk_info(3), k) for k in ("byte_offset", "size"))
    with path.open("r+b") as raw:
        raw.seek(offset + size // 2)
        raw.write(b"\0" * 16)


def test_validate_decodes_every_image(place, refuse, capsys):
    assert main(["validate", "data.h5"]) == 0
    assert capsys.readouterr().out == (
        "data.h5: valid, 6 episodes, 240 transitions of SafetyPointGoal1-v0\n"
    )
    damage_chunk(place / "data.h5", "vision_back")
    validate_dataset("data.h5")  # what is quick to check is still good
    line = refuse("validate data.h5", code=4)
    assert "data.h5 is damaged: images 0 to 245 of camera 'vision_back'" in line


def test_validate_goes_through_all_files(place, capsys):
    whole = (place / "data.h5").read_bytes()
    (place / "short.h5").write_bytes(whole[: len(whole) // 2])
    shutil.copy("data.h5", "poor.h5")
    with h5py.File("poor.h5", "a") as file:
        del file["costs"]
    assert main(["validate", "short.h5", "gone.h5", "poor.h5", "data.h5"]) == 4
    out, err = capsys.readouterr()
    assert out.startswith("data.h5: valid")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "short.h5 is not a readable HDF5 dataset (it is truncated)" in lines[0]
    assert "no dataset file gone.h5" in lines[1]
    assert "poor.h5: 'costs' is missing" in lines[2]
    assert main(["validate", "gone.h5", "data.h5"]) == 2


@pytest.mark.parametrize(
    "words", ["inspect short.h5", "split short.h5 a.h5", "merge a.h5 short.h5"]
)
def test_every_command_refuses_a_damaged_file(place, refuse, words):
    whole = (place / "data.h5").read_bytes()
    (place / "short.h5").write_bytes(whole[: len(whole) // 2])
    assert "short.h5 is not a readable HDF5 dataset" in refuse(words, code=4)


def test_damage_anywhere_is_one_line(place, refuse):
    """HDF5 meets damage with errors of many kinds."""
    toy(place / "small.h5", range(2))
    whole = (place / "small.h5").read_bytes()
    rng = np.random.default_rng(0)
    codes = []
    for _ in range(60):
        at = int(rng.integers(len(whole) // 2)) if rng.random() < 0.3 else int(rng.integers(12_000))
        damaged = whole[:at] + rng.bytes(8) + whole[at + 8 :]
        (place / "small.h5").write_bytes(damaged)
        codes.append(main(["validate", "small.h5"]))
    assert set(codes) == {0, 4}
    assert codes.count(4) > 5


def test_damage_inside_leaves_no_half_written_file(place, refuse):
    damage_chunk(place / "data.h5", "vision")
    assert "data.h5 cannot be read, it seems damaged" in refuse("split data.h5 a.h5", code=4)


# merge


def test_merge_keeps_every_episode_and_alternates(place, capsys):
    toy(place / "few.h5", range(20, 22), length=9)
    assert main(["merge", "all.h5", "data.h5", "few.h5"]) == 0
    assert seeds_in("all.h5") == [0, 1, 20, 2, 3, 4, 21, 5]
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["all", "8"]
    before = {e.seed: e for name in ("data.h5", "few.h5") for e in read_episodes(name)}
    assert all(same(episode, before[episode.seed]) for episode in read_episodes("all.h5"))
    assert validate_dataset("all.h5") == TOY_INFO


@pytest.mark.parametrize(
    "change",
    [
        {"task": "SafetyPointGoal2-v0"},
        {"cameras": ("vision",)},
        {"action_repeat": 2},
        {"environment": {"render": "exact"}},
        {"size": 32},
        {"action_size": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_merge_refuses_what_does_not_fit(place, refuse, change):
    toy(place / "other.h5", range(2), **change)
    (name, value), *_ = change.get("environment", change).items()
    line = refuse("merge all.h5 data.h5 other.h5")
    have = {**vars(TOY_INFO), **TOY_INFO.environment}[name]
    assert f"other.h5 has {name} {value!r}, data.h5 has {have!r}" in line


@pytest.mark.parametrize("order", ["data.h5 other.h5", "other.h5 data.h5"])
def test_merge_refuses_another_action_scale(place, refuse, order):
    """Also where the first file is older and does not say that it covers the whole range."""
    toy(place / "other.h5", range(2), environment={**TOY_INFO.environment, ACTION_SCALE: "0.05 1"})
    assert "has action_scale" in refuse(f"merge all.h5 {order}")


def test_merge_notes_all_variants_and_versions(place):
    for name, seed, variant in (("a.h5", 1, "more"), ("b.h5", 2, "night")):
        info = replace(TOY_INFO, environment={"render": "fast", "variant": variant})
        write_dataset(name, [toy_episode(5, seed)], info, {"numpy": str(seed)})
    assert main(["merge", "ab.h5", "a.h5", "b.h5"]) == 0
    assert validate_dataset("ab.h5").environment["variant"] == "more,night"
    with h5py.File("ab.h5") as file:
        assert file.attrs["versions"] == '{"numpy": "1 or 2"}'


def test_merge_refuses_copies_and_existing_files(place, refuse):
    shutil.copy("data.h5", "copy.h5")
    assert "copy.h5 holds the same episodes as data.h5" in refuse("merge a.h5 data.h5 copy.h5")
    assert "copy.h5 exists already" in refuse("merge copy.h5 data.h5")


# split


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("--episodes 2", [0, 1]),
        ("--fraction 0.5", [0, 1, 2]),
        ("--policy unsafe", [1, 3, 5]),
        ("--policy unsafe --episodes 2", [1, 3]),
        ("--policy safe,unsafe --fraction 0.67", [0, 1, 2, 3]),
    ],
)
def test_split_divides_exactly(place, words, chosen):
    assert main(["split", "data.h5", "a.h5", "b.h5", *words.split()]) == 0
    assert seeds_in("a.h5") == chosen
    assert sorted(seeds_in("a.h5") + seeds_in("b.h5")) == list(range(6))
    before = list(read_episodes("data.h5"))
    parts = [*read_episodes("a.h5"), *read_episodes("b.h5")]
    assert all(same(episode, before[episode.seed]) for episode in parts)
    with h5py.File("data.h5") as old, h5py.File("a.h5") as new:
        assert old.attrs["versions"] == new.attrs["versions"]


def test_split_by_cost_and_at_random(place):
    costs = [episode.total_cost for episode in read_episodes("data.h5")]
    limit = sorted(costs)[2]
    assert main(["split", "data.h5", "cheap.h5", "--max-cost", str(limit)]) == 0
    assert seeds_in("cheap.h5") == [seed for seed, cost in enumerate(costs) if cost <= limit]
    chosen = []
    for name, seed in (("one", "1"), ("same", "1"), ("two", "2"), ("three", "3")):
        assert main(["split", "data.h5", f"{name}.h5", "--episodes", "3", "--seed", seed]) == 0
        chosen.append(seeds_in(f"{name}.h5"))
    assert chosen[0] == chosen[1]
    assert len({tuple(seeds) for seeds in chosen}) > 1
    assert all(seeds == sorted(seeds) for seeds in chosen)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.h5 --policy saef", "no policy 'saef'; did you mean 'safe'"),
        ("a.h5 --episodes 7", "6 episodes to choose from, 7 were to be"),
        ("a.h5 --episodes 0", "6 episodes to choose from, 0 were to be"),
        ("a.h5 --fraction 1.5", "fraction must lie above 0 and not above 1, got 1.5"),
        ("a.h5 --max-cost -1", "0 episodes to choose from"),
        ("a.h5 b.h5", "all 6 episodes of data.h5 go to a.h5; none is left for b.h5"),
        ("a.h5 a.h5 --episodes 1", "both parts would be written to a.h5"),
        ("data.h5 --episodes 1", "data.h5 exists already"),
        ("a.h5 data.h5 --episodes 1", "data.h5 exists already"),
        ("data.h5/a.h5 --episodes 1", "data.h5"),
    ],
)
def test_split_refuses_what_cannot_be(refuse, words, message):
    assert message in refuse(f"split data.h5 {words}")


# the command line


@pytest.mark.parametrize("command", ["inspect", "validate", "merge", "split", "convert"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"example:\n  python -m fosp_ext.dataset {command} " in capsys.readouterr().out


@pytest.mark.parametrize("words", ["", "inspetc data.h5", "merge a.h5", "split a b --episodes x"])
def test_wrong_arguments_exit_with_2(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert ": error: " in capsys.readouterr().err.splitlines()[-1]


# a full disk


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writing a file beyond `size` bytes fails in this block, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.9, 0.99, 0.999])
def test_a_disk_that_fills_while_writing_is_one_plain_error(tmp_path, toy_dataset, capfd, share):
    """At whatever byte it happens: in the images, the small arrays or HDF5's own notes."""
    episodes = list(read_episodes(toy_dataset))
    room = int(toy_dataset.stat().st_size * share)
    with files_up_to(room), pytest.raises(OSError, match="File too large"):
        write_dataset(tmp_path / "new.h5", episodes, TOY_INFO)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
    write_dataset(tmp_path / "new.h5", episodes, TOY_INFO)
    assert len(list(read_episodes(tmp_path / "new.h5"))) == 6


def test_a_full_disk_ends_a_command_in_one_line(place, refuse):
    with files_up_to(20_000):
        assert "File too large" in refuse("merge all.h5 data.h5")


def test_collecting_on_a_full_disk_keeps_what_was_recorded(place, monkeypatch, capsys):
    """Two parts fit; the third, and later the whole file, do not; then there is room again."""
    recorded = []

    def record_missing(parts, plan, settings, _):
        for job in plan:
            path = part_file(parts, job)
            if not path.exists():
                length = (3, 3, 60)[job.index]
                note = part_note(job, env_choice(settings))
                write_dataset(path, [toy_episode(length, job.index)], TOY_INFO, recording=note)
                recorded.append(job.index)

    monkeypatch.setattr("fosp_ext.dataset.collect._record_missing", record_missing)
    words = ["--configs", "collect", "debug", "--dataset.path", "new.h5", "--dataset.episodes", "3"]
    parts = parts_folder(Path("new.h5"))
    part, last = (toy(place / f"{k}.h5", range(1), k).stat().st_size for k in (3, 60))

    def attempt() -> str:
        capsys.readouterr()
        assert train.main(words) == 2
        assert not Path("new.h5").exists()
        *progress, line = capsys.readouterr().err.splitlines()
        assert all("per second" in other for other in progress)
        return line

    with files_up_to(2 * part):
        line = attempt()
    assert line.startswith("error: recording new.h5 failed: ")
    assert "File too large; finished episodes are kept in new.h5.parts, run the same" in line
    kept = sorted(parts.glob("*.hdf5"))
    assert [seeds_in(path) for path in kept] == [[0], [1]]
    with files_up_to(last + 3000):
        attempt()
    assert [seeds_in(path) for path in sorted(parts.glob("*.hdf5"))] == [[0], [1], [2]]
    assert train.main(words) == 0
    assert recorded == [0, 1, 2]
    assert seeds_in("new.h5") == [0, 1, 2]
    assert not parts.exists()
