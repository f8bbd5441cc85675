"""Foreign environments as the agent sees them: images, actions, costs, repeats."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from dreamer.envs.adapter import ImageEnv
from dreamer.errors import UserError

HERE = __name__
BOX = gymnasium.spaces.Box


class Vector(gymnasium.Env):
    """Observations without images; what render() returns is half white."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = BOX(-1, 1, (3,))
    action_space = BOX(np.float32([0, -3]), np.float32([2, 3]))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.actions = []
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        return np.zeros(3, np.float32), 1.0, len(self.actions) == 5, False, {}

    def render(self):
        image = np.zeros((20, 40, 3), np.uint8)
        image[:, 20:] = 255
        return image


class Cameras(Vector):
    """Two cameras of different sizes beside a vector; every step costs 0.5."""

    observation_space = gymnasium.spaces.Dict(
        left=BOX(0, 255, (16, 16, 3), np.uint8),
        speed=BOX(-1, 1, (1,)),
        right=BOX(0, 255, (8, 8, 3), np.uint8),
    )

    def look(self):
        stripes = np.zeros((16, 16, 3), np.uint8)
        stripes[::2] = 200
        return {"left": stripes, "speed": np.zeros(1), "right": np.full((8, 8, 3), 7, np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset()
        return self.look(), {}

    def step(self, action):
        *_, terminated, truncated, _ = super().step(action)
        return self.look(), 1.0, terminated, truncated, {"cost": 0.5}


class Striving(Cameras):
    """Succeeds in its second step alone."""

    def step(self, action):
        *result, info = super().step(action)
        return *result, {**info, "success": len(self.actions) == 2}


class Blind(Vector):
    """Nothing to see at all."""

    metadata = {"render_modes": []}  # noqa: RUF012


def test_an_image_of_render_stands_in_for_a_missing_one():
    env = ImageEnv(f"{HERE}:Vector", size=8)
    obs, _ = env.reset(seed=0)
    assert env.cameras == ("rendered",)
    assert obs["rendered"].shape == (8, 8, 3)
    assert (obs["rendered"][:, :4] == 0).all()
    assert (obs["rendered"][:, 4:] == 255).all()
    obs, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info) == (1.0, False, False, {"cost": 0.0})
    assert env.observation_space.contains(obs)


def test_actions_fill_the_bounds():
    env = ImageEnv(f"{HERE}:Vector")
    env.reset(seed=0)
    for action in ([-1, -1], [0, 0], [1, 1]):
        env.step(np.float32(action))
    assert np.allclose(env._inner.actions, [[0, -3], [1, 0], [2, 3]])
    assert env.action_space == BOX(-1.0, 1.0, (2,), np.float32)


def test_all_images_are_seen_or_those_that_are_named():
    env = ImageEnv(f"{HERE}:Cameras", size=8)
    obs, _ = env.reset(seed=0)
    assert env.cameras == ("left", "right")
    assert (obs["left"] == 100).all()  # the mean of the pixels that it covers
    assert (obs["right"] == 7).all()
    assert ImageEnv(f"{HERE}:Cameras", ["right"], 8).cameras == ("right",)


def test_rewards_and_costs_are_summed_until_the_end():
    env = ImageEnv(f"{HERE}:Cameras", size=8, action_repeat=3)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.zeros(2))
    assert (reward, terminated, info) == (3.0, False, {"cost": 1.5})
    _, reward, terminated, _, info = env.step(np.zeros(2))
    assert (reward, terminated, info) == (2.0, True, {"cost": 1.0})


def test_success_at_any_moment_of_a_repeat_is_passed_on():
    env = ImageEnv(f"{HERE}:Striving", size=8, action_repeat=3)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[-1] == {"cost": 1.5, "success": True}
    assert env.step(np.zeros(2))[-1] == {"cost": 1.0, "success": False}


def test_a_registered_environment_has_its_time_limit():
    gymnasium.register("Limited-v0", entry_point=f"{HERE}:Cameras", max_episode_steps=2)
    env = ImageEnv("Limited-v0", size=8)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[3] is False
    assert env.step(np.zeros(2))[3] is True


@pytest.mark.parametrize(
    ("name", "cameras", "message"),
    [
        (f"{HERE}:Blind", (), "no image in the observation space"),
        (f"{HERE}:Cameras", ("speed",), "no camera 'speed'; the cameras are left, right"),
        ("CartPole-v1", (), "environment CartPole-v1: actions must be .* discrete actions are not"),
    ],
)
def test_what_cannot_be_adapted(name, cameras, message):
    with pytest.raises(UserError, match=message):
        ImageEnv(name, cameras)


def test_a_missing_cost_is_refused_where_it_is_needed():
    env = ImageEnv(f"{HERE}:Vector", needs_cost=True)
    env.reset(seed=0)
    with pytest.raises(UserError, match="no cost"):
        env.step(np.zeros(2))
