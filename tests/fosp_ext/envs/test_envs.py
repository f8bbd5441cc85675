from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from dreamer.data.episode import rescaled
from dreamer.envs.counting import CountingEnv
from dreamer.errors import UserError
from fosp_ext.envs import action_scale, check_cameras, check_task, gl, known_tasks, make_env
from tests.support.official import official

STILL = np.zeros(2, np.float32)


# --- what needs no simulator ---


def test_counting_env_says_which_step_it_is():
    env = CountingEnv(length=4, size=8)
    obs, info = env.reset(seed=0)
    assert info["cost"] == 0
    assert set(obs) == {"vision", "vision_back"}
    assert obs["vision"].shape == (8, 8, 3)
    assert obs["vision"].max() == CountingEnv.pixel(0, 0) == 0
    for count in range(1, 5):
        obs, reward, terminated, truncated, info = env.step(STILL)
        assert (reward, info["cost"]) == (count, float(count == 3))
        assert (obs["vision_back"] == count + 100).all()
        assert (terminated, truncated) == (False, count == 4)
    assert env.observation_space.contains(obs)


def test_counting_env_can_end_truly():
    env = CountingEnv(length=4, end=2)
    env.reset()
    assert env.step(STILL)[2:4] == (False, False)
    assert env.step(STILL)[2:4] == (True, False)


def test_importing_the_package_imports_no_simulator():
    code = (
        "import sys, fosp_ext.envs as e; e.check_task('SafetyPointGoal1-v0'); "
        "print({'mujoco', 'gymnasium', 'safety_gymnasium', 'OpenGL'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_tasks_are_known_by_name():
    assert check_task("SafetyPointGoal1-v0") == "SafetyPointGoal1-v0"
    assert check_task("safetygym_SafetyCarGoal2-v0") == "SafetyCarGoal2-v0"
    with pytest.raises(UserError, match="did you mean 'SafetyPointGoal1-v0'"):
        check_task("SafetyPointGaol1-v0")
    with pytest.raises(UserError, match=r"unknown task 'pong'; for example SafetyPointGoal1-v0"):
        check_task("pong")


def test_cameras_are_known_by_name():
    assert check_cameras(["vision_back", "vision"]) == ("vision_back", "vision")
    with pytest.raises(UserError, match="did you mean 'vision_back'"):
        check_cameras(["vision", "vision_bakc"])
    with pytest.raises(UserError, match="each once"):
        check_cameras(["vision", "vision"])
    with pytest.raises(UserError, match="at least one"):
        check_cameras([])


def test_robots_have_action_scales():
    assert action_scale("SafetyPointGoal1-v0") == (0.05, 1)
    assert action_scale("SafetyCarGoal2-v0") == (0.02, 0.02)
    assert action_scale("SafetyRacecarGoal1-v0") == (1, 1)
    assert action_scale("my.module:Env-v0") is None


@pytest.mark.sim
@pytest.mark.parametrize("robot", ["Point", "Car"])
def test_scaled_actions_reach_every_state_and_each_number_of_them_counts(robot):
    """The same trajectories as with the whole range, in which nearly all numbers were alike."""
    task = f"Safety{robot}Goal1-v0"
    small = {"cameras": ("vision",), "size": 8}
    scaled, whole = make_env(task, **small), make_env(task, **small, scale=(1.0, 1.0))
    rng = np.random.default_rng(0)
    for env in (scaled, whole):
        env.reset(seed=5)
    for _ in range(20):
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        _, reward, *rest = scaled.step(rescaled(action, (1.0, 1.0), action_scale(task)))
        _, theirs, *others = whole.step(action)
        assert reward == pytest.approx(theirs, abs=1e-6)
        assert rest == others
    ours, official = (env._world.task.data.qpos for env in (scaled, whole))
    np.testing.assert_allclose(ours, official, atol=1e-6)
    speeds = {}
    for env in (scaled, whole):
        for push in (0.5, 1.0):
            env.reset(seed=5)
            for _ in range(3):
                env.step(np.array([push, push if robot == "Car" else 0.0]))
            speeds[env, push] = np.linalg.norm(env.privileged().agent_vel)
        env.close()
    assert speeds[whole, 0.5] == speeds[whole, 1.0] == pytest.approx(speeds[scaled, 1.0])
    assert speeds[scaled, 0.5] < 0.75 * speeds[scaled, 1.0]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("task", "nope"), ("cameras", ["eye"]), ("size", 0), ("action_repeat", 1.5), ("render", "4k")],
)
def test_wrong_arguments_are_refused_before_anything_is_loaded(argument, value):
    with pytest.raises(UserError, match=str(value[0] if isinstance(value, list) else value)):
        make_env(**{"task": "SafetyPointGoal1-v0", argument: value})


def test_the_users_choice_of_opengl_library_stands(monkeypatch):
    monkeypatch.setattr(gl, "probe", lambda backend: pytest.fail("nothing to try"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert gl.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(UserError, match="egl, osmesa, glfw"):
        gl.choose_backend()


def test_osmesa_is_the_fallback(monkeypatch):
    tried = []

    def probe(backend):
        tried.append(backend)
        return "" if backend == "osmesa" else "no driver"

    monkeypatch.setattr(gl, "probe", probe)
    monkeypatch.setenv("MUJOCO_GL", "")
    assert gl.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]
    assert gl.choose_backend() == "osmesa"  # now without trying: it is inherited
    assert tried == ["egl", "osmesa"]


def test_without_any_opengl_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gl, "probe", lambda backend: "no driver")
    monkeypatch.setenv("MUJOCO_GL", "")
    with pytest.raises(UserError, match=r"egl: no driver; osmesa: no driver.*apt-get install"):
        gl.choose_backend()
    assert os.environ["MUJOCO_GL"] == ""


def test_a_graphics_driver_that_hangs_is_given_up():
    assert gl.probe("egl", seconds=0.01) == "no image within 0 s"


# --- the real simulator ---


def wander(steps: int, seed: int) -> np.ndarray:
    """Smooth random driving with a preference for going ahead, (steps, 2) float32."""
    noise = np.random.default_rng(seed).normal(size=(steps, 2)) * 0.3
    action = np.zeros((steps, 2))
    for t in range(1, steps):
        action[t] = 0.9 * action[t - 1] + noise[t]
    return np.clip(action + np.array([0.3, 0]), -1, 1).astype(np.float32)


@pytest.mark.sim
def test_the_shim_leaves_nothing_behind():
    before = dataclasses.dataclass
    env = official("SafetyCarGoal2-v0")  # fails with numpy 2.4 without the third patch
    assert env.observation_space.shape == (72,)
    assert dataclasses.dataclass is before
    assert "safety_gymnasium.utils.registration" not in sys.modules  # not with gymnasium 1.0
    with pytest.raises(ValueError, match="mutable default"):
        dataclasses.make_dataclass("C", [("x", list, dataclasses.field(default=[]))])


@pytest.mark.sim
def test_known_tasks_are_those_of_the_package():
    from fosp_ext.envs.shim import import_safety_gymnasium

    package = import_safety_gymnasium()
    levels = [re.fullmatch(r"(\w+)Level(\d)", name) for name in vars(package.tasks)]
    kinds = [f"{kind[1]}{kind[2]}" for kind in levels if kind and kind[1] != "Race"]
    agents = importlib.import_module("safety_gymnasium.agents")
    robots = [name for name, kind in vars(agents).items() if isinstance(kind, type)]
    theirs = {f"Safety{r}{kind}-v0" for r in robots for kind in kinds}
    assert set(known_tasks()) == {*theirs, "SafeReach-v0"}


def official_image(env) -> np.ndarray:
    """The `vision` image of the unchanged environment, drawn in its own OpenGL context."""
    task = env.unwrapped.task
    if task.viewer is not None:
        task.viewer.make_context_current()  # it takes for granted that it is the only one
    return task.render(64, 64, mode="rgb_array", camera_name="vision", cost={})


@pytest.mark.sim
@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyCarGoal2-v0"])
def test_exact_is_the_official_image(task):
    theirs = official(task)
    whole = {"scale": (1.0, 1.0)}  # the official actions
    env, fast = make_env(task, render="exact", **whole), make_env(task, render="fast")
    for seed in (5, 6):  # the second world is drawn through the first one's context
        theirs.reset(seed=seed)
        obs, _ = env.reset(seed=seed)
        for camera, image in fast.reset(seed=seed)[0].items():
            assert 0 < np.abs(image.astype(float) - obs[camera]).mean() < 6
        for action in wander(3, seed):
            np.testing.assert_array_equal(obs["vision"], official_image(theirs))
            obs, *_ = env.step(action)
            for _ in range(env.action_repeat):
                theirs.step(action.astype(np.float64))
    viewer = theirs.unwrapped.task.viewer
    viewer.make_context_current()
    viewer.con.free()
    viewer.free()
    env.close()
    fast.close()


@pytest.mark.sim
def test_rewards_and_costs_are_summed_over_the_repeats():
    theirs = official("SafetyPointGoal1-v0")
    small = {"cameras": ("vision",), "size": 16, "action_repeat": 3}
    env = make_env("SafetyPointGoal1-v0", **small, scale=(1.0, 1.0))
    theirs.reset(seed=5)
    env.reset(seed=5)
    total_cost = 0.0
    for action in wander(300, 5)[::3]:
        reward = cost = 0.0
        for _ in range(3):
            _, r, c, *_ = theirs.step(action.astype(np.float64))
            reward, cost = reward + r, cost + c
        _, our_reward, _, _, info = env.step(action)
        assert (our_reward, info["cost"]) == (reward, cost)
        total_cost += cost
    assert total_cost > 0
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize(
    ("task", "render"), [("SafetyPointButton1-v0", "exact"), ("SafetyRacecarGoal1-v0", "fast")]
)
def test_objects_that_are_left_out_leave_no_pixel(task, render, monkeypatch):
    from fosp_ext.envs import CAMERAS, renderer

    env = make_env(task, cameras=CAMERAS, render=render)
    shares = []
    for seed in range(3):
        env.reset(seed=seed)
        model, data = env._world.task.model, env._world.task.data
        groups = model.geom_group.copy()
        for action in wander(3, seed):
            obs, *_ = env.step(action)
            shares.append(np.mean([renderer._may_be_seen(model, data, eye) for eye in env._eyes]))
            with monkeypatch.context() as patch:
                patch.setattr(renderer, "_may_be_seen", lambda model, *_: np.ones(model.ngeom))
                for camera, image in env._observe().items():
                    np.testing.assert_array_equal(obs[camera], image)
        np.testing.assert_array_equal(model.geom_group, groups)
    assert 0.2 < np.mean(shares) < 0.9  # it does leave some out
    env.close()


@pytest.mark.sim
def test_all_environments_of_a_process_share_one_opengl_context():
    from fosp_ext.envs import renderer

    first, second = make_env("SafetyPointGoal1-v0"), make_env("SafetyPointPush1-v0", size=32)
    expected = first.reset(seed=1)[0]["vision"]
    second.reset(seed=1)
    second.render()
    assert renderer._opengl.cache_info().currsize == 1
    np.testing.assert_array_equal(first._observe()["vision"], expected)
    second.close()
    np.testing.assert_array_equal(first._observe()["vision"], expected)
    first.close()


@pytest.mark.sim
def test_resets_decode_no_sky_and_read_the_assets_once(monkeypatch):
    import mujoco
    import yaml

    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=16)
    env.reset(seed=0)
    monkeypatch.setattr(yaml, "load", lambda *_, **__: pytest.fail("read again"))
    env.reset(seed=1)
    types = env._world.task.model.tex_type
    assert len(types) > 0
    assert mujoco.mjtTexture.mjTEXTURE_SKYBOX not in types
    env.close()


def green(image: np.ndarray) -> np.ndarray:
    """Pixels of the goal, (H, W) bool."""
    r, g, b = np.moveaxis(image.astype(int), -1, 0)
    return (g > r + 15) & (g > b + 15)


@pytest.mark.sim
@pytest.mark.parametrize("robot", ["Point", "Car"])
def test_the_back_camera_looks_back(robot):
    import mujoco

    env = make_env(f"Safety{robot}Goal0-v0")
    env.reset(seed=0)
    state = env.privileged()
    ahead = np.array([np.cos(state.agent_heading), np.sin(state.agent_heading)])
    left = np.array([-ahead[1], ahead[0]])
    model, data = env._world.task.model, env._world.task.data

    def seen_with_goal_at(place: np.ndarray) -> dict[str, np.ndarray]:
        model.body("goal").pos[:2] = place
        mujoco.mj_forward(model, data)
        return {name: green(image) for name, image in env._observe().items()}

    front = seen_with_goal_at(state.agent_pos + 1.2 * ahead)
    assert front["vision"][:, 24:40].any()
    assert not front["vision_back"].any()
    back = seen_with_goal_at(state.agent_pos - 1.2 * ahead)
    assert back["vision_back"][:, 24:40].any()
    assert not back["vision"].any()
    left_behind = seen_with_goal_at(state.agent_pos - 1.2 * ahead + 0.7 * left)["vision_back"]
    assert left_behind[:, 32:].sum() > 5 * left_behind[:, :32].sum()  # its left is our right
    env.close()


@pytest.mark.sim
def test_equal_seeds_give_equal_episodes():
    env = make_env("SafetyPointGoal2-v0", size=32)

    def play(seed: int | None) -> list[np.ndarray]:
        obs, _ = env.reset(seed=seed)
        rows = [obs["vision"]]
        for action in wander(20, 0):
            obs, reward, _, _, info = env.step(action)
            rows += [obs["vision"], obs["vision_back"], np.array([reward, info["cost"]])]
        return rows

    first, free, again, free_again = play(7), play(None), play(7), play(None)
    for one, other in ((first, again), (free, free_again)):
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
    assert not np.array_equal(first[0], free[0])
    assert all(not np.shares_memory(first[0], image) for image in first[1:])
    env.close()


@pytest.mark.sim
def test_an_episode_is_cut_after_250_steps_and_not_terminated():
    env = make_env("safetygym_SafetyPointGoal1-v0", cameras=("vision",), size=8)
    assert (env.task, env.action_repeat, env.render_quality) == ("SafetyPointGoal1-v0", 4, "fast")
    env.reset(seed=1)
    for count in range(1, 251):
        obs, reward, terminated, truncated, info = env.step(STILL)
        assert (terminated, truncated) == (False, count == 250)
    assert env.observation_space.contains(obs)
    assert isinstance(reward, float)
    assert isinstance(info["cost"], float)
    env.reset()  # and the next one starts
    assert not env.step(STILL)[3]
    env.close()


@pytest.mark.sim
def test_bad_actions_are_refused():
    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=8)
    env.reset(seed=1)
    for action in (np.zeros(3), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="finite numbers"):
            env.step(action)
    env.close()


@pytest.mark.sim
def test_impossible_layouts_are_replaced_by_the_next_seeds(monkeypatch):
    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=16)
    expected = env.reset(seed=12)[0]["vision"]
    reset, tried = env._world.reset, []

    def fail_twice(seed: int):
        tried.append(seed)
        if len(tried) == 1:
            raise env._resampling_error("Failed to sample layout of objects")
        if len(tried) == 2:
            raise AssertionError("World has starting cost! {}")
        return reset(seed=seed)

    monkeypatch.setattr(env._world, "reset", fail_twice)
    np.testing.assert_array_equal(env.reset(seed=10)[0]["vision"], expected)
    assert tried == [10, 11, 12]
    env.close()


def resources() -> tuple[float, int]:
    """Resident memory in MB and the number of open files of this process."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


@pytest.mark.sim
def test_resets_and_closed_environments_leak_nothing():
    env = make_env("SafetyPointGoal1-v0")
    for seed in range(10):
        env.reset(seed=seed)
    memory, files = resources()
    for seed in range(60):
        env.reset(seed=seed)
        env.step(STILL)
    assert resources()[0] - memory < 20
    assert resources()[1] == files
    for _ in range(3):
        other = make_env("SafetyPointGoal1-v0")
        other.reset(seed=0)
        other.close()
        other.close()
    assert resources()[0] - memory < 60
    image = env.step(STILL)[0]["vision"]
    assert image.std() > 10  # closing another environment's context left this one alone
    env.close()


@pytest.mark.sim
def test_the_overhead_image_shows_the_goal_where_it_is():
    env = make_env("SafetyPointGoal1-v0")
    env.reset(seed=3)
    image, state = env.render(), env.privileged()
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero(green(image))
    metres_per_pixel = 2 * 2.5 / 256
    found = np.array([columns.mean() - 128, 128 - rows.mean()]) * metres_per_pixel
    np.testing.assert_allclose(found, state.goal_pos, atol=0.15)
    env.close()


@pytest.mark.sim
def test_the_overhead_image_shows_a_robot_that_left():
    env = make_env("SafetyPointGoal1-v0", cameras=("vision",), size=8)
    env.reset(seed=3)
    for _ in range(60):
        env.step(np.array([1.0, 0.0]))
    assert np.abs(env.privileged().agent_pos).max() > 4
    red, green, blue = np.moveaxis(env.render().astype(int), -1, 0)
    assert ((red > 100) & (green < 80) & (blue < 80)).any()
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize("robot", ["Point", "Car"])
def test_privileged_state_agrees_with_the_motion(robot):
    env = make_env(f"Safety{robot}Goal1-v0", cameras=("vision",), size=8, action_repeat=1)
    env.reset(seed=2)
    drive = np.array([1.0, 0.0] if robot == "Point" else [1.0, 1.0])
    for _ in range(30):
        env.step(drive)
    a = env.privileged()
    env.step(drive)
    b = env.privileged()
    dt = b.time - a.time
    assert a.robot == robot
    assert dt == pytest.approx({"Point": 0.02, "Car": 0.04}[robot])
    np.testing.assert_allclose((b.agent_pos - a.agent_pos) / dt, b.agent_vel, atol=0.05)
    ahead = np.array([np.cos(b.agent_heading), np.sin(b.agent_heading)])
    assert b.agent_vel @ ahead > 0.95 * np.linalg.norm(b.agent_vel) > 0.3
    for _ in range(5):
        env.step(np.array([0.0, 1.0] if robot == "Point" else [1.0, -1.0]))
    c = env.privileged()
    env.step(np.array([0.0, 1.0] if robot == "Point" else [1.0, -1.0]))
    d = env.privileged()
    turn = np.angle(np.exp(1j * (d.agent_heading - c.agent_heading))) / dt
    assert abs(turn) > 0.1
    assert d.agent_yaw_rate == pytest.approx(turn, rel=0.25)
    assert (d.hazards.shape, d.vases.shape, d.vase_headings.shape) == ((8, 2), (1, 2), (1,))
    assert d.gremlins.shape == d.buttons.shape == d.push_box.shape == (0, 2)
    assert not np.array_equal(a.agent_pos, d.agent_pos)  # earlier states are copies
    env.close()


@pytest.mark.sim
def test_gremlins_run_on_their_circles():
    env = make_env("SafetyPointButton1-v0", cameras=("vision",), size=8)
    env.reset(seed=2)
    for _ in range(20):
        env.step(STILL)
    state = env.privileged()
    phase = np.array([np.sin(state.time), np.cos(state.time)])
    expected = state.gremlin_centers + state.gremlin_travel * phase
    np.testing.assert_allclose(state.gremlins, expected, atol=0.08)
    assert (np.linalg.norm(state.buttons - state.goal_pos, axis=1) < 1e-6).sum() == 1
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize(
    "task", ["SafetyPointPush1-v0", "SafetyPointCircle1-v0", "SafetyRacecarGoal1-v0"]
)
def test_other_tasks_run_with_every_camera(task):
    from fosp_ext.envs import CAMERAS

    env = make_env(task, cameras=CAMERAS, size=32)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(env.action_space.sample())
    assert all(image.std() > 5 for image in obs.values())
    assert len({image.tobytes() for image in obs.values()}) == len(CAMERAS)
    assert env.privileged().robot in task
    env.close()
