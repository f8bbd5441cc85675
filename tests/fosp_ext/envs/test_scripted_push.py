"""Pushing a box: the model of it, the way that is left, and policies in worlds of that model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fosp_ext.envs import make_env
from fosp_ext.envs.scripted import available_policies, make_scripted_policy
from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.scripted.push_field import ROUND, PushField
from fosp_ext.envs.scripted.push_model import RADIUS, Box, PushModel
from fosp_ext.envs.world_state import WorldState
from tests.support.worlds import world

TASK = "SafetyPointPush1-v0"
AHEAD, BACK = np.array([1.0, 0.0]), np.array([-1.0, 0.0])


def push_world(**changes) -> WorldState:
    """A Point robot that looks at a box half a metre ahead, with the goal behind that."""
    state = world(
        agent_pos=np.array([-0.5, 0.0]),
        push_box=np.zeros((1, 2)),
        push_box_half_size=0.2,
        goal_pos=np.array([1.2, 0.0]),
        hazard_radius=0.3,
        pillar_radius=0.2,
    )
    return dataclasses.replace(state, **changes)


def box_after(steps: int, action: np.ndarray = AHEAD, **changes) -> tuple[complex, complex]:
    """Where the model says that box and robot are after so many equal actions."""
    rollout = PushModel(4).rollout(push_world(**changes), np.tile(action, (1, steps, 1)))
    return rollout.box[-1, 0], rollout.robot[-1, 0]


def robot_clearance(robot: np.ndarray, state: WorldState) -> float:
    """Least distance of the robot's centre to a hazard's rim."""
    ways = [np.abs(robot - complex(*hazard)).min() for hazard in state.hazards]
    return min(ways) - state.hazard_radius


def play(name: str, state: WorldState, steps: int, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Places of robot and box (T,), complex, until the box is at the goal or after `steps`."""
    policy = make_scripted_policy(name, TASK, np.random.default_rng(0), **settings)
    policy.reset()
    robot, box, model = [complex(*state.agent_pos)], [complex(*state.push_box[0])], PushModel(4)
    while len(robot) <= steps and abs(box[-1] - complex(*state.goal_pos)) > state.goal_radius:
        action = policy.act(state)[None, None]
        rollout = model.rollout(state, action)
        robot.append(rollout.robot[-1, 0])
        box.append(rollout.box[-1, 0])
        turn = 4 * PointModel.ENV_STEP * PointModel.yaw_rate(action[0, 0, 1])
        speed = (rollout.robot[-1, 0] - rollout.robot[-2, 0]) / model.seconds
        state = dataclasses.replace(
            state,
            agent_pos=np.array([robot[-1].real, robot[-1].imag]),
            agent_vel=np.array([speed.real, speed.imag]),
            agent_heading=float(np.angle(np.exp(1j * (state.agent_heading + turn)))),
            push_box=np.array([[box[-1].real, box[-1].imag]]),
            push_box_heading=float(rollout.box_heading[0]),
        )
    return np.array(robot), np.array(box)


@pytest.mark.parametrize(
    ("disc", "depth", "normal"),
    [
        (0.39 + 0.2j, 0.01, 1),  # the ball on the outer side of a corner column
        (-0.2 - 0.37j, 0.03, -1j),
        (0.29 + 0j, 0.01, 1),  # the ball fits into the notch, and touches its ground
        (0.3 + 0.04j, 0.04, -1j),  # the ball beside the middle of the notch: its upper column
        (0.34 + 0.34j, 0.1 - 0.04 * 2**0.5, (1 + 1j) / 2**0.5),  # a corner
    ],
)
@pytest.mark.parametrize("heading", [0.0, 2.0])
def test_contacts_by_hand(disc, depth, normal, heading):
    place, turned = 0.5 - 0.2j, np.exp(1j * heading)
    box = Box(np.array([place]), np.array([heading]), half=0.2)
    contact = box.deepest(np.array([[place + disc * turned]]), RADIUS[:1])
    assert contact.depth[0] == pytest.approx(depth)
    assert contact.normal[0] == pytest.approx(normal * turned)
    assert contact.place[0] == pytest.approx(place + turned * (disc - 0.1 * normal))


def test_the_box_gives_way_and_turns_away_from_an_off_centre_push():
    box, robot = box_after(10)
    gap = pytest.approx(0.35, abs=1e-3)  # the arrow touches the ground of the notch
    assert box.real - robot.real == gap
    assert robot.real > 0
    assert box.imag == pytest.approx(0, abs=0.01)
    pushed = PushModel(4).rollout(
        push_world(agent_pos=np.array([-0.5, 0.2])), np.tile(AHEAD, (1, 10, 1))
    )
    assert pushed.box_heading[0] < -0.2
    assert box_after(10, BACK)[0] == 0


def test_pillars_stop_the_robot_and_the_box_against_them():
    _, robot = box_after(30, BACK, pillars=np.array([[-1.5, 0.0]]))
    assert robot == pytest.approx(-1.2)
    box, robot = box_after(30, pillars=np.array([[1.0, 0.0]]))
    sunk = 0.3 + np.sqrt(0.2**2 - 0.1**2)  # the pillar enters the notch as far as it fits
    assert box.real == pytest.approx(1.0 - sunk, abs=0.005)
    assert robot.real == pytest.approx(box.real - 0.35, abs=0.005)


def test_a_box_turns_with_the_robot_that_is_wedged_in_its_notch():
    speed = np.array([np.cos(0.5), np.sin(0.5)])
    state = push_world(agent_pos=np.array([-0.356, -0.016]), agent_heading=0.5, agent_vel=speed)
    turn = PushModel(4).rollout(state, np.tile([1.0, 1.0], (1, 6, 1))).box_heading[0]
    assert turn == pytest.approx(6 * 0.08 * PointModel.YAW_LIMIT, rel=0.2)


@pytest.mark.sim
def test_model_predicts_a_push_in_the_simulator():
    env = make_env(TASK, cameras=("vision",), size=8)
    env.reset(seed=0)
    state, moved = env.privileged(), 0.0
    start = state.push_box[0]
    while moved < 0.05:  # turn to the box, then drive into it
        to_box = state.push_box[0] - state.agent_pos
        off = np.angle(complex(*to_box) * np.exp(-1j * state.agent_heading))
        env.step(np.array([1.0 if abs(off) < 0.2 else 0.0, np.clip(2 * off, -1, 1)]))
        state = env.privileged()
        moved = np.linalg.norm(state.push_box[0] - start)
    actions = np.stack([np.ones(6), np.linspace(-0.4, 0.4, 6)], 1)
    rollout = PushModel(4).rollout(state, actions[None])
    began = state.push_box[0]
    for action in actions:
        env.step(action)
    state = env.privileged()
    assert np.linalg.norm(state.push_box[0] - began) > 0.15
    assert abs(rollout.robot[-1, 0] - complex(*state.agent_pos)) < 0.03
    assert abs(rollout.box[-1, 0] - complex(*state.push_box[0])) < 0.06
    env.close()


def test_way_left_counts_going_around_the_box():
    field = PushField(1 + 0j, 0.3, [], [], half_extent=2.5)
    box = np.array([-1 + 0j])
    behind, beside, before = (
        float(field(box, box + offset)[0]) for offset in (-0.4 + 0j, 0.4j, 0.4 + 0j)
    )
    assert behind == pytest.approx(1.7, abs=0.1)
    assert beside == pytest.approx(behind + ROUND * np.pi / 2, abs=0.2)
    assert before == pytest.approx(behind + ROUND * np.pi, abs=0.2)
    assert float(field(np.array([0.9 + 0.1j]), np.array([2j]))[0]) == 0
    assert float(field(box - 3, box - 4)[0]) > behind + 2.5


def test_way_left_leads_the_robot_and_the_box_around_their_zones():
    box, robot = np.array([-1 + 0j]), np.array([-1.4 + 0j])
    free, hazard, pillar = (
        float(PushField(1.3 + 0j, 0.3, zones, boxes, half_extent=2.5)(box, robot)[0])
        for zones, boxes in (([], []), ([(0j, 0.35)], []), ([], [(0j, 0.5)]))
    )
    assert free + 0.1 < hazard < free + 1.5
    assert free + 0.1 < pillar < free + 1.5


def test_safe_pushes_around_a_hazard_and_unsafe_across_it():
    state = push_world(hazards=np.array([[0.35, 0.0]]))
    safe, safe_box = play("safe", state, 120)
    unsafe, unsafe_box = play("unsafe", state, 120)
    assert abs(safe_box[-1] - 1.2) <= 0.3
    assert robot_clearance(safe, state) > 0
    assert abs(unsafe_box[-1] - 1.2) <= 0.3
    assert robot_clearance(unsafe, state) < -0.1
    assert len(unsafe) < len(safe)


def test_safe_goes_around_the_box_when_the_goal_is_behind_the_robot():
    state = push_world(goal_pos=np.array([-1.2, 0.0]))
    _, box = play("safe", state, 120)
    assert abs(box[-1] + 1.2) <= 0.3


def test_safe_keeps_clear_of_hazards_under_noise_and_at_low_speed():
    state = push_world(hazards=np.array([[0.35, 0.0]]))
    assert robot_clearance(play("safe", state, 40, noise=0.3)[0], state) > 0
    slow, _ = play("safe", state, 40, speed=0.5)
    pace = np.abs(np.diff(slow)) / 0.08
    assert np.quantile(pace, 0.9) < 0.6 * PointModel.TOP_SPEED
    assert robot_clearance(slow, state) > 0


def test_unsafe_is_safe_in_a_world_without_hazards():
    state = push_world(hazards=np.array([[0.35, 0.0]]))
    empty = dataclasses.replace(state, hazards=np.zeros((0, 2)))
    safe, unsafe = (
        make_scripted_policy(name, TASK, np.random.default_rng(5)) for name in ("safe", "unsafe")
    )
    np.testing.assert_array_equal(safe.act(empty), unsafe.act(state))
    assert (safe.act(state) != unsafe.act(state)).any()


def test_every_push_task_of_the_point_has_all_policies():
    for level in range(3):
        names = available_policies(f"SafetyPointPush{level}-v0")
        assert names == ("safe", "near_miss", "unsafe", "random")


@pytest.mark.sim
def test_safe_pushes_in_the_simulator():
    env = make_env(TASK, cameras=("vision",), size=8)
    env.reset(seed=4)
    policy = make_scripted_policy("safe", TASK, np.random.default_rng(0))
    policy.reset()
    reward = cost = 0.0
    start = env.privileged().push_box[0]
    for _ in range(60):
        _, gain, _, _, info = env.step(policy.act(env.privileged()))
        reward, cost = reward + gain, cost + info["cost"]
    assert np.linalg.norm(env.privileged().push_box[0] - start) > 0.1
    assert reward > 0.5
    assert cost == 0
    env.close()
