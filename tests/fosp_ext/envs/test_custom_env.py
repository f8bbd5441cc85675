"""Custom environments: the wrapper, the check, and the page that explains them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from ruamel.yaml import YAML

import eval as evaluation_command
import train
from dreamer.config import load_presets
from dreamer.data.hdf5 import read_episodes, validate_dataset
from dreamer.errors import UserError
from fosp_ext.config import resolve_config
from fosp_ext.envs import action_size, check, make_env, task_folder
from fosp_ext.envs.scripted import available_policies, make_scripted_policy
from tests.support.commands import ROOT, metrics, snapshot
from tests.support.pages import commands

HERE = __name__
PAGE = ROOT / "docs" / "reference" / "custom_environments.md"
SHAPE = (12, 16, 3)


class Good(gymnasium.Env):
    """Six steps. The image shows the last random number, the reward the action's first number."""

    def __init__(self):
        self.observation_space = Dict(
            {"front": Box(0, 255, SHAPE, np.uint8), "state": Box(-1, 1, (3,), np.float32)}
        )
        self.action_space = Box(np.float32([-2, 0]), np.float32([4, 1]), dtype=np.float32)
        self.buffer = np.zeros(SHAPE, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.observe(), self.reward(action), False, self.steps == 6, self.info()

    def observe(self):
        self.buffer[:] = self.np_random.integers(256)
        return {"front": self.buffer, "state": np.zeros(3, np.float32)}

    def reward(self, action):
        return action[0]

    def info(self):
        return {"cost": self.steps % 2}


class SixValues(Good):
    """Safety-Gymnasium's convention, and no end of its own."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, np.float64(0.5), np.bool_(False), np.bool_(False), {}


class OneImage(Good):
    """The observation is the image; it can be recorded."""

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode
        self.observation_space = self.observation_space["front"]

    def observe(self):
        return super().observe()["front"]

    def render(self):
        return np.full((20, 30, 3), 200, np.uint8)


class FloatImages(Good):
    """Says uint8, shows 0 to 1."""

    def observe(self):
        return super().observe() | {"front": self.np_random.random(SHAPE, np.float32)}


class ChannelsFirst(Good):
    """Images as PyTorch likes them."""

    def observe(self):
        return super().observe() | {"front": np.zeros((3, 12, 16), np.uint8)}


class FloatSpace(Good):
    """Announces no image."""

    def __init__(self):
        super().__init__()
        self.observation_space = Box(0, 1, SHAPE, np.float32)


class NoImage(Good):
    """Forgets the camera it announced."""

    def observe(self):
        return {"state": np.zeros(3, np.float32)}


class NoCost(Good):
    """A cost in some steps only, where there is one."""

    def info(self):
        return {"cost": 1.0} if self.steps == 2 else {}


class NegativeCost(Good):
    """A cost as if it were a reward."""

    def info(self):
        return {"cost": -float(self.steps == 3)}


class NaNReward(Good):
    """A division by zero somewhere."""

    def reward(self, action):
        return np.nan


class ListReward(Good):
    """One reward per something."""

    def reward(self, action):
        return [1.0, 2.0]


class OldStep(Good):
    """Gym's four values."""

    def step(self, action):
        obs, reward, _, done, info = super().step(action)
        return obs, reward, done, info


class OldReset(Good):
    """Gym's reset."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NumberFlag(Good):
    """0 and 1 for False and True."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, int(self.steps == 4), truncated, info


class Endless(Good):
    """Never over."""

    def step(self, action):
        return *super().step(action)[:3], False, {"cost": 0}


class NotSeeded(Good):
    """Its own source of chance."""

    def observe(self):
        obs = super().observe()
        self.buffer[:] = np.random.default_rng().integers(256)
        return obs


class Forgetful(Good):
    """Something of the last episode stays."""

    def __init__(self):
        super().__init__()
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def reward(self, action):
        return self.episodes


class Instances(Good):
    """Chance in the constructor."""

    made = 0

    def __init__(self):
        super().__init__()
        Instances.made += 1
        self.number = Instances.made

    def reward(self, action):
        return self.number


class SameStart(Good):
    """Always the same, and nothing moves or costs."""

    def observe(self):
        return super().observe() | {"front": np.zeros(SHAPE, np.uint8)}

    def info(self):
        return {"cost": 0}


class Choices(Good):
    """Not for a policy of real numbers."""

    def __init__(self):
        super().__init__()
        self.action_space = Discrete(3)


class Unbounded(Good):
    """No range to scale to."""

    def __init__(self):
        super().__init__()
        self.action_space = Box(-np.inf, np.inf, (2,), np.float32)


class Broken(Good):
    """A mistake of the author's."""

    def info(self):
        return {}["cost"]


def not_an_environment():
    """A function that makes something else."""
    return 3


gymnasium.register("SixValues-v3", f"{HERE}:SixValues", max_episode_steps=9)


def examine(name: str, capsys, *words: str) -> tuple[int, str]:
    """Exit code and output of the check."""
    code = check.main([f"{HERE}:{name}", *words])
    out, err = capsys.readouterr()
    return code, out + err


# --- the check ---


@pytest.mark.parametrize("name", ["Good", "SixValues-v3", "OneImage"])
def test_good_environments_pass(name, capsys):
    code, out = examine(name, capsys)
    assert code == 0, out
    verdicts = [line.split()[0] for line in out.splitlines()]
    assert verdicts == ["ok"] * (len(verdicts) - 1) + ["it"]
    camera = "image" if name == "OneImage" else "front"
    assert f"cameras      {camera} 16x12\n" in out
    vectors = "" if name == "OneImage" else " --env.vectors state"
    assert out.endswith(f"it fits: --task {HERE}:{name} --env.cameras {camera}{vectors}\n")
    assert ("videos       30x30" in out) == (name == "OneImage")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FloatImages", r"images .*'front' is float32 \(12, 16, 3\).*uint8.*\(at reset\)"),
        ("ChannelsFirst", r"images .*'front' is uint8 \(3, 12, 16\).*\(height, width, 3\)"),
        ("FloatSpace", r"cameras .*no image in the observation space Box.*float32"),
        ("NoImage", r"images .*lacks 'front'; it has state"),
        ("NoCost", r"cost .*every step.*info\['cost'\].*\(at step 1\)"),
        ("NegativeCost", r"cost .*at least 0, it is -1 \(at step 3\)"),
        ("NaNReward", r"reward .*finite number, it is nan"),
        ("ListReward", r"reward .*must be a number, it is a value of type list"),
        ("OldStep", r"step .*returned 4 values; \(observation, reward"),
        ("OldReset", r"reset .*returned a value of type dict; \(observation, info\)"),
        ("NumberFlag", r"terminated .*True or False, it is a value of type int \(at step 1\)"),
        ("Endless", r"ends .*no end after 50 steps.*truncated"),
        ("SixValues", r"ends .*no end after 50 steps.*max_episode_steps"),
        ("NotSeeded", r"same seed .*other images at reset.*self\.np_random"),
        ("Forgetful", r"same seed .*other reward at step 1"),
        ("Instances", r"new instance .*other reward at step 1"),
        ("Choices", r"actions .*one-dimensional Box.*Discrete\(3\)"),
        ("Unbounded", r"actions .*finite bounds"),
        ("Broken", r"environment .*KeyError in test_custom_env.py, line \d+: 'cost'"),
    ],
)
def test_what_is_wrong_is_named(name, message, capsys):
    code, out = examine(name, capsys, "--limit", "50")
    assert code == 1, out
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert any(re.match(f"WRONG +{message}", line) for line in wrong), out
    assert "it does not fit yet" in out


def test_every_broken_rule_is_reported_at_once(capsys, monkeypatch):
    monkeypatch.setattr(Good, "reward", NaNReward.reward)
    monkeypatch.setattr(Good, "info", NoCost.info)
    monkeypatch.setattr(Good, "observe", NoImage.observe)
    out = examine("Good", capsys)[1]
    wrong = [line.split()[1] for line in out.splitlines() if line.startswith("WRONG")]
    assert wrong == ["images", "reward", "cost"]


class TwoStates(Good):
    """Its costs are small, and a part of its observation is neither image nor vector."""

    def __init__(self):
        super().__init__()
        parts = {**self.observation_space.spaces, "mode": Discrete(3), "speed": Box(0, 1, (2,))}
        self.observation_space = Dict(parts)

    def observe(self):
        return super().observe() | {"mode": 1, "speed": np.float32([0, 1])}

    def info(self):
        return {"cost": 0.1}


def notes(out: str) -> list[str]:
    return [line.removeprefix("note").strip() for line in out.splitlines() if line[:4] == "note"]


def test_what_is_not_used_is_noted(capsys):
    code, out = examine("TwoStates", capsys, "--vectors", "speed", "--violation", "0.3")
    assert code == 0
    assert "ok     vectors      speed (2)" in out
    assert notes(out) == [
        "not used     observation 'mode' (int64 ()): nothing learns from it",
        "not used     observation 'state' (float32 (3,)): nothing learns from it",
    ]
    assert out.endswith("--env.cameras front --env.vectors speed\n")
    code, out = examine("TwoStates", capsys, "--vectors", "spede")
    assert code == 1
    assert "no vector 'spede' in the observation; the vectors are speed, state" in out


@pytest.mark.parametrize(("repeat", "worst"), [("4", "0.4"), ("1", "0.1"), ("5", None)])
def test_a_threshold_that_no_step_reaches_is_noted(capsys, repeat, worst):
    """Each step costs 0.1, and an action holds for `repeat` steps."""
    code, out = examine("TwoStates", capsys, "--action-repeat", repeat)
    assert code == 0
    assert ("none would violate the constraint" in out) == (worst is not None)
    if worst:
        assert f"{repeat} steps cost {worst} at most, below env.violation 0.5" in out
        assert f"give --env.violation {worst} or less" in out


def test_doubts_are_noted(capsys):
    code, out = examine("SameStart", capsys)
    assert code == 0
    notes = [line.split()[1] for line in out.splitlines() if line.startswith("note")]
    assert notes == ["images", "cost", "other"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("no_such_module:Env", "no module 'no_such_module' in the working directory"),
        ("tests.test_custom_enw:Good", "no module 'tests.test_custom_enw'"),
        (f"{HERE}:Goood", "no 'Goood'; did you mean 'Good'"),
        (f"{HERE}:SixValues-v2", "did you mean 'SixValues-v3'"),
        (f"{HERE}:not_an_environment", "made an object of type int without observation_space"),
        ("envs/mine.py:Env", "'envs/mine.py:Env' is not MODULE:NAME"),
        ("SafetyPointGaol1-v0", "did you mean 'SafetyPointGoal1-v0'"),
    ],
)
def test_an_environment_that_is_not_there_is_exit_code_2(task, message, capsys):
    assert check.main([task]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_module_that_cannot_be_imported_says_why(place, capsys):
    (place / "half_written.py").write_text("import numpy\nimport not_installed_here\n")
    assert check.main(["half_written:Env"]) == 2
    assert "failed with ModuleNotFoundError: No module named 'not_inst" in capsys.readouterr().err
    assert check.main(["half_writen:Env"]) == 2
    assert "did you mean 'half_written'?" in capsys.readouterr().err


def test_the_check_has_help_and_refuses_bad_numbers(capsys):
    for words, code in ((["--help"], 0), ([], 2), (["a:b", "--episodes", "0"], 2)):
        with pytest.raises(SystemExit, match=str(code)):
            check.main(words)
    assert "--episodes must be at least 1" in capsys.readouterr().err


@pytest.mark.sim
def test_the_check_plays_safety_gymnasium_too(capsys):
    words = ["SafetyPointGoal1-v0", "--cameras", "vision_back", "--episodes", "1"]
    assert check.main([*words, "--limit", "300"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ok +ends +250 to 250 steps", out, re.M)
    assert re.search(r"^ok +cameras +vision_back 64x64", out, re.M)


@pytest.mark.sim
@pytest.mark.parametrize(
    "task", ["SafetyRacecarGoal1-v0", "SafetyDoggoCircle1-v0", "SafetyAntPush0-v0"]
)
def test_other_navigation_tasks_work_by_their_id(task):
    env = make_env(task, size=32)
    env.reset(seed=1)
    assert env.action_space.shape == (action_size(task),)
    obs, *_ = env.step(np.zeros(env.action_space.shape))
    front, back = obs["vision"].astype(float), obs["vision_back"].astype(float)
    assert min(front.std(), back.std()) > 10
    assert np.abs(front - back).mean() > 5
    env.close()


# --- the adapter ---


def adapted(name: str, **changes):
    return make_env(f"{HERE}:{name}", **{"cameras": ("front",), "action_repeat": 1, **changes})


def test_actions_are_scaled_to_the_bounds_and_rewards_and_costs_summed():
    env = adapted("Good", action_repeat=4)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.array([1.0, 1.0]))
    assert (reward, info["cost"]) == (4 * 4.0, 2.0)  # costs of steps 1 to 4: 1, 0, 1, 0
    assert (terminated, truncated) == (False, False)
    _, reward, _, truncated, info = env.step(np.array([-1.0, 0.3]))
    assert (reward, info["cost"], truncated) == (2 * -2.0, 1.0, True)  # the episode has six steps
    assert isinstance(reward, float)
    env.reset(seed=0)
    assert env.step(np.array([5.0, 0.0]))[1] == 4 * 4.0  # beyond the range is cut off
    for action in (np.zeros(3), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="finite numbers"):
            env.step(action)


def test_images_are_copies_in_the_wanted_size():
    env = adapted("Good", size=6)
    first = env.reset(seed=1)[0]["front"]
    kept = first.copy()
    second = env.step(np.zeros(2))[0]["front"]
    assert (first == kept).all()
    assert (second != first).all()
    assert env.observation_space.contains({"front": second})
    assert env.observation_space["front"].shape == (6, 6, 3)
    assert (env.render() == second).all()


def test_a_smaller_pixel_is_the_mean_of_those_it_covers(monkeypatch):
    image = np.zeros(SHAPE, np.uint8)
    image[:6, :8] = 200
    image[0, 0] = 0
    monkeypatch.setattr(Good, "observe", lambda self: {"front": image})
    shown = adapted("Good", size=2).reset(seed=0)[0]["front"]
    expected = np.zeros((2, 2, 3), int)
    expected[0, 0] = round(200 * 47 / 48)
    np.testing.assert_allclose(shown, expected, atol=1)


def test_the_time_limit_of_the_registration_cuts_off():
    env = adapted("SixValues-v3", action_repeat=2)
    for _ in range(2):
        env.reset(seed=0)
        steps = [env.step(np.zeros(2)) for _ in range(5)]
        assert [step[3] for step in steps] == [False] * 4 + [True]  # nine steps: 2, 2, 2, 2, 1
        assert [step[4]["cost"] for step in steps] == [1.0] * 4 + [0.5]
        assert not any(step[2] for step in steps)


def test_videos_are_square_and_not_stretched():
    image = adapted("OneImage", cameras=("image",)).render()
    assert image.shape == (30, 30, 3)
    assert not image[:5].any()
    assert not image[25:].any()
    assert (image[5:25] == 200).all()


def test_broken_rules_stop_with_the_name_of_the_environment():
    env = adapted("NoCost")
    env.reset(seed=0)
    rules = "docs/reference/custom_env"
    with pytest.raises(UserError, match=rf"environment {HERE}:NoCost: no cost.*{rules}"):
        env.step(np.zeros(2))
    with pytest.raises(UserError, match=r"no camera 'vision'; .* front: --env.cameras front"):
        adapted("Good", cameras=("vision", "vision_back"))
    with pytest.raises(UserError, match="none"):
        adapted("Good", variant="night")


# --- the random policy ---


def test_random_policy_fits_any_action():
    task = "a.b:C"
    assert available_policies(task) == ("random",)
    with pytest.raises(UserError, match=r"no policy 'safe' .*available: random"):
        make_scripted_policy("safe", task, np.random.default_rng(0))

    def actions(speed: float) -> np.ndarray:
        rng = np.random.default_rng(3)
        policy = make_scripted_policy("random", task, rng, speed=speed, action_size=5)
        policy.reset()
        return np.stack([policy.act(None) for _ in range(2000)])

    full = actions(1.0)
    assert (full.shape, full.dtype) == ((2000, 5), np.float32)
    assert np.abs(full).max() == 1
    np.testing.assert_array_equal(full, actions(1.0))
    np.testing.assert_allclose(actions(0.5), full / 2, rtol=1e-6)
    neighbours = np.corrcoef(full[:-1, 0], full[1:, 0])[0, 1]
    assert 0.8 < neighbours < 0.95
    assert abs(np.corrcoef(full[:, 0], full[:, 1])[0, 1]) < 0.2


# --- recording and training ---


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what its modules add to the path is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--env.cameras front --dataset.mix safe=1", "no policy 'safe' for task"),
        ("--dataset.mix random=1", "no camera 'vision'; the cameras are front"),
        ("--dataset.mix random=1 --task nowhere:Good", "no module 'nowhere'"),
        (
            "--dataset.mix random=1 --env.cameras front --env.variant night",
            "not 'tests",
        ),
    ],
)
def test_recording_refuses_before_it_writes(place, capsys, words, message):
    argv = ["--configs", "collect", "debug", "--task", f"{HERE}:Good", *words.split()]
    assert train.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not snapshot(place)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.S | re.M)


def test_the_page_is_true(place, capsys):
    """Its environment is saved, and its commands are run, in the debug size."""
    example, recording = blocks("python")
    assert example.count("\n") <= 40
    (place / "point_world.py").write_text(example)
    exec(compile(recording, "recording", "exec"), {})
    recorded = ["--dataset.episodes", "3", "--dataset.workers", "1"]
    short = ["--device", "cpu", "--run.updates", "2", "--run.heldout_every", "0"]
    short += ["--run.eval_every", "2"]
    done = []
    for _, *words in commands(PAGE):
        words = [word.replace("cpu", "debug") for word in words]
        if words[0] == "train.py":
            given = words[1:]
            extra = short[:-2] if "--run.eval_every" in given else short
            extra = recorded if "collect" in given else extra
            assert train.main([*given, *extra]) == 0, capsys.readouterr().err
        elif words[0] == "eval.py":
            assert evaluation_command.main([*words[1:], "--episodes", "1", "--videos", "1"]) == 0
        elif "TASK" not in words:
            assert words[:2] == ["-m", "fosp_ext.envs.check"]
            assert check.main(words[2:]) == 0, capsys.readouterr().out
        done.append(words[0])
    assert sorted(set(done)) == ["-m", "eval.py", "train.py"]

    folder = place / "logdir" / task_folder("point_world:PointWorld")
    info = validate_dataset(folder / "dataset.h5")
    assert (info.task, info.cameras, info.action_size) == ("point_world:PointWorld", ("above",), 2)
    episodes = list(read_episodes(folder / "dataset.h5"))
    assert [episode.policy for episode in episodes] == ["random"] * 3
    assert episodes[0].images["above"].std() > 10
    run = folder / "fosp_offline-debug-quick" / "seed0"
    assert 0 < metrics(run)[-1]["eval/length"] <= 100
    (video,) = run.glob("eval/*/videos/*")
    assert video.stat().st_size > 1000
    assert (
        place / "logdir" / "lab-arm" / "fosp_offline-debug-quick" / "seed0" / "checkpoints"
    ).is_dir()


def test_the_preset_of_the_page_works():
    (text,) = blocks("yaml")
    presets = {**load_presets(ROOT / "configs.yaml"), **YAML(typ="safe").load(text)}
    config = resolve_config(presets, ["collect", "point_world"], {})
    assert (config.task, config.env.cameras) == ("point_world:PointWorld", ("above",))
    assert config.env.action_repeat == 1


def test_data_of_other_actions_than_the_environments_are_refused(place, capsys):
    recording = blocks("python")[1].replace("lab:arm", f"{HERE}:Good").replace("wrist", "front")
    exec(compile(recording, "recording", "exec"), {})
    argv = ["--configs", "fosp_offline", "debug", "--task", f"{HERE}:Good", "--dataset.path"]
    argv += ["arm.h5", "--env.cameras", "front", "--env.action_repeat", "1", "--device", "cpu"]
    before = snapshot(place)
    assert train.main([*argv, "--run.eval_every", "1"]) == 2
    assert "an action of the environment has 2 numbers, not 7" in capsys.readouterr().err
    assert snapshot(place) == before
