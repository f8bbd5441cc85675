"""The fast step against the official environment: equal bit for bit, whatever the task."""

from __future__ import annotations

import numpy as np
import pytest

from fosp_ext.envs import make_env
from fosp_ext.envs.safety_gym import SafetyGymEnv
from fosp_ext.envs.world_state import WorldState
from tests.support.official import official

pytestmark = pytest.mark.sim


def drive(state: WorldState, rng: np.random.Generator, size: int) -> np.ndarray:
    """Straight to the goal or the box, through everything, so that all rules come into play."""
    noise = rng.normal(size=size) * 0.3
    target = state.push_box[0] if len(state.push_box) else state.goal_pos
    if size > 2 or np.isnan(target).any():
        return np.clip(noise * 3, -1, 1)
    x, y = target - state.agent_pos
    turn = np.angle(np.exp(1j * (np.arctan2(y, x) - state.agent_heading)))
    if state.robot == "Car":
        wheels = np.array([1.0, 1.0]) if abs(turn) < 0.4 else np.sign(turn) * np.array([1.0, -1.0])
        return np.clip(wheels + noise, -1, 1)
    return np.clip(np.array([float(abs(turn) < 1), turn]) + noise, -1, 1)


def assert_equal_random_numbers(one: np.random.RandomState, other: np.random.RandomState) -> None:
    one, other = one.get_state(legacy=False)["state"], other.get_state(legacy=False)["state"]
    assert one["pos"] == other["pos"]
    np.testing.assert_array_equal(one["key"], other["key"])


def play(env: SafetyGymEnv, theirs, seed: int, steps: int) -> tuple[float, int]:
    """Both side by side for up to so many simulator steps. Returns total cost and goals."""
    env.reset(seed=seed)
    theirs.reset(seed=seed)
    ours, task = env._world.task, theirs.unwrapped.task
    for name, place in task.world_info.reset_layout.items():
        np.testing.assert_array_equal(ours.world_info.reset_layout[name], place)
    rng, costs, goals = np.random.default_rng(seed), 0.0, 0
    for _ in range(steps):
        action = drive(env.privileged(), rng, env.action_space.shape[0])
        action = env._action_center + env._action_scale * action
        _, reward, cost, terminated, truncated, info = theirs.step(action)
        assert env._step.step(action) == (reward, cost, terminated, truncated, info)
        np.testing.assert_array_equal(ours.data.qpos, task.data.qpos)
        np.testing.assert_array_equal(ours.data.qvel, task.data.qvel)
        np.testing.assert_array_equal(ours.model.geom_rgba, task.model.geom_rgba)  # it may fade
        costs, goals = costs + cost, goals + info.get("goal_met", False)
        if terminated or truncated:
            break
    assert_equal_random_numbers(
        ours.random_generator.random_generator, task.random_generator.random_generator
    )
    return costs, goals


@pytest.mark.parametrize(
    ("task", "seeds"),
    [
        ("SafetyPointGoal1-v0", (3, 4)),
        ("SafetyPointGoal2-v0", (3, 4)),
        ("SafetyPointButton1-v0", (6, 7)),
        ("SafetyPointPush1-v0", (6, 11)),
        ("SafetyCarGoal2-v0", (3, 4)),
        ("SafetyPointFadingEasy2-v0", (3, 4)),
    ],
)
def test_a_thousand_steps_are_the_official_ones(task, seeds):
    small = {"cameras": ("vision",), "size": 8, "scale": (1.0, 1.0)}
    env, theirs = make_env(task, **small), official(task)
    played = [play(env, theirs, seed, steps=500) for seed in seeds]
    costs, goals = (sum(column) for column in zip(*played, strict=True))
    assert costs > 0
    assert goals > 0
    env.close()


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("SafetyPointCircle1-v0", "OfficialStep"),
        ("SafetyCarRun0-v0", "OfficialStep"),
        ("SafetyPointPush2-v0", "FastStep"),  # pillars that cost
        ("SafetyAntGoal1-v0", "FastStep"),  # another integrator, and it can die
    ],
)
def test_other_tasks_take_official_steps_too(task, kind):
    env, theirs = make_env(task, cameras=("vision",), size=8), official(task)
    if "Ant" in task:  # its own observation fails with numpy 2.4
        theirs.unwrapped.task.obs = lambda: np.zeros(theirs.observation_space.shape)
    assert type(env._step).__name__ == kind
    play(env, theirs, seed=3, steps=100)
    env.close()


def test_a_step_after_the_end_is_refused():
    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=8, action_repeat=1000)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[3]
    with pytest.raises(AssertionError, match="reset the environment"):
        env.step(np.zeros(2))
    env.close()


@pytest.mark.parametrize("task", ["SafetyPointButton1-v0", "SafetyCarPush2-v0"])
def test_layouts_and_goals_are_drawn_with_the_same_random_numbers(task):
    env = make_env(task, cameras=("vision",), size=8)
    env.reset(seed=0)
    fast = env._world.task.random_generator
    plain = type(fast)()
    plain.set_placements_info(fast.placements, fast.placements_extents, fast.placements_margin)
    for seed in range(3):
        for generator in (fast, plain):
            generator.set_random_seed(seed)
            generator.build_layout()
        for _ in range(20):
            assert list(fast.layout) == list(plain.layout)
            for name, place in plain.layout.items():
                np.testing.assert_array_equal(fast.layout[name], place)
            del fast.layout["goal"], plain.layout["goal"]
            assert fast.sample_goal_position() == plain.sample_goal_position()
            fast.layout.setdefault("goal", np.zeros(2))
            plain.layout.setdefault("goal", np.zeros(2))
        assert_equal_random_numbers(fast.random_generator, plain.random_generator)
    env.close()


def test_areas_of_one_kind_of_object_are_kept():
    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=8)
    env.reset(seed=0)
    fast = env._world.task.random_generator
    plain = type(fast)()
    placements = {**fast.placements, "goal": ([(-1, -1, 0, 0), (0.5, 0.5, 1.4, 1.4)], 0.3)}
    for generator in (fast, plain):
        generator.set_placements_info(placements, fast.placements_extents, fast.placements_margin)
        generator.set_random_seed(1)
    for _ in range(5):
        one, other = fast.build_layout(), plain.build_layout()
        for name, place in other.items():
            np.testing.assert_array_equal(one[name], place)
    env.close()


@pytest.mark.parametrize("speed", [1e-4 * (1 - 1e-13), 1e-4, 2e-4])
def test_a_vase_that_moves_at_the_limit_costs_what_the_official_rule_says(speed):
    env = make_env("SafetyPointGoal2-v0", cameras=("vision",), size=8)
    env.reset(seed=0)
    task, step = env._world.task, env._step
    task.data.qvel[:] = 0
    task.data.qvel[task.model.body("vase3").dofadr[0]] = speed
    official_cost = task.vases.cal_cost()
    ours = {name: cost for rule in step._costs for name, cost in rule().items()}
    assert {name: ours[name] for name in official_cost} == {
        name: float(cost > 0) for name, cost in official_cost.items()
    }
    assert ours["cost_vases_velocity"] == float(speed >= 1e-4)
    env.close()
