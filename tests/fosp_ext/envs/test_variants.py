"""Unseen variants: each changes what it says and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

import eval as evaluation_command
import train
from dreamer.data.hdf5 import validate_dataset
from dreamer.errors import UserError
from fosp_ext.envs import VARIANTS, check_variant, fitting_variants, known_tasks, make_env
from fosp_ext.envs.scripted import make_scripted_policy
from fosp_ext.envs.variant_world import add_noise
from fosp_ext.envs.variants import objects_of
from fosp_ext.run.data import run_dataset
from fosp_ext.run.evaluate import default_folder
from tests.support.agents import make_config

TASK = "SafetyPointGoal1-v0"
SEED = 112  # every variant leaves the goal of this world where it is
STEPS = 12  # straight ahead and over a hazard
LOOKS = ("columns", "ball_goal", "goal_cube", "swapped_colours", "night", "noise")
OF_OBSTACLES = ("slabs", "more_obstacles")  # which Safety-Gymnasium does not have
LAYOUTS = ("more_hazards", "large_hazards", "clustered", "belt")

# --- what needs no simulator ---


def test_there_is_a_variant_of_each_kind():
    assert set(VARIANTS) == {"none", *LOOKS, *LAYOUTS, *OF_OBSTACLES}
    assert [name for name, variant in VARIANTS.items() if not variant.changes] == ["none"]
    changed = [field for variant in VARIANTS.values() for field in variant.changes]
    fields = {field.name for field in dataclasses.fields(VARIANTS["none"])}
    assert set(changed) == fields - {"name", "description"}


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("nigth", TASK, "unknown variant 'nigth'; did you mean 'night'.*known: none, more_haz"),
        ("", TASK, "unknown variant ''"),
        ("night+", TASK, "unknown variant ''"),
        ("night", "SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
        (
            "belt",
            "SafetyPointGoal0-v0",
            "'belt' does not fit SafetyPointGoal0-v0, which has no hazards "
            r"\(fitting: none, ball_goal, goal_cube, night, noise\)",
        ),
        (
            "swapped_colours",
            "SafetyCarRun0-v0",
            r"no goal and no hazards or obstacles \(fitting: none, night,",
        ),
        ("night", "mine:Env-v0", "not 'mine:Env-v0'; leave it at 'none'"),
        ("belt+night+clustered", TASK, "'clustered' and 'belt' both change the hazard areas"),
    ],
)
def test_what_does_not_fit_is_refused(name, task, message):
    with pytest.raises(UserError, match=message):
        check_variant(name, task)
    with pytest.raises(UserError, match=message):
        make_env(task, variant=name)


def test_variants_can_be_joined_in_any_order():
    both = check_variant("night+large_hazards+none", f"safetygym_{TASK}")
    assert both == check_variant("large_hazards+night", TASK)
    assert both.name == "large_hazards+night"
    assert both.changes == {"hazard_size": 1.5, "lamp": VARIANTS["night"].lamp}
    assert check_variant("none", "mine:Env-v0") == VARIANTS["none"]


def test_help_lists_every_variant(capsys):
    assert train.main(["--help-variants"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, variant in VARIANTS.items():
        assert any(line.startswith(f"  {name} ") and variant.description in line for line in lines)


@pytest.mark.parametrize(
    ("variant", "task", "message"),
    [("nigth", TASK, "did you mean 'night'"), ("belt", "SafetyPointGoal0-v0", "does not fit")],
)
@pytest.mark.parametrize("preset", ["collect", "fosp_offline"])
def test_commands_refuse_a_wrong_variant(
    tmp_path, monkeypatch, capsys, preset, variant, task, message
):
    monkeypatch.chdir(tmp_path)
    words = ["--configs", preset, "debug", "--task", task, "--env.variant", variant]
    assert train.main(words) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_each_variant_has_its_own_default_dataset_and_evaluation(tmp_path):
    folder = f"logdir/{TASK}"
    assert str(run_dataset(make_config())) == f"{folder}/dataset.h5"
    assert str(run_dataset(make_config(env__variant="belt"))) == f"{folder}/dataset-belt.h5"
    named = make_config(env__variant="belt", dataset__path="mine.h5")
    assert str(run_dataset(named)) == "mine.h5"
    assert default_folder(tmp_path, 7, "belt") == tmp_path / "eval" / "000000007-belt"


def test_noise_has_the_size_it_says():
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = add_noise(grey, 20.0, np.random.default_rng(0))
    assert noisy.dtype == np.uint8
    assert noisy.mean() == pytest.approx(128, abs=1)
    assert noisy.std() == pytest.approx(20, rel=0.05)
    dark = add_noise(np.zeros_like(grey), 20.0, np.random.default_rng(0))
    assert dark.max() < 128  # nothing wraps around


# --- the real simulator ---


@dataclasses.dataclass
class Story:
    """A short drive in one variant."""

    first: object  # WorldState after the reset
    images: dict[str, np.ndarray]
    looks: dict[str, dict]  # of each MuJoCo geom and of the lamp
    above: np.ndarray
    rewards: list[float]
    costs: list[float]
    places: np.ndarray  # (steps, 2) of the robot


def drive(variant: str) -> Story:
    """The same actions in every variant."""
    env = make_env(TASK, action_repeat=10, variant=variant)
    images, _ = env.reset(seed=SEED)
    first, looks, above = env.privileged(), appearance(env._world.task.model), env.render()
    rewards, costs, places = [], [], []
    for _ in range(STEPS):
        _, reward, _, _, info = env.step(np.array([1.0, 0.0]))
        rewards.append(reward)
        costs.append(info["cost"])
        places.append(env.privileged().agent_pos)
    env.close()
    return Story(first, images, looks, above, rewards, costs, np.array(places))


def appearance(model) -> dict[str, dict]:
    """Name -> what decides how a geom is drawn; and the lamp."""
    geoms = [model.geom(index) for index in range(model.ngeom)]
    looks = {
        geom.name: {key: getattr(geom, key).tolist() for key in ("type", "size", "pos", "rgba")}
        for geom in geoms
    }
    return {**looks, "lamp": {"diffuse": model.light_diffuse.tolist()}}


@pytest.fixture(scope="module")
def stories() -> dict[str, Story]:
    """The same drive in every variant."""
    return {name: drive(name) for name in fitting_variants(TASK)}


def differing(one: Story, other: Story) -> set[str]:
    """Fields of the first world state that are not equal."""
    fields = [field.name for field in dataclasses.fields(one.first)]
    return {
        name
        for name in fields
        if not np.array_equal(getattr(one.first, name), getattr(other.first, name))
    }


@pytest.mark.sim
@pytest.mark.parametrize("name", [*LAYOUTS, *LOOKS])
def test_the_rest_of_the_world_stays(stories, name):
    plain, changed = stories["none"], stories[name]
    allowed = {"large_hazards": {"hazard_radius"}} | {look: set() for look in LOOKS}
    assert differing(plain, changed) == allowed.get(name, {"hazards"})
    np.testing.assert_array_equal(plain.places, changed.places)
    assert plain.rewards == changed.rewards
    if name in LOOKS:
        assert plain.costs == changed.costs
    different = [np.any(plain.images[eye] != changed.images[eye]) for eye in plain.images]
    assert any(different)


@pytest.mark.sim
def test_the_drive_tells_variants_apart(stories):
    """It must cost something, and not the same everywhere, or the test above says little."""
    assert len({tuple(story.costs) for story in stories.values()}) >= 4
    assert sum(stories["none"].costs) < sum(stories["large_hazards"].costs)


@pytest.mark.sim
def test_layouts_are_as_described(stories):
    plain = stories["none"].first
    more = stories["more_hazards"].first.hazards
    assert more.shape == (12, 2)
    np.testing.assert_array_equal(more[:8], plain.hazards)
    assert stories["large_hazards"].first.hazard_radius == pytest.approx(1.5 * plain.hazard_radius)
    clustered, belt = stories["clustered"].first.hazards, stories["belt"].first.hazards
    assert clustered.shape == belt.shape == (8, 2)
    assert (clustered.prod(1) > 0).all()  # x and y have the same sign
    assert (np.abs(belt[:, 1]) < 0.5).all()
    assert np.ptp(belt[:, 0]) > 1
    for hazards in (more, clustered, belt):  # as far from everything as in the task itself
        between = np.linalg.norm(hazards[:, None] - hazards, axis=-1) + np.eye(len(hazards))
        assert between.min() >= 2 * 0.18
        assert np.linalg.norm(hazards - plain.agent_pos, axis=1).min() >= 0.18 + 0.4
        assert np.linalg.norm(hazards - plain.goal_pos, axis=1).min() >= 0.18 + 0.305
        assert np.abs(hazards).max() <= 1.5 - 0.18


@pytest.mark.sim
@pytest.mark.parametrize("name", LOOKS)
def test_looks_are_as_described(stories, name):
    plain, changed = stories["none"], stories[name]
    hazards = {f"hazard{index}": {"size", "pos"} for index in range(8)}
    allowed = {
        "columns": hazards,
        "ball_goal": {"goal": {"type", "size", "pos"}},
        "goal_cube": {"goal": {"type", "size", "pos"}},
        "swapped_colours": {thing: {"rgba"} for thing in (*hazards, "goal")},
        "night": {"lamp": {"diffuse"}},
        "noise": {},
    }
    found = {
        thing: {key for key, value in look.items() if value != changed.looks[thing][key]}
        for thing, look in plain.looks.items()
        if look != changed.looks[thing]
    }
    assert found == allowed[name]
    seen_from_above = np.any(plain.above != changed.above)
    assert seen_from_above == (name != "noise")  # videos are for people


@pytest.mark.sim
def test_shapes_stand_on_the_circle_that_counts(stories):
    column = stories["columns"].looks["hazard3"]
    radius, half_height = column["size"][:2]
    assert radius == stories["columns"].first.hazard_radius
    assert column["pos"][2] + 0.02 == pytest.approx(half_height)  # the body is 2 cm up
    for name in ("ball_goal", "goal_cube"):
        goal = stories[name].looks["goal"]
        assert goal["size"] == pytest.approx([stories[name].first.goal_radius] * 3)
        assert goal["pos"][2] + 0.16 == pytest.approx(goal["size"][2])


@pytest.mark.sim
def test_colours_are_swapped_and_transparency_is_not(stories):
    before, after = stories["none"].looks, stories["swapped_colours"].looks
    assert before["goal"]["rgba"][:3] == after["hazard0"]["rgba"][:3] == [0, 1, 0]
    assert before["hazard0"]["rgba"][:3] == after["goal"]["rgba"][:3] == [0, 0, 1]
    for thing in ("goal", "hazard0"):
        assert before[thing]["rgba"][3] == after[thing]["rgba"][3]


@pytest.mark.sim
def test_colours_and_light_reach_the_images_of_either_quality():
    def look(variant: str, render: str) -> np.ndarray:
        env = make_env(TASK, ("vision",), render=render, variant=variant)
        image = env.reset(seed=SEED)[0]["vision"].astype(int)
        env.close()
        return image

    plain, swapped = look("none", "fast"), look("swapped_colours", "fast")
    night, both = look("night", "fast"), look("night+swapped_colours", "exact")
    red, green, blue = np.moveaxis(plain, -1, 0)
    hazards = np.any(plain != swapped, axis=-1) & (blue > red + 30) & (blue > green + 30)
    assert hazards.sum() > 20
    for image, least in ((swapped, 20), (both, 5)):
        assert (image[hazards] @ (-1, 1, 0) > least).mean() > 0.9  # more green than red
    for image in (night, both):
        assert 2 * image.mean() < plain.mean()


@pytest.mark.sim
def test_noise_is_reproducible_and_new_at_each_step():
    env, plain = (make_env(TASK, size=32, variant=name) for name in ("noise", "none"))

    def play(seed: int) -> list[np.ndarray]:
        steps = [env.reset(seed=seed)[0], *(env.step(np.zeros(2))[0] for _ in range(2))]
        return [image for obs in steps for image in obs.values()]

    first, other, again = play(7), play(8), play(7)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    clean = plain.reset(seed=7)[0]
    residue = [image.astype(int) - clean[eye] for image, eye in zip(first, clean, strict=False)]
    assert not np.array_equal(*residue)  # each camera has its own
    assert not np.array_equal(first[0], first[2])  # the robot stands still
    assert not np.array_equal(first[0], other[0])
    env.close()
    plain.close()


@pytest.mark.sim
@pytest.mark.parametrize("task", ["SafetyPointButton1-v0", "SafetyPointPush1-v0"])
def test_costs_are_those_of_the_discs(task):
    """Larger hazards cost as far as they reach, wherever they lie and whatever they look like."""
    env = make_env(task, size=8, action_repeat=1, variant="large_hazards+belt+columns")
    env.reset(seed=3)
    radius = {"SafetyPointButton1-v0": 0.3, "SafetyPointPush1-v0": 0.45}[task]
    assert env.privileged().hazard_radius == pytest.approx(radius)
    target = env.privileged().hazards[0]
    inside = costly = 0
    for _ in range(150):
        state = env.privileged()
        ahead = state.agent_heading
        away = target - state.agent_pos
        turn = np.angle(np.exp(1j * (np.arctan2(away[1], away[0]) - ahead)))
        _, _, _, _, info = env.step(np.array([0.6 * (abs(turn) < 0.5), 2 * turn]))
        place, hazards = env.privileged().agent_pos, env.privileged().hazards
        within = np.linalg.norm(hazards - place, axis=1).min() < radius
        assert info["cost"] >= within
        inside, costly = inside + within, costly + info["cost"]
    assert inside > 10
    assert costly < 150
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize(
    "task",
    [
        TASK,
        "SafetyPointGoal2-v0",
        "SafetyPointButton1-v0",
        "SafetyPointPush1-v0",
        "SafetyCarGoal2-v0",
    ],
)
def test_layouts_can_be_drawn_without_skipping_seeds(task):
    count = {TASK: 12, "SafetyPointButton1-v0": 6, "SafetyPointPush1-v0": 3}.get(task, 15)
    for name in ("large_hazards+more_hazards", "clustered", "belt"):
        env = make_env(task, cameras=("vision",), size=8, variant=name)
        plain = make_env(task, cameras=("vision",), size=8)
        for seed in range(3):
            env.reset(seed=seed)
            if name.startswith("large"):
                plain.reset(seed=seed)
                for field in ("agent_pos", "vases", "buttons", "push_box", "agent_heading"):
                    expected = getattr(plain.privileged(), field)
                    np.testing.assert_array_equal(getattr(env.privileged(), field), expected)
                assert len(env.privileged().hazards) == count
        env.close()
        plain.close()


@pytest.mark.sim
def test_it_is_known_which_tasks_have_goals_and_hazards():
    from fosp_ext.envs.shim import import_safety_gymnasium

    import_safety_gymnasium()
    from safety_gymnasium.builder import Builder

    for task in known_tasks():
        if task.startswith("SafetyPoint"):
            built = Builder(task, {"agent_name": "Point"}).task
            assert {kind for kind in ("goal", "hazards") if hasattr(built, kind)} == objects_of(
                task
            )
            assert objects_of(task.replace("Point", "Car")) == objects_of(task)


@pytest.mark.sim
def test_the_safe_policy_is_safe_in_a_variant():
    env = make_env(TASK, cameras=("vision",), size=8, variant="large_hazards+more_hazards")
    policy = make_scripted_policy("safe", TASK, np.random.default_rng(0))
    policy.reset()
    env.reset(seed=0)
    score = cost = 0.0
    for _ in range(100):
        _, reward, _, _, info = env.step(policy.act(env.privileged()))
        score, cost = score + reward, cost + info["cost"]
    assert score > 3
    assert cost == 0
    env.close()


@pytest.mark.sim
def test_a_dataset_says_in_which_variant_it_was_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--configs", "collect", "debug", "--env.variant", "night", "--dataset.mix", "random=1"]
    words += ["--dataset.episodes", "1", "--env.size", "16", "--env.action_repeat", "40"]
    assert train.main(words) == 0
    assert validate_dataset(f"logdir/{TASK}/dataset-night.h5").environment["variant"] == "night"


@pytest.mark.sim
def test_a_trained_agent_can_be_evaluated_in_a_variant(toy_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    words = ["--logdir", str(run), "--episodes", "1", "--videos", "0", "--variant", "night+belt"]
    assert evaluation_command.main(words) == 0
    assert f"{TASK} (belt+night), 6 updates" in capsys.readouterr().out
    summary = json.loads((run / "eval" / "000000006-belt+night" / "summary.json").read_text())
    assert (summary["variant"], summary["episodes"]) == ("belt+night", 1)
    assert evaluation_command.main([*words[:-1], "nigth"]) == 2
    assert "did you mean 'night'" in capsys.readouterr().err
