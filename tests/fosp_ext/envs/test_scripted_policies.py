"""Scripted policies in a world made of their own motion model, and that model's accuracy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreamer.errors import UserError
from fosp_ext.envs import make_env
from fosp_ext.envs.scripted import available_policies, make_scripted_policy
from fosp_ext.envs.scripted.detour import Detour
from fosp_ext.envs.scripted.distance_field import DistanceField
from fosp_ext.envs.scripted.near_miss import NearMiss
from fosp_ext.envs.scripted.obstacles import Obstacles, gremlins_at
from fosp_ext.envs.scripted.planner import CrossEntropyPlanner
from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.scripted.safe import stopped
from fosp_ext.envs.world_state import WorldState
from tests.support.worlds import WALL, clearance, gap, world

TASK = "SafetyPointGoal1-v0"


def step(state: WorldState, action: np.ndarray) -> WorldState:
    """The state one agent step later, by small Euler steps of the equation of motion."""
    position, velocity, heading = (
        state.agent_pos.copy(),
        state.agent_vel.copy(),
        state.agent_heading,
    )
    rate = np.clip(3.36 * np.sign(action[1]) * max(abs(action[1]) - 0.066, 0), -3, 3)
    for _ in range(80):
        push = 2.83 * np.clip(action[0], -1, 1) * np.array([np.cos(heading), np.sin(heading)])
        velocity = velocity + 0.001 * (push - 1.89 * velocity)
        position, heading = position + 0.001 * velocity, heading + 0.001 * rate
    heading = (heading + np.pi) % (2 * np.pi) - np.pi
    time = state.time + 0.08
    circle = state.gremlin_travel * np.array([np.sin(time), np.cos(time)])
    return dataclasses.replace(
        state,
        agent_pos=position,
        agent_vel=velocity,
        agent_heading=heading,
        time=time,
        gremlins=state.gremlin_centers + circle,
    )


def play(name: str, state: WorldState, steps: int, task: str = TASK, **settings):
    """The states of an episode that ends at the goal or after `steps`."""
    policy = make_scripted_policy(name, task, np.random.default_rng(0), **settings)
    policy.reset()
    states = [state]
    while len(states) <= steps and gap(states[-1]) > state.goal_radius:
        states.append(step(states[-1], policy.act(states[-1])))
    return states


def gremlin_at(time: float) -> dict:
    """A gremlin that crosses the straight way to the goal, `time` seconds after the reset."""
    centre = np.array([[-0.2, 0.2]])
    return {
        "time": time,
        "gremlins": centre + 0.35 * np.array([np.sin(time), np.cos(time)]),
        "gremlin_centers": centre,
        "gremlin_headings": np.array([0.3]),
        "gremlin_travel": 0.35,
        "gremlin_half_size": 0.1,
    }


BUTTON_TASK = "SafetyPointButton1-v0"
BUTTONS = {  # the goal's behind a wrong one
    "goal_radius": 0.2,
    "buttons": np.array([[0.0, 0.0], [1.0, 0.0]]),
    "button_radius": 0.1,
}


def test_model_follows_the_equation_of_motion():
    model = PointModel(horizon=3, action_repeat=4)
    actions = np.array([[0.9, 0.5], [-0.6, -1.0], [1.0, 0.05]])
    state = world(agent_vel=np.array([0.5, -0.3]), agent_heading=2.0)
    rollout = model.rollout(state, actions[None])
    for h, action in enumerate(actions):
        state = step(state, action)
        np.testing.assert_allclose(rollout.position[0, 2 * h + 1], state.agent_pos, atol=2e-3)
        turned = rollout.heading[0, 2 * h + 1] - state.agent_heading
        assert np.cos(turned) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.sim
def test_model_predicts_the_simulator():
    env = make_env("SafetyPointGoal0-v0", cameras=("vision",), size=8)
    env.reset(seed=3)
    model = PointModel(horizon=13, action_repeat=4)
    walk = make_scripted_policy("random", "SafetyPointGoal0-v0", np.random.default_rng(0))
    start = env.privileged()
    actions = np.stack([walk.act(start) for _ in range(13)])
    rollout = model.rollout(start, actions[None])
    for h, action in enumerate(actions):
        env.step(action)
        state = env.privileged()
        missed = np.linalg.norm(rollout.position[0, 2 * h + 1] - state.agent_pos)
        assert missed < 0.03 + 0.01 * h
    env.close()


def test_distance_is_straight_in_line_of_sight_and_goes_around_obstacles():
    state = world(hazards=np.array([[0.0, 0.0]]))
    obstacles = Obstacles.of(state, PointModel.BODY, margin=0.001)
    field = DistanceField(state.goal_pos, obstacles, half_extent=2.0)
    assert field(np.array([1.0, 1.5])) == pytest.approx(1.5, abs=0.03)
    tangent = 2 * np.sqrt(1 - 0.2**2) + 0.2 * 2 * np.arcsin(0.2)  # around a disc of 0.2
    assert tangent < field(np.array([-1.0, 0.0])) < tangent + 0.08
    assert field(np.array([-5.0, 0.0])) > field(np.array([-2.0, 0.0])) + 2.9


def test_field_prefers_wide_passages():
    ways = {}
    for width in (0.3, 0.14):  # between the rims of two hazards; their margins take 0.08 of it
        sides = np.array([[0.0, 0.2 + width / 2], [0.0, -0.2 - width / 2]])
        state = world(hazards=sides)
        obstacles = Obstacles.of(state, PointModel.BODY, margin=0.04)
        field = DistanceField(state.goal_pos, obstacles, half_extent=2.0)
        ways[width] = field(np.array([-1.0, 0.0]))
    assert ways[0.3] == pytest.approx(2.0, abs=0.01)
    assert 2.02 < ways[0.14] < 2.5


def test_obstacle_depths_by_hand():
    state = world(hazards=np.array([[0.0, 0.0]]), vases=np.array([[2.0, 0.0]]))
    state = dataclasses.replace(state, vase_headings=np.array([np.pi / 4]))
    obstacles = Obstacles.of(state, PointModel.BODY, margin=0.05)
    assert obstacles.depth(np.array([0.1, 0.0])) == pytest.approx(0.15)
    assert obstacles.depth(np.array([0.26, 0.0])) == 0
    corner = 2.0 - 0.1 * np.sqrt(2)  # the vase stands on its corner, which the ball of 0.1 nears
    assert obstacles.depth(np.array([corner - 0.14, 0.0])) == pytest.approx(0.01)
    assert obstacles.depth(np.array([corner - 0.16, 0.0])) == 0
    arrow = obstacles.depth(np.array([corner - 0.16, 0.0]), np.array(0.0))
    assert arrow == pytest.approx(0.061)  # the arrow's disc is 0.071 around a point 0.1 ahead
    assert obstacles.widened(0.02).depth(np.array([corner - 0.16, 0.0])) == pytest.approx(0.01)
    near = obstacles.near(np.zeros(2), 0.5)
    np.testing.assert_array_equal(near.places, [[0.0, 0.0]])


def test_wrong_buttons_are_obstacles_and_the_goal_button_is_not():
    obstacles = Obstacles.of(world(**BUTTONS), PointModel.BODY, margin=0.05)
    assert obstacles.depth(np.array([0.0, 0.22])) == pytest.approx(0.03)
    assert obstacles.depth(np.array([0.0, 0.26])) == 0
    assert obstacles.depth(np.array([1.0, 0.0])) == 0


def test_gremlins_are_where_they_were_predicted():
    state = world(**gremlin_at(time=1.0))
    seconds = np.array([0.0, np.pi / 2])
    now, later = np.moveaxis(gremlins_at(state, seconds), 1, 0) - state.gremlin_centers
    np.testing.assert_allclose(now, [[0.35 * np.sin(1.0), 0.35 * np.cos(1.0)]])
    np.testing.assert_allclose(later, [[0.35 * np.cos(1.0), -0.35 * np.sin(1.0)]])
    obstacles = Obstacles.of(state, PointModel.BODY, margin=0.05).and_moving(state, seconds)
    stay = np.tile(state.gremlin_centers + now, (1, 2, 1))  # (1, S, 2): runs away from there
    depth = obstacles.near(stay[0, 0], 0.1).depth(stay)
    assert depth[0, 0] == pytest.approx(0.25)
    assert depth[0, 1] == 0
    assert obstacles.near(np.array([9.0, 0.0]), 0.1).solids[-1].centres.shape == (0, 2, 2)


def test_imagined_robot_stays_where_it_touched_the_button():
    position = np.arange(8.0).reshape(2, 4, 1).repeat(2, 2)  # (2, 4, 2)
    there = np.array([[False, True, True, True], [False] * 4])
    np.testing.assert_array_equal(stopped(position, there)[..., 0], [[0, 1, 1, 1], [4, 5, 6, 7]])


def test_planner_finds_the_minimum_and_keeps_its_plan():
    planner = CrossEntropyPlanner(np.random.default_rng(0), horizon=5, action_size=2)
    wanted = np.array([0.5, -0.25])
    for _ in range(4):
        action = planner.best(lambda actions: np.square(actions - wanted).sum((1, 2)))
    np.testing.assert_allclose(action, wanted, atol=0.1)


def test_safe_goes_around_a_wall_and_unsafe_straight_through():
    state = world(hazards=WALL)
    safe, unsafe = play("safe", state, 80), play("unsafe", state, 80)
    assert gap(safe[-1]) <= 0.3
    assert clearance(safe) > 0
    assert gap(unsafe[-1]) <= 0.3
    assert clearance(unsafe) < -0.1
    assert len(unsafe) < len(safe)


def test_safe_keeps_clear_of_hazards_under_noise_and_at_low_speed():
    state = world(hazards=WALL, agent_heading=2.5)
    assert clearance(play("safe", state, 80, noise=0.3)) > 0
    slow, fast = play("safe", state, 120, speed=0.5), play("safe", state, 120)
    assert clearance(slow) > 0
    assert len(slow) > 1.3 * len(fast)


def test_safe_drives_around_a_wrong_button():
    states = play("safe", world(**BUTTONS), 60, task=BUTTON_TASK)
    assert gap(states[-1]) <= 0.2
    assert min(np.linalg.norm(state.agent_pos) for state in states) > 0.2  # both radii


def test_unsafe_turns_aside_only_where_a_wrong_button_blocks_the_way():
    unsafe = make_scripted_policy("unsafe", BUTTON_TASK, np.random.default_rng(0))
    turns = {
        x: abs(unsafe.act(world(agent_pos=np.array([x, 0.0]), **BUTTONS))[1])
        for x in (-0.8, -0.22, 0.22, 0.78)  # far off, right before it, behind it, at the goal
    }
    assert turns[-0.22] > 0.5
    assert max(turns[-0.8], turns[0.22], turns[0.78]) < 0.01


def test_safe_lets_a_gremlin_pass_and_unsafe_runs_into_it():
    least = {}
    for name in ("safe", "unsafe"):
        states = play(name, world(**gremlin_at(time=2.3)), 60, task=BUTTON_TASK)
        assert gap(states[-1]) <= 0.3
        ways = [np.linalg.norm(state.gremlins - state.agent_pos) for state in states]
        least[name] = min(ways)
    assert least["safe"] > 0.2  # the ball's radius and half a side
    assert least["unsafe"] < 0.15


def test_safe_starts_anew_after_reset():
    state = world(hazards=WALL)
    rngs = np.random.default_rng(3), np.random.default_rng(3)
    used, fresh = (make_scripted_policy("safe", TASK, rng) for rng in rngs)
    used.act(world(goal_pos=np.array([0.0, 1.5])))
    used.reset()
    rngs[0].bit_generator.state = np.random.default_rng(3).bit_generator.state
    np.testing.assert_array_equal(used.act(state), fresh.act(state))


@pytest.mark.parametrize("name", ["safe", "near_miss", "unsafe", "random"])
def test_actions_are_float32_within_bounds_and_repeatable(name):
    runs = []
    for _ in range(2):
        policy = make_scripted_policy(name, TASK, np.random.default_rng(7), noise=0.5)
        policy.reset()
        runs.append(np.stack([policy.act(world()) for _ in range(5)]))
    assert runs[0].dtype == np.float32
    assert runs[0].shape == (5, 2)
    assert np.abs(runs[0]).max() <= 1
    np.testing.assert_array_equal(*runs)


def test_near_miss_passes_closer_by_another_share_in_each_episode():
    """The robot's goal lies behind a hazard; only what is left of it is kept clear of."""
    state = world(hazards=np.array([[0.0, 0.02]]))
    rng = np.random.default_rng(4)
    policy = NearMiss(make_scripted_policy("safe", TASK, rng), rng)
    ways = {}
    for _ in range(4):
        policy.reset()
        states = [state]
        while gap(states[-1]) > state.goal_radius:
            states.append(step(states[-1], policy.act(states[-1])))
        ways[policy.share] = clearance(states)  # to the true rim
    assert len(ways) == 4
    assert 0 <= min(ways) < max(ways) <= 0.9
    assert [ways[share] for share in sorted(ways)] == sorted(ways.values())
    assert min(ways.values()) < 0 < clearance(play("safe", state, 80))


def test_near_miss_takes_detours_and_returns_to_its_course():
    """Shown a world at rest, the inner policy is sent to the goal and elsewhere in turns."""
    aims = []

    class Listener:
        def reset(self) -> None:
            aims.clear()

        def act(self, state):
            aims.append(state.goal_pos)
            return np.zeros(2, np.float32)

    detour = Detour(Listener(), np.random.default_rng(0))
    still = world()
    detour.reset()
    for at in np.arange(0, 40, 0.08):
        detour.act(dataclasses.replace(still, time=at))
    on_course = np.array([np.array_equal(aim, still.goal_pos) for aim in aims])
    assert on_course[: int(1 / 0.08)].all()
    assert 0.3 < on_course.mean() < 0.8
    turns = np.flatnonzero(np.diff(on_course.astype(int)))
    assert 10 < len(turns) < 30
    lasts = 0.08 * np.diff(turns)
    assert lasts.min() > 0.9
    assert lasts.max() < 5.1
    away = np.linalg.norm(np.array(aims)[~on_course] - still.agent_pos, axis=1)
    assert 0.5 <= away.min() < 1
    assert 2 < away.max() <= 2.5

    astray = aims[int(turns[0]) + 1]  # who arrives early turns back
    detour.reset()
    detour.place, detour.until = astray, 100.0
    detour.act(dataclasses.replace(still, agent_pos=astray + 0.1))
    np.testing.assert_array_equal(aims[-1], still.goal_pos)


def test_random_is_smooth():
    policy = make_scripted_policy("random", TASK, np.random.default_rng(1))
    policy.reset()
    actions = np.stack([policy.act(world()) for _ in range(400)])
    assert np.corrcoef(actions[1:, 0], actions[:-1, 0])[0, 1] > 0.7
    assert 0.3 < actions.std() < 0.8


@pytest.mark.parametrize("name", ["safe", "near_miss", "unsafe", "random"])
def test_speed_is_a_share_of_the_top_speed(name):
    state = world(goal_pos=np.array([6.0, 0.0]))
    fastest = {}
    for speed in (0.4, 1.0):
        states = play(name, state, 40, speed=speed)
        fastest[speed] = max(np.linalg.norm(state.agent_vel) for state in states)
    assert 0.5 < fastest[0.4] < 0.9  # 0.6 m/s, and what one agent step of thrust adds to it
    assert fastest[1.0] > 1.0


def test_goal_and_button_tasks_of_the_point_have_all_policies():
    for kind in ("Goal0", "Goal2", "FadingEasy1", "FadingHard2", "Button0", "Button2"):
        task = f"SafetyPoint{kind}-v0"
        assert available_policies(task) == ("safe", "near_miss", "unsafe", "random")


def test_unknown_combinations_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(
        UserError, match=r"'saef'.*did you mean 'safe'\?.*safe, near_miss, unsafe, random"
    ):
        make_scripted_policy("saef", TASK, rng)
    with pytest.raises(UserError, match=r"'safe' for task 'SafetyCarPush2-v0'.*available: random"):
        make_scripted_policy("safe", "SafetyCarPush2-v0", rng)


@pytest.mark.sim
@pytest.mark.parametrize("kind", ["Goal2", "Button1"])
def test_safe_scores_in_the_simulator(kind):
    env = make_env(f"SafetyPoint{kind}-v0", cameras=("vision",), size=8)
    env.reset(seed=2001)
    safe = make_scripted_policy("safe", env.task, np.random.default_rng(0))
    safe.reset()
    goals = cost = 0
    for _ in range(50):
        info = env.step(safe.act(env.privileged()))[-1]
        goals, cost = goals + info["goals"], cost + info["cost"]
    env.close()
    assert goals >= 1
    assert cost == 0


@pytest.mark.sim
def test_gremlins_of_the_simulator_keep_to_the_prediction():
    env = make_env(BUTTON_TASK, cameras=("vision",), size=8)
    env.reset(seed=2000)
    rest = np.zeros(2)
    for _ in range(10):  # they start in the middle of their circles
        env.step(rest)
    before = env.privileged()
    for _ in range(10):
        env.step(rest)
    after = env.privileged()
    predicted = gremlins_at(before, np.array([after.time - before.time]))[:, 0]
    np.testing.assert_allclose(after.gremlins, predicted, atol=0.02)
    np.testing.assert_allclose(after.gremlin_headings, before.gremlin_headings, atol=0.05)
    env.close()
