"""SafeReach: the arm's geometry, layouts, rewards and costs, variants, scripted policies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreamer.errors import UserError
from fosp_ext.envs import (
    REACH,
    VARIANTS,
    action_scale,
    check_variant,
    fitting_variants,
    make_env,
)
from fosp_ext.envs.safe_reach import space
from fosp_ext.envs.safe_reach.layout import draw_layout, meets
from fosp_ext.envs.safe_reach.route import CELLS, Route, clearance
from fosp_ext.envs.safe_reach.state import ReachState
from fosp_ext.envs.scripted import available_policies, make_scripted_policy
from fosp_ext.envs.scripted.reach import NearMissReach, RouteFollower

OBSTACLE = ("slabs", "more_obstacles")
LOOKS = ("goal_cube", "ball_goal", "swapped_colours", "night", "noise")
SEEDS = range(60)

# --- what needs no simulator ---


def test_the_seven_transfers_and_the_task_itself():
    assert set(fitting_variants(REACH)) == {"none", *OBSTACLE, *LOOKS}
    assert check_variant("night+slabs", REACH).name == "slabs+night"
    with pytest.raises(UserError, match="which has no hazards"):
        check_variant("belt", REACH)
    with pytest.raises(UserError, match="which has no obstacles"):
        check_variant("slabs", "SafetyPointGoal1-v0")


def test_wrong_words_are_refused():
    for message, words in {
        "unknown camera 'vision'": {"cameras": ("vision",)},
        "render must be": {"render": "nice"},
        "has 3 numbers, not 2": {"scale": (1.0, 1.0)},
    }.items():
        with pytest.raises(UserError, match=message):
            make_env(REACH, **words)
    with pytest.raises(UserError, match="did you mean 'SafeReach-v0'"):
        make_env("SafeReach-v1")


@pytest.fixture(scope="module")
def layouts():
    return [draw_layout(seed) for seed in SEEDS]


def test_a_seed_decides_its_layout(layouts):
    again = draw_layout(SEEDS[3])
    np.testing.assert_array_equal(again.goal, layouts[3].goal)
    np.testing.assert_array_equal(again.obstacles, layouts[3].obstacles)
    assert not np.array_equal(layouts[3].goal, layouts[4].goal)


def test_the_straight_line_is_blocked_in_half_of_the_layouts(layouts):
    """By one of the two obstacles; the hand, which is wider than a line, never gets past them."""
    sizes = space.OBSTACLES[: space.USUAL, :2]
    for layout in layouts:
        assert meets(layout.goal, layout.obstacles[: space.USUAL], sizes + space.HAND)
    share = np.mean([meets(x.goal, x.obstacles[: space.USUAL], sizes) for x in layouts])
    assert 0.35 <= share <= 0.65


def test_every_layout_has_a_way_around_all_of_its_obstacles(layouts):
    half = np.tile(space.FOOTPRINT, (len(space.OBSTACLES), 1))
    for layout in layouts:
        assert layout.obstacles.shape == (4, 2)
        for end in (layout.goal, space.START[:2]):
            assert clearance(end, layout.obstacles, half) > space.MARGIN
        route = Route(layout.goal, layout.obstacles, half, space.MARGIN)
        straight = np.linalg.norm(layout.goal - space.START[:2])
        assert straight - 0.04 <= route(space.START[:2]) < np.inf
        between = np.abs(layout.obstacles[:, None] - layout.obstacles)
        apart = (between >= 2 * space.FOOTPRINT).any(-1)
        assert apart[np.triu_indices(4, 1)].all()


def test_every_shape_keeps_within_the_footprint():
    for variant in VARIANTS.values():
        half = space.OBSTACLES[:, :2] * variant.obstacle_stretch
        assert (half <= space.FOOTPRINT + 1e-9).all(), variant.name
    assert space.OBSTACLES[:, 2].max() * 2 <= 0.17  # the wrist would hit a higher one


def test_a_route_keeps_its_margin_and_leads_to_the_goal():
    goal = np.array([0.64, 0.0])
    centres, half = np.array([[0.52, 0.05]]), np.array([[0.03, 0.03]])
    route = Route(goal, centres, half, 0.02)
    place = space.START[:2]
    for _ in range(40):
        ahead = route.ahead(place, 1)
        assert route(ahead) < route(place) or np.array_equal(ahead, place)
        assert clearance(ahead, centres, half) > 0.02
        place = ahead
    assert np.abs(place - goal).max() <= 0.011
    walled = Route(goal, np.array([[0.52, 0.0]]), np.array([[0.01, 0.5]]), 0.0)
    assert walled(space.START[:2]) == np.inf
    passable = Route(goal, np.array([[0.52, 0.0]]), np.array([[0.01, 0.5]]), 0.0, passable=True)
    assert np.isfinite(passable.distance).all()
    assert passable.distance.shape == CELLS.shape[:2]


# --- the arm ---


def forward(joints: np.ndarray) -> np.ndarray:
    """The tool's pose (4, 4) by the Panda's table (modified Denavit-Hartenberg: a, d, alpha)."""
    right = np.pi / 2
    table = [(0, 0.333, 0), (0, 0, -right), (0, 0.316, right), (0.0825, 0, right),
             (-0.0825, 0.384, -right), (0, 0, right), (0.088, 0, right)]  # fmt: skip
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(table, joints, strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        link = [[ct, -st, 0, a], [st * ca, ct * ca, -sa, -sa * d], [st * sa, ct * sa, ca, ca * d]]
        pose = pose @ np.vstack([link, [0, 0, 0, 1]])
    c = np.sqrt(0.5)  # flange 0.107 m ahead, hand turned by -45 degrees, tool 0.1034 m further
    hand = [[c, c, 0, 0], [-c, c, 0, 0], [0, 0, 1, 0.107 + 0.1034], [0, 0, 0, 1]]
    return pose @ np.array(hand)


@pytest.fixture(scope="module")
def env():
    env = make_env(REACH, size=16)
    yield env
    env.close()


@pytest.mark.sim
def test_the_arm_has_the_geometry_of_a_panda(env):
    import mujoco

    model = env._scene.model
    data = mujoco.MjData(model)
    low, high = model.jnt_range[:7].T
    assert np.rad2deg(high - low).round().tolist() == [332, 202, 332, 172, 332, 216, 332]
    for joints in np.random.default_rng(0).uniform(low, high, (20, 7)):
        data.qpos[:7] = joints
        mujoco.mj_kinematics(model, data)
        pose, tool = forward(joints), model.site("tool").id
        np.testing.assert_allclose(data.site_xpos[tool], pose[:3, 3], atol=1e-6)
        np.testing.assert_allclose(data.site_xmat[tool].reshape(3, 3), pose[:3, :3], atol=1e-6)


@pytest.mark.sim
def test_an_episode_begins_at_the_start_with_the_gripper_down(env):
    for seed in (0, 1):
        env.reset(seed=seed)
        state = env.privileged()
        np.testing.assert_allclose(state.tool, space.START, atol=1e-3)
        layout = draw_layout(seed)
        np.testing.assert_allclose(state.target, [*layout.goal, 0.044])
        np.testing.assert_allclose(state.obstacles, layout.obstacles[:2], atol=1e-9)


@pytest.mark.sim
def test_actions_are_velocities_of_the_tool_within_walls(env):
    env.reset(seed=0)
    place = env.privileged().tool
    for _ in range(5):
        env.step(np.array([0.0, 0.0, -0.5]))
    moved = env.privileged().tool - place
    assert moved[2] == pytest.approx(-0.05, abs=0.01)  # five times 1 cm, less what it lags behind
    assert np.abs(moved[:2]).max() < 0.005
    for action in ([-1, 1, 1], [-1, -1, -1]):
        for _ in range(35):
            *_, over, _, _ = env.step(np.array(action, float))
            tool = env.privileged().tool
            assert (tool > space.LOW - 0.01).all()
            assert (tool < space.HIGH + 0.01).all()
            axes = env._scene.data.site_xmat[env._scene.tool].reshape(3, 3)
            np.testing.assert_allclose(axes, np.diag([1, -1, -1]), atol=0.1)  # 6 degrees
            if over:
                break
    np.testing.assert_allclose(tool, [space.LOW[0], space.LOW[1], space.LOW[2]], atol=0.01)


@pytest.mark.sim
@pytest.mark.parametrize("action", [[0.0, 0.0], [np.nan, 0.0, 0.0]])
def test_what_is_no_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is"):
        env.step(np.array(action))


# --- rewards, costs, ends ---


@dataclasses.dataclass
class Played:
    """One episode."""

    rewards: list[float]
    costs: list[float]
    infos: list[dict]
    tools: np.ndarray  # (T+1, 3)
    terminated: bool
    truncated: bool
    target: np.ndarray  # (3,)


def play(env, policy, seed: int) -> Played:
    policy.reset()
    env.reset(seed=seed)
    played = Played([], [], [], [], False, False, env.privileged().target)
    tools = [env.privileged().tool]
    while not (played.terminated or played.truncated):
        _, reward, played.terminated, played.truncated, info = env.step(
            policy.act(env.privileged())
        )
        played.rewards.append(reward)
        played.costs.append(info["cost"])
        played.infos.append(info)
        tools.append(env.privileged().tool)
    played.tools = np.array(tools)
    return played


def scripted(name: str, seed: int = 0, **spread: float):
    return make_scripted_policy(name, REACH, np.random.default_rng(seed), action_size=3, **spread)


@pytest.mark.sim
@pytest.mark.parametrize("name", ["safe", "unsafe"])
def test_the_reward_is_progress_and_one_for_success(env, name):
    played = play(env, scripted(name), seed=0)
    left = np.linalg.norm(played.tools - played.target, axis=1)  # (T+1,)
    success = left[1:] < space.SUCCESS
    np.testing.assert_allclose(played.rewards, 5 * (left[:-1] - left[1:]) + success, atol=1e-6)
    assert [info["success"] for info in played.infos] == success.tolist()
    assert success.tolist() == [False] * (len(success) - 1) + [True]
    assert played.terminated
    assert not played.truncated


@pytest.mark.sim
def test_the_time_limit_truncates(env):
    played = play(env, scripted("safe", speed=0.01), seed=0)
    assert (len(played.rewards), played.truncated, played.terminated) == (100, True, False)


@pytest.mark.sim
def test_each_step_with_contact_costs_one_and_ends_nothing(env):
    played = play(env, scripted("unsafe"), seed=0)
    assert set(played.costs) == {0.0, 1.0}
    assert played.costs[0] == 0
    assert 1.0 in played.costs[:-1]
    assert played.terminated


@pytest.mark.sim
def test_what_falls_is_told(env):
    env.reset(seed=0)
    scene = env._scene
    assert not env.step(np.zeros(3))[4]["toppled"]
    scene.data.qpos[7:14] = [*scene.data.qpos[7:9], 0.031, np.sqrt(0.5), np.sqrt(0.5), 0, 0]
    *_, info = env.step(np.zeros(3))
    assert info["toppled"]
    assert info["cost"] == 0


@pytest.mark.sim
def test_repeated_actions_sum_rewards_and_costs():
    one, three = (make_env(REACH, ("front",), 8, action_repeat=k) for k in (1, 3))
    one.reset(seed=0)
    three.reset(seed=0)
    action = np.array([0.7, 0.1, -0.4])
    for _ in range(3):
        results = [one.step(action) for _ in range(3)]
        obs, reward, *_, info = three.step(action)
        assert reward == pytest.approx(sum(result[1] for result in results))
        assert info["cost"] == sum(result[4]["cost"] for result in results)
        np.testing.assert_array_equal(obs["front"], results[-1][0]["front"])
    one.close()
    three.close()


@pytest.mark.sim
def test_equal_seeds_are_equal_episodes_whatever_came_before(env):
    other = make_env(REACH, size=16)
    env.reset(seed=5)
    env.step(np.ones(3))
    actions = np.random.default_rng(1).uniform(-1, 1, (12, 3))
    episodes = []
    for each in (env, other):
        frames = [each.reset(seed=9)[0], *(each.step(action)[0] for action in actions)]
        episodes.append((frames, each.privileged()))
    for one, same in zip(*(frames for frames, _ in episodes), strict=True):
        np.testing.assert_array_equal(one["front"], same["front"])
        np.testing.assert_array_equal(one["wrist"], same["wrist"])
    for one, same in zip(*(state for _, state in episodes), strict=True):
        np.testing.assert_array_equal(one, same)
    other.close()


# --- variants ---


@pytest.mark.sim
def test_variants_are_paired():
    """What a seed shows stays the same but for what the variant says."""
    plain = make_env(REACH, size=32)
    first = {seed: (plain.reset(seed=seed)[0], plain.privileged()) for seed in (2, 3)}
    counts = set()
    for name in (*OBSTACLE, *LOOKS):
        env = make_env(REACH, size=32, variant=name)
        for seed, (images, state) in first.items():
            changed = env.reset(seed=seed)[0]
            now = env.privileged()
            assert any(np.any(images[eye] != changed[eye]) for eye in images), name
            np.testing.assert_array_equal(now.tool, state.tool)
            np.testing.assert_array_equal(now.target, state.target)
            np.testing.assert_allclose(now.obstacles[:2], state.obstacles, atol=1e-12)
            if name == "more_obstacles":
                counts.add(len(now.obstacles))
                np.testing.assert_array_equal(now.half_sizes[:2], state.half_sizes)
                layout = draw_layout(seed).obstacles[: len(now.obstacles)]
                np.testing.assert_allclose(now.obstacles, layout, atol=1e-12)
            else:
                assert len(now.obstacles) == 2
            same = np.array_equal(now.half_sizes[:2], state.half_sizes)
            assert same == (name != "slabs")
        env.close()
    plain.close()
    assert counts <= {3, 4}


@pytest.mark.sim
def test_there_are_three_or_four_obstacles():
    env = make_env(REACH, ("front",), 8, variant="more_obstacles")
    counts = []
    for seed in range(12):
        env.reset(seed=seed)
        counts.append(len(env.privileged().obstacles))
    env.close()
    assert set(counts) == {3, 4}


@pytest.mark.sim
def test_colours_shapes_and_light_are_as_described():
    def geoms(name: str):
        env = make_env(REACH, ("front",), 8, variant=name)
        model = env._scene.model
        looks = {part: model.geom(part) for part in ("goal", "obstacle0")}
        lamp = model.light_diffuse.copy()
        env.close()
        return looks, lamp

    plain, lamp = geoms("none")
    swapped, _ = geoms("swapped_colours")
    np.testing.assert_array_equal(swapped["goal"].rgba, plain["obstacle0"].rgba)
    np.testing.assert_array_equal(swapped["obstacle0"].rgba, plain["goal"].rgba)
    np.testing.assert_allclose(geoms("night")[1], 0.15 * lamp, rtol=1e-6)
    radius = space.GOAL_RADIUS
    np.testing.assert_allclose(plain["goal"].size[:2], [radius, radius])
    for name in ("goal_cube", "ball_goal"):
        np.testing.assert_allclose(geoms(name)[0]["goal"].size, [radius] * 3)
        assert geoms(name)[0]["goal"].type != plain["goal"].type
    np.testing.assert_allclose(geoms("slabs")[0]["obstacle0"].size, [0.02, 0.05, 0.07])


@pytest.mark.sim
def test_the_goal_is_more_than_four_pixels_wide_in_the_front_image():
    """Wherever it stands."""
    env = make_env(REACH, ("front",))
    for seed in range(6):
        image = env.reset(seed=seed)[0]["front"].astype(int)
        red = (image[..., 0] > 60) & (image[..., 0] > 3 * image[..., 1])
        assert red.any(0).sum() > 4, seed
        assert red[:, [0, -1]].sum() == 0  # nothing is cut off
    env.close()


# --- scripted policies ---


@pytest.mark.sim
def test_scripted_policies_do_what_they_are_for():
    """Over 100 seeds: docs/reference/safe_reach.md."""
    env = make_env(REACH, ("front",), 8)
    assert available_policies(REACH) == ("safe", "near_miss", "unsafe", "random")
    for seed in range(4):
        safe = play(env, scripted("safe", seed), seed)
        assert (safe.terminated, sum(safe.costs)) == (True, 0), seed
    unsafe = [play(env, scripted("unsafe", seed), seed) for seed in range(3)]
    assert all(played.terminated for played in unsafe)
    assert sum(sum(played.costs) > 0 for played in unsafe) >= 2
    wandering = play(env, scripted("random", 0), 0)
    assert np.ptp(wandering.tools, axis=0).min() > 0.03
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize("variant", ["slabs", "more_obstacles", "slabs+more_obstacles"])
def test_the_safe_policy_is_safe_in_variants(variant):
    env = make_env(REACH, ("front",), 8, variant=variant)
    for seed in range(2):
        played = play(env, scripted("safe", seed), seed)
        assert (played.terminated, sum(played.costs)) == (True, 0), seed
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize(
    ("seed", "touches", "reaches"), [(0, False, True), (10, True, True), (12, False, False)]
)
def test_near_misses_are_of_obstacles_and_of_the_target(env, seed, touches, reaches):
    played = play(env, scripted("near_miss", seed), seed)
    assert (sum(played.costs) > 0, played.terminated) == (touches, reaches)
    left = np.linalg.norm(played.tools - played.target, axis=1)
    assert left.min() < 0.1  # it comes near in any case


def test_near_misses_cut_into_obstacles():
    margins, visits = [], []
    for seed in range(60):
        policy = NearMissReach(RouteFollower(1.0), np.random.default_rng(seed))
        margins.append(policy.inner.margin)
        visits.append(policy._visits)
    assert -0.05 <= min(margins) < -0.04
    assert -0.02 < max(margins) <= -0.01
    assert set(visits) == {0, 1, 2, 100}


def test_speed_limits_every_policy():
    target, obstacles = np.array([0.6, 0.1, 0.044]), np.array([[0.5, 0.0]])
    state = ReachState(space.START, target, obstacles, np.full((1, 2), 0.03))
    for name in available_policies(REACH):
        policy = scripted(name, speed=0.5)
        policy.reset()
        for _ in range(3):
            assert np.abs(policy.act(state)).max() <= 0.5 + 1e-6


def test_facts_without_the_simulator():
    assert action_scale(REACH) == (1.0, 1.0, 1.0)
