"""Policies with a limited field of view know only what their cameras showed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fosp_ext.envs import make_env
from fosp_ext.envs.scripted import make_scripted_policy
from fosp_ext.envs.scripted.field_of_view import (
    REMEMBERED,
    FieldOfView,
    field_of_view_limit,
    off_axis,
)
from fosp_ext.envs.world_state import WorldState
from tests.support.worlds import gap, world

TASK = "SafetyPointGoal1-v0"
BOTH = ("vision", "vision_back")
# 62 degrees to the left of the robot of `world()`, which looks along +x:
BESIDE = np.array([-0.3, 1.3])


class Listener:
    """Stands still and notes what it was shown."""

    def __init__(self):
        self.shown: list[WorldState] = []

    def reset(self) -> None:
        self.shown = []

    def act(self, state: WorldState) -> np.ndarray:
        self.shown.append(state)
        return np.zeros(2, np.float32)


def shown(*states: WorldState, cameras=BOTH) -> list[WorldState]:
    """What a policy knows at each of `states`."""
    field_of_view = FieldOfView(Listener(), cameras, np.random.default_rng(0))
    for state in states:
        field_of_view.act(state)
    return field_of_view.inner.shown


@pytest.mark.parametrize("name", ["safe", "unsafe"])
@pytest.mark.parametrize("task", [TASK, "SafetyPointButton1-v0"])
def test_a_goal_outside_the_field_of_view_decides_nothing(name, task):
    actions = {}
    for cameras in (BOTH, ()):
        for side in (BESIDE, BESIDE * [1, -1]):
            policy = make_scripted_policy(name, task, np.random.default_rng(0), cameras=cameras)
            policy.reset()
            actions[cameras, side[1] > 0] = policy.act(world(goal_pos=side))
    np.testing.assert_array_equal(actions[BOTH, True], actions[BOTH, False])
    assert actions[(), True][1] * actions[(), False][1] < 0  # who knows it turns to it


@pytest.mark.parametrize(
    ("degrees", "front", "both"), [(0, 0, 0), (-44, 44, 44), (100, 100, 80), (190, 170, 10)]
)
@pytest.mark.parametrize("heading", [0.0, 3.0, -2.0])
def test_angles_from_the_axes(degrees, front, both, heading):
    at = np.radians(degrees) + heading
    state = world(agent_heading=heading)
    places = state.agent_pos + 2 * np.array([[np.cos(at), np.sin(at)]])
    for cameras, off in ((("vision",), front), (BOTH, both)):
        np.testing.assert_allclose(np.degrees(off_axis(state, places, cameras)), [off], atol=1e-6)


def test_a_goal_is_known_while_seen_and_remembered_for_a_while():
    start = world()
    aside = world(agent_heading=np.pi / 2)
    later = [
        dataclasses.replace(aside, time=at) for at in (0.1, REMEMBERED - 0.1, REMEMBERED + 0.1)
    ]
    aims = [state.goal_pos for state in shown(start, *later)]
    for aim in aims[:3]:
        np.testing.assert_array_equal(aim, start.goal_pos)
    assert np.linalg.norm(aims[3] - start.goal_pos) > 1


def test_a_goal_that_left_the_field_of_view_is_searched():
    jumped = world(goal_pos=BESIDE, time=0.1)
    aim = shown(world(), jumped)[1].goal_pos
    assert np.linalg.norm(aim - world().goal_pos) > 1
    assert np.linalg.norm(aim - jumped.goal_pos) > 0.2


def test_a_search_leads_aside_stays_there_and_goes_on_from_its_end():
    hidden = world(goal_pos=BESIDE)
    first, same = (state.goal_pos for state in shown(hidden, dataclasses.replace(hidden, time=0.1)))
    np.testing.assert_array_equal(first, same)
    way = first - hidden.agent_pos
    assert abs(way[0]) < 1e-6
    assert np.linalg.norm(way) == pytest.approx(1.2)
    arrived = dataclasses.replace(hidden, agent_pos=first, goal_pos=first + BESIDE * 2, time=0.1)
    assert np.linalg.norm(shown(hidden, arrived)[1].goal_pos - first) == pytest.approx(1.2)


def test_obstacles_in_view_are_known_with_all_that_describes_them():
    state = world(
        hazards=np.array([[0.5, 0.3], BESIDE, [-2.0, 0.1]]),
        vases=np.array([BESIDE, [0.0, 0.5]]),
        vase_headings=np.array([0.1, 0.2]),
        gremlins=np.array([BESIDE, [0.0, -0.5]]),
        gremlin_headings=np.array([0.3, 0.4]),
        gremlin_centers=np.array([BESIDE, [0.1, -0.5]]),
        buttons=np.array([[1.0, 0.0], BESIDE]),
        button_radius=0.1,
    )
    (known,) = shown(state)
    np.testing.assert_array_equal(known.hazards, state.hazards[[0, 2]])
    np.testing.assert_array_equal(known.vases, state.vases[1:])
    np.testing.assert_array_equal(known.vase_headings, [0.2])
    np.testing.assert_array_equal(known.gremlins, state.gremlins[1:])
    np.testing.assert_array_equal(known.gremlin_headings, [0.4])
    np.testing.assert_array_equal(known.gremlin_centers, state.gremlin_centers[1:])
    np.testing.assert_array_equal(known.buttons, state.buttons[:1])


def test_one_camera_shows_one_side():
    state = world(goal_pos=np.array([-3.0, 0.0]), hazards=np.array([[-2.0, 0.0], [0.0, 0.0]]))
    (both,), (front,) = shown(state), shown(state, cameras=("vision",))
    assert len(both.hazards) == 2
    np.testing.assert_array_equal(front.hazards, state.hazards[1:])
    np.testing.assert_array_equal(both.goal_pos, state.goal_pos)
    assert np.linalg.norm(front.goal_pos - state.goal_pos) > 1


def test_a_camera_that_looks_on_from_outside_shows_all():
    assert field_of_view_limit(("vision", "fixedfar")) == ()
    assert field_of_view_limit(BOTH) == BOTH


def test_a_new_episode_forgets_the_last():
    field_of_view = FieldOfView(Listener(), BOTH, np.random.default_rng(0))
    hazard = np.array([[0.0, 0.0]])
    field_of_view.act(world(hazards=hazard))
    field_of_view.reset()
    field_of_view.act(world(hazards=hazard, agent_heading=np.pi / 2))
    assert len(field_of_view.inner.shown[0].hazards) == 0


@pytest.mark.sim
def test_the_field_of_view_agrees_with_the_images():
    """The goal is the only green thing of its task."""
    env = make_env("SafetyPointGoal0-v0", size=64, scale=(1.0, 1.0))  # always at full thrust
    rng = np.random.default_rng(0)
    agreed = []
    for seed in range(8):
        obs, _ = env.reset(seed=seed)
        walk = make_scripted_policy("random", "SafetyPointGoal0-v0", rng)
        for _ in range(25):
            state = env.privileged()
            images = np.concatenate([obs[camera].reshape(-1, 3) for camera in BOTH]).astype(int)
            green = images[:, 1] - images[:, [0, 2]].max(1) > 40
            (known,) = shown(state)
            agreed.append(green.any() == (gap(known) == gap(state)))
            obs, *_ = env.step(walk.act(state))
    env.close()
    assert np.mean(agreed) > 0.9


@pytest.mark.sim
def test_the_safe_policy_reaches_goals_with_a_limited_field_of_view():
    env = make_env(TASK, size=16)
    policy = make_scripted_policy("safe", TASK, np.random.default_rng(0), cameras=BOTH)
    policy.reset()
    env.reset(seed=1000)
    score, cost, truncated = 0.0, 0.0, False
    while not truncated:
        _, reward, _, truncated, info = env.step(policy.act(env.privileged()))
        score, cost = score + reward, cost + info["cost"]
    env.close()
    assert score > 15
    assert cost == 0
