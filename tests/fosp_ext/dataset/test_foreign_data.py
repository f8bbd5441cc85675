"""One's own data: what was recorded is what is played, whatever its format, range and size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import train
from dreamer.data.hdf5 import read_episodes, validate_dataset
from dreamer.data.images import resized
from dreamer.errors import DatasetError, UserError
from dreamer.training.checkpoint import Checkpoint
from fosp_ext.envs import make_env, make_run_env
from tests.support import robot
from tests.support.commands import snapshot
from tests.support.conversions import assert_same_files, convert

TASK = "tests.support.robot:Robot"
LABELS = ["--task", TASK, "--action-repeat", "1"]
RANGE = ["--action-low", "-2", "--action-high", "2"]
WRITERS: dict[str, Callable] = {
    "minari": robot.write_minari,
    "dsrl": robot.write_dsrl,
    "robomimic": robot.write_robomimic,
    "dreamer": robot.write_chunks,
}
UNNAMED = ("dsrl", "dreamer")  # their one image has no name of its own
KINDS = pytest.mark.parametrize("kind", WRITERS)
SILENT = pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "minari"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(kind: str, played: list[robot.Played] | None = None, **more) -> list[str]:
    """A file of this kind; the words that convert it, but for the range of its actions."""
    WRITERS[kind](Path("theirs"), played or robot.episodes(), **more)
    rename = "image=front" if kind in UNNAMED else "pixels.front=front"
    named = ["--rename", rename] if kind != "robomimic" else []
    return ["theirs", "new.h5", "--from", kind, *LABELS, *named]


def refused(capsys: pytest.CaptureFixture, *words: str, code: int = 2) -> str:
    before = snapshot(Path())
    capsys.readouterr()
    convert(*words, code=code)
    assert snapshot(Path()) == before
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


# actions


@KINDS
def test_what_was_recorded_is_what_is_played(here, capsys, kind):
    """The converted actions, played in the environment, earn what was recorded."""
    words = written(kind)
    convert(*words, *([] if kind == "minari" else RANGE))
    assert "note: actions scaled from -2 to 2 to -1 to 1" in capsys.readouterr().out
    info = validate_dataset("new.h5")
    env = make_run_env(info, "none")
    for seed, episode in enumerate(read_episodes("new.h5")):
        env.reset(seed=seed)
        for t, action in enumerate(episode.action):
            obs, reward, *_, info_ = env.step(action)
            assert reward == pytest.approx(episode.reward[t], abs=1e-5)
            assert info_["cost"] == episode.cost[t]
            np.testing.assert_array_equal(obs["front"], episode.images["front"][t + 1])
            for name in info.vectors:
                np.testing.assert_allclose(obs[name], episode.vectors[name][t + 1], atol=1e-5)


@SILENT
def test_a_range_that_no_file_says_is_asked_for(here, capsys, kind):
    words = written(kind)
    assert "theirs does not say the range of its actions; give the range" in refused(capsys, *words)
    assert "belong together" in refused(capsys, *words, "--action-low", "-2")
    wrong = ["--action-low", "-2", "-2", "-2", "--action-high", "2"]
    assert "--action-low has 3 numbers; an action has 2" in refused(capsys, *words, *wrong)
    wrong = ["--action-low", "2", "--action-high", "-2"]
    assert "the lower below the upper, not 2 to -2" in refused(capsys, *words, *wrong)


def test_minaris_infinite_bounds_are_no_range(here, capsys):
    words = written("minari", low=-np.inf, high=np.inf)
    assert "does not say the range of its actions" in refused(capsys, *words)
    convert(*words, *RANGE)
    assert validate_dataset("new.h5").action_bounds == ((-2.0, -2.0), (2.0, 2.0))


def test_what_the_user_says_counts_more_than_the_file(here, capsys):
    words = written("minari", low=-4.0, high=4.0)
    convert(*words, *RANGE)
    assert "from -2 to 2 to -1 to 1, as told; the file says -4 to 4" in capsys.readouterr().out
    assert np.abs(next(read_episodes("new.h5")).action).max() > 0.8


def with_action(number: float) -> list[robot.Played]:
    first, *others = robot.episodes()
    action = first.action.copy()
    action[3, 1] = number
    return [first._replace(action=action), *others]


@KINDS
def test_a_number_beyond_the_range_by_rounding_is_clipped_and_counted(here, capsys, kind):
    words = written(kind, with_action(2 * 1.0000001))
    convert(*words, *([] if kind == "minari" else RANGE))
    assert "note: 1 action numbers beyond the range by rounding" in capsys.readouterr().out
    assert next(read_episodes("new.h5")).action[3, 1] == 1


@KINDS
def test_numbers_further_beyond_the_range_are_refused_with_the_way_on(here, capsys, kind):
    words = [*written(kind, with_action(-2.5)), *([] if kind == "minari" else RANGE)]
    line = refused(capsys, *words)
    assert "episode 0: actions from -2.5 to " in line
    assert "leave the range -2 to 2; give the range that the environment has" in line
    assert "--clip-actions" in line
    convert(*words, "--clip-actions")
    assert "note: 1 action numbers beyond the range, clipped" in capsys.readouterr().out
    assert next(read_episodes("new.h5")).action[3, 1] == -1


def test_an_environment_of_another_range_than_the_data_is_refused(here, monkeypatch):
    words = written("minari", low=-4.0, high=4.0)
    convert(*words)
    with pytest.raises(UserError, match="takes actions from -2 to 2, the recorded ones were from"):
        make_run_env(validate_dataset("new.h5"), "none")


def test_converted_files_keep_their_range_over_all_formats(here):
    convert(*written("minari"))
    convert("new.h5", "one-v0", "--to", "minari")
    convert("one-v0", "two", "--from", "minari", "--to", "dreamer")
    convert("two", "three.hdf5", "--from", "dreamer", "--to", "dsrl")
    convert("three.hdf5", "back.h5", "--from", "dsrl")
    assert_same_files("new.h5", "back.h5")
    assert validate_dataset("back.h5").vectors == {"joints": 3}


def test_the_actions_of_a_converted_file_have_no_other_range(here, capsys):
    convert(*written("minari"))
    convert("new.h5", "one-v0", "--to", "minari")
    line = refused(capsys, "one-v0", "again.h5", "--from", "minari", *RANGE)
    assert "one-v0 says itself that its actions lie in -1 to 1" in line


# images


@KINDS
def test_images_of_any_size_are_resized_by_area(here, capsys, kind):
    played = robot.episodes(robot.OblongRobot)
    words = [*written(kind, played), *([] if kind == "minari" else RANGE)]
    line = refused(capsys, *words)
    assert "these are" in line
    assert "48x24: --size 64 resizes them" in line
    assert "a power of two from 8" in refused(capsys, *words, "--size", "12")
    convert(*words, "--size", "8")
    out = capsys.readouterr().out
    assert "note: images of front resized from 48x24 to 8x8, stretched to a square" in out
    first = next(read_episodes("new.h5")).images["front"]
    wanted = np.stack([resized(frame, 8) for frame in played[0].images])
    np.testing.assert_array_equal(first, wanted)
    block = played[0].images[0, :3, :6].astype(float).mean((0, 1))
    assert np.abs(first[0, 0, 0] - block).max() <= 1


def test_the_environment_shows_what_is_converted(here):
    """The wrapper and the converter resize alike."""
    task = "tests.support.robot:OblongRobot"
    convert(*written("minari", robot.episodes(robot.OblongRobot)), "--size", "16", "--task", task)
    env = make_env(task, ("front",), 16, 1, vectors=("joints",))
    obs, _ = env.reset(seed=0)
    first = next(read_episodes("new.h5"))
    np.testing.assert_array_equal(obs["front"], first.images["front"][0])
    np.testing.assert_array_equal(obs["joints"], first.vectors["joints"][0])


# names


@pytest.mark.parametrize(("kind", "name"), [("dsrl", "image"), ("dreamer", "image")])
def test_a_single_camera_is_called_image_as_the_environment_calls_it(here, kind, name):
    WRITERS[kind](Path("theirs"), robot.episodes())
    convert("theirs", "new.h5", "--from", kind, *LABELS, *RANGE)
    assert validate_dataset("new.h5").cameras == (name,)


def test_a_single_minari_image_is_called_image_too(here):
    robot.write_minari(Path("theirs"), robot.episodes())
    with h5py.File("theirs/data/main_data.hdf5", "a") as file:
        for episode in file.values():
            images = episode["observations/pixels/front"][()]
            del episode["observations"]
            episode["observations"] = images
    convert("theirs", "new.h5", "--from", "minari", *LABELS)
    info = validate_dataset("new.h5")
    assert (info.cameras, info.vectors) == (("image",), {})
    task = ["--task", "SafetyPointGoal1-v0", "--action-repeat", "4"]
    convert("theirs", "goal.h5", "--from", "minari", *task)
    assert validate_dataset("goal.h5").cameras == ("vision",)


def test_nested_observations_are_found_and_all_others_are_named(here, capsys):
    robot.write_minari(Path("theirs"), robot.episodes())
    convert("theirs", "new.h5", "--from", "minari", *LABELS)
    info = validate_dataset("new.h5")
    assert (info.cameras, info.vectors) == (("pixels.front",), {"joints": 3})
    assert "render" not in info.environment
    out = capsys.readouterr().out
    assert "note: 3 episodes whose observations 'mode' were left out" in out
    assert f"train on it: python train.py --configs fosp_offline --task {TASK}" in out
    assert "--env.cameras pixels.front --env.vectors joints --env.size 16" in out


def two_cameras() -> None:
    robot.write_robomimic(Path("theirs"), robot.episodes())
    with h5py.File("theirs", "a") as file:
        for demo in file["data"].values():
            for part in ("obs", "next_obs"):
                demo[f"{part}/wrist"] = 255 - demo[f"{part}/front"][()]


def test_cameras_are_chosen_and_renamed(here, capsys):
    two_cameras()
    words = ["theirs", "new.h5", "--from", "robomimic", *LABELS, *RANGE]
    assert "to rename; did you mean 'wrist'?" in refused(capsys, *words, "--rename", "wist=a")
    assert "'joints' would name images and a vector" in refused(
        capsys, *words, "--rename", "wrist=joints"
    )
    assert "needs a name of its own" in refused(capsys, *words, "--rename", "wrist=front")
    assert "render is a choice of Safety-Gymnasium's" in refused(capsys, *words, "--render", "fast")
    convert(*words, "--cameras", "wrist", "--rename", "wrist=hand,joints=arm")
    info = validate_dataset("new.h5")
    assert (info.cameras, info.vectors) == (("hand",), {"arm": 3})
    assert "note: 3 episodes whose observations 'front' were left out" in capsys.readouterr().out


# training on it


def training(configs: str, *words: str) -> list[str]:
    return [
        *("--configs", configs, "debug", "--device", "cpu", "--task", TASK),
        *("--dataset.path", "new.h5", "--env.size", "16", "--env.action_repeat", "1"),
        *("--run.updates", "2", "--run.heldout_every", "0", "--run.batch_length", "4"),
        *("--logdir", f"runs/{configs}", *words),
    ]


def newest(run: str) -> dict:
    return Checkpoint.load(Checkpoint(Path(run) / "checkpoints", 1).latest())


def test_a_dataset_with_more_than_is_wanted_is_used(here, capsys):
    two_cameras()
    convert("theirs", "new.h5", "--from", "robomimic", *LABELS, *RANGE)
    capsys.readouterr()
    words = training("fosp_offline", "--env.cameras", "wrist")
    assert train.main(words) == 0
    said = capsys.readouterr().err
    assert "not used: cameras front; with them: --env.cameras wrist,front" in said
    assert "not used: vectors joints; with them: --env.vectors joints" in said
    state = newest("runs/fosp_offline")
    assert state["info"]["cameras"] == ["wrist"]
    assert not [name for name in state["agent"] if "vector" in name]
    assert train.main([*words, "--run.updates", "3"]) == 0  # it goes on


@KINDS
def test_data_without_costs_train_what_needs_none(here, capsys, kind):
    words = [*written(kind, costs=False), *([] if kind == "minari" else RANGE)]
    convert(*words)
    assert "note: no costs: the new file trains dreamerv3 and bc; FOSP and" in (
        capsys.readouterr().out
    )
    before = snapshot(Path())
    for configs in ("fosp_offline", "safedreamer"):
        assert train.main(training(configs, "--env.cameras", "front")) == 2
        assert "new.h5 has no costs, from which" in capsys.readouterr().err
    assert snapshot(Path()) == before
    if kind == "robomimic":
        for configs in ("dreamerv3", "bc"):
            assert train.main(training(configs, "--env.cameras", "front")) == 0


FUNCTIONS = """
import numpy as np

def right_side(arrays):
    return (arrays["next_obs/joints"][:, 1] > 0.6).astype(float)

def both(arrays):
    return right_side(arrays), -arrays["rewards"]

def nested(arrays):
    assert arrays["observations/pixels/front"].shape == (13, 16, 16, 3)
    return arrays["observations/joints"][1:, 1] > 0.6

def rows(arrays):
    return arrays["joints"][1:, 1] > 0.6

def ours(arrays):
    return 2 * arrays["costs"] + 0 * arrays["vectors/joints"][1:, 0]

def wrong_length(arrays):
    return np.zeros(3)

def negative(arrays):
    return -np.ones(len(arrays["rewards"]))

def broken(arrays):
    return arrays["nothing"]
"""


@pytest.mark.parametrize(
    ("kind", "name"),
    [("robomimic", "right_side"), ("robomimic", "both"), ("minari", "nested"), ("dreamer", "rows")],
)
def test_costs_and_rewards_are_computed_from_the_recorded_arrays(here, kind, name):
    played = robot.episodes()
    Path("my_costs.py").write_text(FUNCTIONS)
    words = [*written(kind, played, costs=False), *([] if kind == "minari" else RANGE)]
    convert(*words, "--cost-from", f"my_costs:{name}")
    assert validate_dataset("new.h5").has_costs
    for theirs, ours in zip(played, read_episodes("new.h5"), strict=True):
        np.testing.assert_array_equal(ours.cost, theirs.cost)
        np.testing.assert_allclose(ours.reward, (-1 if name == "both" else 1) * theirs.reward)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_costs", "is not MODULE:FUNCTION"),
        ("nowhere:f", "--cost-from 'nowhere:f': no module 'nowhere'"),
        ("my_costs:right_sid", "has no function 'right_sid'; did you mean 'right_side'?"),
        ("my_costs:wrong_length", "must return 12 finite costs, one for each transition"),
        ("my_costs:negative", "returned costs below 0"),
        ("my_costs:broken", "raised KeyError in "),
    ],
)
def test_cost_functions_that_do_not_work_are_refused(here, capsys, spec, message):
    Path("my_costs.py").write_text(FUNCTIONS)
    words = [*written("robomimic"), *RANGE, "--cost-from", spec]
    before = sorted(Path().iterdir())
    convert(*words, code=2)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path for path in Path().iterdir() if path.suffix == ".h5"] == []
    assert set(before) <= set(Path().iterdir())


def test_costs_below_the_threshold_are_noted(here, capsys):
    played = [each._replace(cost=each.cost * 0.1) for each in robot.episodes()]
    convert(*written("robomimic", played), *RANGE)
    out = capsys.readouterr().out
    assert "note: the largest cost of a step is 0.1, so none violates" in out
    assert "train with --env.violation 0.1 or less, the default is 0.5" in out


# files of ours, and of Minari itself


def test_a_file_of_ours_is_resized_chosen_from_and_given_costs(here, capsys):
    Path("my_costs.py").write_text(FUNCTIONS)
    two_cameras()
    convert("theirs", "new.h5", "--from", "robomimic", *LABELS, *RANGE)
    assert "both sides are 'fosp'" in refused(capsys, "new.h5", "b.h5")
    assert "new.h5 says its task itself" in refused(
        capsys, "new.h5", "b.h5", "--size", "8", "--task", "a:b"
    )
    words = ["--size", "8", "--cameras", "wrist", "--rename", "wrist=hand"]
    convert("new.h5", "small.h5", *words, "--cost-from", "my_costs:ours")
    info = validate_dataset("small.h5")
    assert (info.cameras, info.size, info.vectors) == (("hand",), 8, {"joints": 3})
    assert info.environment == validate_dataset("new.h5").environment
    for old, new in zip(read_episodes("new.h5"), read_episodes("small.h5"), strict=True):
        np.testing.assert_array_equal(new.action, old.action)
        np.testing.assert_array_equal(new.cost, 2 * old.cost)
        np.testing.assert_array_equal(new.images["hand"][2], resized(old.images["wrist"][2], 8))


@pytest.mark.parametrize("text", ["left right", "-2", "-2 nan"])
def test_a_damaged_range_is_refused(here, text):
    convert(*written("minari"))
    with h5py.File("new.h5", "a") as file:
        facts = json.loads(file.attrs["environment"])
        file.attrs["environment"] = json.dumps(facts | {"action_low": text})
    with pytest.raises(DatasetError, match="'action_low' in attribute 'environment' must be 2 num"):
        validate_dataset("new.h5")


@pytest.mark.filterwarnings("ignore::UserWarning")  # about an author and a link to the code
def test_a_dataset_that_minari_wrote(here, capsys, monkeypatch):
    import minari
    from gymnasium.spaces import Box, Dict

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here))
    played = robot.episodes(robot.OblongRobot)
    buffers = [
        minari.data_collector.EpisodeBuffer(
            seed=each.seed,
            observations={"pixels": {"front": each.images}, "joints": each.joints},
            actions=each.action,
            rewards=list(each.reward),
            terminations=[False] * len(each.reward),
            truncations=[False] * (len(each.reward) - 1) + [True],
            infos={"cost": each.cost},
        )
        for each in played
    ]
    front = Box(0, 255, robot.OblongRobot.shape, np.uint8)
    minari.create_dataset_from_buffers(
        "theirs-v0",
        buffers,
        observation_space=Dict(pixels=Dict(front=front), joints=Box(-np.inf, np.inf, (3,))),
        action_space=Box(-2, 2, (2,)),
    )
    convert("theirs-v0", "new.h5", "--from", "minari", *LABELS, "--size", "16")
    assert "actions scaled from -2 to 2 to -1 to 1, as the file says" in capsys.readouterr().out
    info = validate_dataset("new.h5")
    assert (info.cameras, info.vectors) == (("pixels.front",), {"joints": 3})
    for theirs, ours in zip(played, read_episodes("new.h5"), strict=True):
        np.testing.assert_allclose(2 * ours.action, theirs.action, atol=1e-6)
        np.testing.assert_array_equal(ours.vectors["joints"], theirs.joints)
        np.testing.assert_array_equal(ours.cost, theirs.cost)


# robomimic


def test_demonstrations_without_next_observations(here, capsys):
    """Their last image stands for the one that is missing; demo_10 comes after demo_2."""
    played = robot.episodes(count=11)
    robot.write_robomimic(Path("theirs"), played)
    with h5py.File("theirs", "a") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
        file["data/demo_1/dones"][2] = True
    convert("theirs", "new.h5", "--from", "robomimic", *LABELS, *RANGE, "--policy", "human")
    out = capsys.readouterr().out
    assert "note: 11 episodes without next_obs" in out
    assert "note: 1 episodes with dones before their last step" in out
    for theirs, ours in zip(played, read_episodes("new.h5"), strict=True):
        np.testing.assert_array_equal(ours.images["front"][:-1], theirs.images[:-1])
        np.testing.assert_array_equal(ours.images["front"][-1], theirs.images[-2])
        assert (ours.policy, ours.terminated) == ("human", True)


@pytest.mark.parametrize(
    ("gone", "code", "message"),
    [
        ("data", 2, "theirs has no demonstrations: the group 'data' is missing"),
        ("data/demo_1/dones", 4, "theirs: 'data/demo_1/dones' is missing"),
        ("data/demo_1/obs", 4, "theirs: 'data/demo_1/obs' is missing"),
        ("data/demo_2/obs/front", 4, "theirs, demo_2: 'front' must have 12 observations"),
        ("data/demo_2/costs", 4, "theirs: 'data/demo_2/costs' is missing"),
    ],
)
def test_bad_robomimic_files_are_refused(here, capsys, gone, code, message):
    words = [*written("robomimic"), *RANGE]
    with h5py.File("theirs", "a") as file:
        del file[gone]
    assert message in refused(capsys, *words, code=code)


def test_robomimic_is_only_read(here, capsys):
    with pytest.raises(SystemExit, match="2"):
        convert("a.h5", "b.hdf5", "--to", "robomimic")
    assert "invalid choice: 'robomimic'" in capsys.readouterr().err


def test_notes_of_older_conversions_are_read(here):
    """They know no vectors."""
    convert(*written("minari"))
    convert("new.h5", "chunks", "--to", "dreamer")
    file = Path("chunks/fosp.json")
    note = json.loads(file.read_text())
    del note["info"]["vectors"]
    file.write_text(json.dumps(note))
    convert("chunks", "back.h5", "--from", "dreamer")
    assert validate_dataset("back.h5").vectors == {}
