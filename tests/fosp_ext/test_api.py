"""The functions for programs: load, act, evaluate, configure, train."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import fosp_ext
from dreamer.envs.counting import CountingEnv
from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.evaluation import Moment, run_episode
from fosp_ext.acting import own_bounds
from fosp_ext.export import export
from fosp_ext.run.run_folder import load_run
from tests.support.agents import ROOT, make_agent, make_batch, written_run

TASK = f"{__name__}:Wide"
WORLD = {"task": TASK, "env.action_repeat": 1}
EXACT = {"device": "cpu", "precision": "float32"}


class Wide(CountingEnv):
    """A counter with episodes of five steps, whose actions have bounds of their own."""

    def __init__(self) -> None:
        super().__init__(length=5)
        self.action_space = gymnasium.spaces.Box(
            np.array([-2.0, 10.0], np.float32), np.array([6.0, 11.0], np.float32)
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Recorded and trained with the API alone."""
    folder = tmp_path_factory.mktemp("api")
    place = {"dataset.path": folder / "data.h5"}
    recording = {"dataset.episodes": 3, "dataset.workers": 1}
    data = fosp_ext.train(fosp_ext.configure("collect", "debug", WORLD, place, recording))
    assert data == folder / "data.h5"
    own = {"run.updates": 2, "run.heldout_every": 0, **place, **EXACT}
    config = fosp_ext.configure("fosp_offline", "debug", WORLD, own, logdir=folder / "run", seed=4)
    assert (config.run.updates, config.seed, config.size) == (2, 4, "debug")
    assert fosp_ext.train(config) == folder / "run"
    return folder / "run"


def images(count: int) -> dict[str, np.ndarray]:
    """Random images of both cameras, (count, 64, 64, 3)."""
    rng = np.random.default_rng(count)
    shape = (count, 64, 64, 3)
    return {name: rng.integers(0, 256, shape, np.uint8) for name in ("vision", "vision_back")}


def one(batch: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {name: array[index] for name, array in batch.items()}


def test_the_three_lines(run):
    agent = fosp_ext.load(run)
    agent.reset()
    step = agent.act(one(images(1), 0))
    assert step.action.shape == (2,)
    assert step.action.dtype == np.float32
    assert -2 <= step.action[0] <= 6
    assert 10 <= step.action[1] <= 11
    assert 0 < step.violation_probability < 1
    assert isinstance(step.value, float)
    assert (agent.task, agent.cameras) == (TASK, ("vision", "vision_back"))
    found = fosp_ext.evaluate(agent, TASK, episodes=2)
    assert (found["episodes"], found["seeds"]) == (2, [1000, 1001])
    assert (found["return"]["mean"], found["cost"]["mean"]) == (15.0, 1.0)
    assert fosp_ext.evaluate(run, episodes=2) == found


def test_it_acts_as_evaluations_do(run):
    """The same actions as in `run_episode`, in the units of the environment."""
    loaded = load_run(run, torch.device("cpu"))
    seen: list[dict[str, np.ndarray]] = []
    taken: list[np.ndarray] = []

    class Watched(CountingEnv):
        def step(self, action):
            taken.append(action)
            return super().step(action)

    def watch(_: gymnasium.Env, moment: Moment) -> None:
        seen.append(moment.obs)

    run_episode(loaded.agent, Watched(length=5), 3, torch.device("cpu"), watch)
    agent = fosp_ext.load(run, "cpu")
    for _ in range(2):  # a reset forgets everything
        agent.reset(seed=3)
        acted = np.stack([agent.act(obs).action for obs in seen])
        own = np.array([-2, 10]) + np.array([8, 1]) * (np.stack(taken) + 1) / 2
        np.testing.assert_allclose(acted, own, rtol=1e-5)
    before = torch.get_rng_state()
    agent.act(seen[0])
    assert torch.equal(before, torch.get_rng_state())


def test_several_environments_at_once(run):
    agent = fosp_ext.load(run)
    batch = images(3)
    step = agent.act(batch)
    assert step.action.shape == (3, 2)
    assert step.value.shape == step.violation_probability.shape == (3,)
    with pytest.raises(UserError, match=r"images of 1 environments.* 3 environments before"):
        agent.act(one(batch, 0))
    again = agent.act(batch, is_first=[True, False, True])
    # where an episode begins, the memory is that of a first image
    np.testing.assert_allclose(again.action[[0, 2]], step.action[[0, 2]], atol=1e-4)
    assert not np.allclose(again.action[1], step.action[1], atol=1e-4)
    agent.reset()
    assert agent.act(one(batch, 0)).action.shape == (2,)


def test_exploring_draws_actions(run):
    agent = fosp_ext.load(run)
    batch = one(images(1), 0)
    drawn = []
    for seed in (0, 1):
        agent.reset(seed)
        drawn.append(agent.act(batch, explore=True).action)
    assert not np.allclose(*drawn)


def test_images_of_a_real_camera_are_resized(run):
    agent = fosp_ext.load(run)
    large = {name: np.repeat(np.repeat(x[0], 7, 0), 10, 1) for name, x in images(1).items()}
    assert large["vision"].shape == (448, 640, 3)
    agent.reset()
    whole = agent.act(large)
    agent.reset()
    np.testing.assert_allclose(whole.action, agent.act(one(images(1), 0)).action, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: {"vision": obs["vision"]}, "no image 'vision_back'; this agent sees vision, "),
        (lambda obs: {**obs, "vision": obs["vision"] / 255}, "uint8, it is .* float64"),
        (lambda obs: {**obs, "vision": obs["vision"][..., 0]}, "must be .height, width, 3."),
        (lambda obs: {**obs, "vision": obs["vision"][None]}, "same number of environments"),
    ],
)
def test_wrong_images_are_named(run, change, message):
    with pytest.raises(UserError, match=message):
        fosp_ext.load(run).act(change(one(images(1), 0)))


def test_a_checkpoint_and_an_exported_file(run, tmp_path):
    (newest,) = (run / "checkpoints").glob("*2.pt")
    small = export(run, tmp_path / "agent.pt")
    batch = one(images(1), 0)
    acts = [fosp_ext.load(path, "cpu").act(batch).action for path in (run, newest, small)]
    np.testing.assert_array_equal(acts[0], acts[1])
    np.testing.assert_allclose(acts[0], acts[2], atol=0.02)  # its weights are float16


def test_bounds_where_the_environment_is_not_at_hand(tmp_path):
    agent = make_agent()
    agent.update(make_batch())
    folder = written_run(tmp_path / "run", agent, "fosp_offline", "debug", task="lab:arm")
    path = next((folder / "checkpoints").glob("*.pt"))
    state = torch.load(path, weights_only=True)
    state["info"]["task"] = "lab:arm"
    torch.save(state, path)
    with pytest.raises(UserError, match=r"no module 'lab'.*load\(path, bounds="):
        fosp_ext.load(folder)
    with pytest.raises(UserError, match="two of 2 numbers"):
        fosp_ext.load(folder, bounds=(np.zeros(3), np.ones(3)))
    loaded = fosp_ext.load(folder, bounds=(np.zeros(2), np.full(2, 5.0)))
    assert (loaded.act(one(images(1), 0)).action > 0).all()


def test_what_an_agent_does_not_estimate_is_none(tmp_path):
    folder = written_run(tmp_path, make_agent("bc", "debug"), "bc", "debug")
    step = fosp_ext.load(folder).act(one(images(1), 0))
    assert step[1:] == (None, None, None)


@pytest.mark.sim
@pytest.mark.parametrize("robot", ["Point", "Car", "Racecar", "Doggo", "Ant"])
def test_units_are_those_of_the_simulator(robot):
    from fosp_ext.envs import action_limits, action_scale, make_env

    task = f"Safety{robot}Goal0-v0"
    env = make_env(task, cameras=("vision",), size=8)
    low, high = env.action_bounds
    scaled = np.array(action_limits(task)) * np.array(action_scale(task))
    np.testing.assert_allclose(high, scaled)
    np.testing.assert_allclose(low, -scaled)
    env.close()


def test_the_bounds_of_the_shipped_agent():
    loaded = load_run(ROOT / "agents" / "point_goal1.pt", torch.device("cpu"))
    low, high = own_bounds(loaded)
    np.testing.assert_allclose(high, loaded.info.action_scale)
    np.testing.assert_allclose(low, -high)


def test_mistakes_are_user_errors(run):
    with pytest.raises(UserError, match="did you mean 'fosp_offline'"):
        fosp_ext.configure("fosp_ofline")
    with pytest.raises(UserError, match=r"run\.updates"):
        fosp_ext.configure("fosp_offline", {"run.updates": "many"})
    with pytest.raises(UserError, match=r"trained for .*Wide, not for SafetyPointGoal1-v0"):
        fosp_ext.evaluate(run, "SafetyPointGoal1-v0")
    with pytest.raises(UserError, match="episodes must be at least 1"):
        fosp_ext.evaluate(run, episodes=0)
    with pytest.raises(AttributeError, match="no attribute 'lead'"):
        fosp_ext.lead  # noqa: B018


def test_importing_does_not_wait_for_torch():
    code = "import sys, fosp_ext; print({'torch', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_no_module_is_imported_because_a_file_names_it(tmp_path):
    """A module that a stranger's checkpoint names would run; numbers of its actions need none."""
    folder = written_run(tmp_path / "run", make_agent("bc", "debug"), "bc", "debug")
    state = Checkpoint.load(Checkpoint(folder / "checkpoints", 1).latest())
    state["info"]["task"] = state["config"]["task"] = "theirs:Env"
    Checkpoint.write(tmp_path / "theirs.pt", state["step"], state)
    with pytest.raises(UserError, match="whose module would be imported"):
        fosp_ext.load(tmp_path / "theirs.pt")
    agent = fosp_ext.load(tmp_path / "theirs.pt", bounds=([-1, -1], [1, 1]))
    with pytest.raises(UserError, match="whose module would be imported"):
        fosp_ext.evaluate(agent, episodes=1)
