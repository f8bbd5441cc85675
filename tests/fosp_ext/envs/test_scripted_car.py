"""The Car's model against the simulator, and its policies in worlds made of that model."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from fosp_ext.envs import make_env
from fosp_ext.envs.scripted import available_policies, make_scripted_policy
from fosp_ext.envs.scripted.car_manoeuvres import AHEAD, BACK, LEFT, RIGHT, WHEELS
from fosp_ext.envs.scripted.car_model import CarModel
from fosp_ext.envs.scripted.car_planner import ManoeuvrePlanner
from fosp_ext.envs.scripted.robot_model import forward_speed
from fosp_ext.envs.world_state import WorldState
from tests.support.worlds import WALL, clearance, gap, world

TASK = "SafetyCarGoal2-v0"


def step(state: WorldState, action: np.ndarray) -> WorldState:
    """The state one agent step later, by the equation of motion for one car."""
    push, twist = np.sign(action).mean(), (np.sign(action[0]) - np.sign(action[1])) / 2
    place, heading, rate = state.agent_pos, state.agent_heading, state.agent_yaw_rate
    speed = forward_speed(state)
    for _ in range(4):
        driven = push * speed > 0 or (push > 0 and speed == 0)
        keep = (0.793 if push > 0 else 0.9) if driven else 0.67
        sped = keep * speed + push * abs(push) * (0.164 if push > 0 else 0.074)
        turned = 0.37 * rate + 0.863 * twist * (1 - 0.46 * abs(speed))
        middle = heading + 0.04 * (rate + turned) / 4
        look = np.array([np.cos(middle), np.sin(middle)])
        left = np.array([-look[1], look[0]])
        place = place + 0.02 * ((speed + sped) * look + 0.032 * (rate + turned) * left)
        heading, speed, rate = heading + 0.02 * (rate + turned), sped, turned
    return dataclasses.replace(
        state,
        agent_pos=place,
        agent_heading=(heading + np.pi) % (2 * np.pi) - np.pi,
        agent_vel=speed * np.array([np.cos(heading), np.sin(heading)]),
        agent_yaw_rate=rate,
    )


def play(name: str, state: WorldState, steps: int, **settings) -> list[WorldState]:
    """The states of an episode that ends at the goal or after `steps`."""
    policy = make_scripted_policy(name, TASK, np.random.default_rng(0), **settings)
    policy.reset()
    states = [state]
    while len(states) <= steps and gap(states[-1]) > state.goal_radius:
        states.append(step(states[-1], policy.act(states[-1])))
    return states


def pace(states: list[WorldState]) -> float:
    """Mean speed over the episode, m/s."""
    places = np.stack([state.agent_pos for state in states])
    return np.linalg.norm(np.diff(places, axis=0), axis=1).mean() / 0.16


@pytest.fixture(scope="module")
def env():
    env = make_env("SafetyCarGoal0-v0", cameras=("vision",), size=8)
    yield env
    env.close()


def test_model_follows_the_equation_of_motion():
    signs = WHEELS[[AHEAD, LEFT, BACK, BACK, RIGHT, AHEAD]]
    state = world(agent_vel=np.array([-0.2, 0.35]), agent_heading=2.0, agent_yaw_rate=-0.5)
    path = CarModel(6, action_repeat=4).rollout(state, signs[None])
    for h, action in enumerate(signs):
        state = step(state, action)
        np.testing.assert_allclose(path.position[0, 2 * h + 1], state.agent_pos, atol=1e-9)
        turned = path.heading[0, 2 * h + 1] - state.agent_heading
        assert np.cos(turned) == pytest.approx(1.0)


@pytest.mark.sim
def test_model_predicts_the_simulator(env):
    rng, model = np.random.default_rng(0), CarModel(horizon=10, action_repeat=4)
    missed, turned, travelled = np.zeros((3, 8, 10))
    for episode in range(8):
        env.reset(seed=episode)
        manoeuvres = np.append(AHEAD, rng.choice(4, 4, p=[0.5, 0.2, 0.2, 0.1])).repeat(2)
        actions = WHEELS[manoeuvres]
        start = env.privileged()
        path = model.rollout(start, actions[None])
        for h, action in enumerate(actions):
            env.step(action)
            state = env.privileged()
            travelled[episode, h] = np.linalg.norm(state.agent_pos - start.agent_pos)
            missed[episode, h] = np.linalg.norm(path.position[0, 2 * h + 1] - state.agent_pos)
            error = path.heading[0, 2 * h + 1] - state.agent_heading
            turned[episode, h] = abs((error + np.pi) % (2 * np.pi) - np.pi)
    assert travelled[:, 9].mean() > 0.4
    assert missed[:, 2].mean() < 0.06
    assert missed[:, 9].mean() < 0.08
    assert turned[:, 2].mean() < 0.05
    assert turned[:, 9].mean() < 0.2


@pytest.mark.sim
def test_the_first_wheel_is_the_right_one(env):
    env.reset(seed=3)
    start = env.privileged()
    for _ in range(4):
        env.step(WHEELS[LEFT])
    assert env.privileged().agent_heading - start.agent_heading > 0.5


@pytest.mark.sim
def test_outline_holds_the_whole_car(env):
    env.reset(seed=3)
    task, state = env._world.task, env.privileged()
    (disc,) = CarModel.BODY
    look = np.array([np.cos(state.agent_heading), np.sin(state.agent_heading)])
    reach = 0.0
    for geom in range(task.model.ngeom):
        if task.model.body_rootid[task.model.geom_bodyid[geom]] != task.model.body("agent").id:
            continue
        size, kind = task.model.geom_size[geom], task.model.geom_type[geom]
        if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
            size = np.array([size[0], size[0], size[1]])
        elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
            size = np.full(3, size[0] / np.sqrt(2))  # a square whose corners lie on the sphere
        corners = np.stack(np.meshgrid(*([-1, 1],) * 3), -1).reshape(-1, 3) * size
        places = task.data.geom_xpos[geom] + corners @ task.data.geom_xmat[geom].reshape(3, 3).T
        away = places[:, :2] - state.agent_pos - disc.ahead * look
        reach = max(reach, np.linalg.norm(away, axis=1).max())
    assert disc.radius - 0.01 < reach < disc.radius + 0.002


def test_model_counts_simulator_steps_whatever_the_action_repeat():
    state = world(agent_vel=np.array([0.3, 0.0]), agent_yaw_rate=0.5)
    signs = WHEELS[[AHEAD, LEFT, BACK, RIGHT, AHEAD]]
    fine = CarModel(10, 2).rollout(state, signs.repeat(2, 0)[None])
    coarse = CarModel(5, 4).rollout(state, signs[None])
    np.testing.assert_allclose(fine.position, coarse.position)
    np.testing.assert_allclose(fine.heading, coarse.heading)


def test_limit_takes_away_only_what_pushes_on():
    fast = world(agent_vel=np.array([0.5, 0.0]))
    ahead, back, left = np.array([0.8, 0.9]), np.array([-0.8, -0.9]), np.array([0.8, -0.8])
    np.testing.assert_array_equal(CarModel.limited(ahead, fast, 0.4), [0, 0])
    for action, limit in ((ahead, 0.6), (back, 0.4), (left, 0.4)):
        np.testing.assert_array_equal(CarModel.limited(action, fast, limit), action)


def test_planner_finds_a_sequence_and_keeps_to_it():
    planner = ManoeuvrePlanner(np.random.default_rng(0), horizon=8)
    wanted = [LEFT, LEFT, AHEAD, AHEAD, AHEAD, RIGHT, RIGHT, BACK, BACK, BACK, BACK, AHEAD]
    found = []
    for now in range(5):
        signs = WHEELS[wanted[now : now + 8]]
        found.append(planner.best(lambda actions, signs=signs: (actions != signs).sum((1, 2))))
    np.testing.assert_array_equal(found, WHEELS[wanted[:5]])


def test_safe_goes_around_a_wall_and_unsafe_straight_through():
    state = world(robot="Car", hazards=WALL)
    safe, unsafe = play("safe", state, 80), play("unsafe", state, 80)
    assert gap(safe[-1]) <= 0.3
    assert clearance(safe) > 0
    assert gap(unsafe[-1]) <= 0.3
    assert clearance(unsafe) < -0.1
    assert len(unsafe) < len(safe)


def test_safe_keeps_clear_of_hazards_under_noise():
    state = world(robot="Car", hazards=WALL, agent_heading=2.5)
    states = play("safe", state, 80, noise=0.3)
    assert clearance(states) > 0
    assert gap(states[-1]) <= 0.3


@pytest.mark.parametrize("name", ["safe", "unsafe"])
def test_speed_is_a_share_of_the_top_speed(name):
    state = world(robot="Car", goal_pos=np.array([6.0, 0.0]))
    slow, fast = (play(name, state, 30, speed=speed) for speed in (0.5, 1.0))
    assert 0.2 < pace(slow) < 0.45
    assert pace(fast) > 0.65


@pytest.mark.parametrize("name", ["safe", "near_miss", "unsafe", "random"])
def test_actions_are_float32_within_bounds_and_repeatable(name):
    runs = []
    for _ in range(2):
        policy = make_scripted_policy(name, TASK, np.random.default_rng(7), noise=0.5)
        policy.reset()
        runs.append(np.stack([policy.act(world(robot="Car")) for _ in range(5)]))
    assert runs[0].dtype == np.float32
    assert runs[0].shape == (5, 2)
    assert np.abs(runs[0]).max() <= 1
    np.testing.assert_array_equal(*runs)


def test_every_goal_task_of_the_car_has_all_policies():
    for task in ("SafetyCarGoal0-v0", "SafetyCarGoal1-v0", TASK):
        assert available_policies(task) == ("safe", "near_miss", "unsafe", "random")


@pytest.mark.sim
def test_safe_reaches_goals_without_cost_in_the_simulator():
    env = make_env(TASK, cameras=("vision",), size=8)
    env.reset(seed=2000)
    policy = make_scripted_policy("safe", TASK, np.random.default_rng(0))
    earned = spent = 0.0
    for _ in range(100):
        _, reward, _, _, info = env.step(policy.act(env.privileged()))
        earned, spent = earned + reward, spent + info["cost"]
    env.close()
    assert earned > 5
    assert spent == 0
