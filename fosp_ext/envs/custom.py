"""Any environment that reports costs, behind the interface of this project's own.

Use `fosp_ext.envs.make_env` with a task `MODULE:NAME`. The rules are in
docs/reference/custom_environments.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from dreamer.errors import UserError
from fosp_ext.envs.contract import (
    check_choice,
    is_image,
    read_action_space,
    read_cost,
    read_flag,
    read_images,
    read_reward,
    split_reset,
    split_step,
)
from fosp_ext.envs.loading import load_env


class CustomEnv(gymnasium.Env):
    """Chosen images of a foreign environment, resized; reward and cost summed over the repeat.

    Actions are scaled from [-1, 1] to the environment's own bounds. What breaks the rules is a
    `UserError` that names the environment; what the environment itself raises is passed on.
    """

    def __init__(
        self, task: str, cameras: tuple[str, ...], size: int, action_repeat: int, render: str
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.task, self.cameras, self.size = task, cameras, size
        self.action_repeat, self.render_quality = action_repeat, render
        self._inner, self._time_limit = load_env(task)
        self._steps = 0  # of the inner environment in this episode
        self._images: dict[str, np.ndarray] = {}
        with self._named():
            check_choice(cameras, self._inner.observation_space)
            box = read_action_space(self._inner.action_space)
        self._low, self._high = box.low.astype(np.float64), box.high.astype(np.float64)
        self._action_type = box.dtype
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, box.shape, np.float32)
        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(cameras, image))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode of the environment; the seed is its own affair."""
        result = self._inner.reset(seed=seed, **({"options": options} if options else {}))
        self._steps = 0
        with self._named():
            return self._observe(split_reset(result)), {"cost": 0.0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat the action; reward and cost are sums over the environment's own steps."""
        action = self._scaled(action)
        reward, cost = 0.0, 0.0
        for _ in range(self.action_repeat):
            result = self._inner.step(action.copy())
            self._steps += 1
            with self._named():
                raw = split_step(result)
                reward += read_reward(raw.reward)
                cost += read_cost(raw.cost)
                terminated = read_flag(raw.terminated, "terminated")
                truncated = read_flag(raw.truncated, "truncated")
            truncated = truncated or self._steps == self._time_limit
            if terminated or truncated:
                break
        with self._named():
            obs = self._observe(raw.obs)
        return obs, reward, terminated, truncated, {"cost": cost}

    def render(self) -> np.ndarray:
        """The environment's own image, made square with black edges, or the first camera's."""
        own = getattr(self._inner, "render_mode", None) == "rgb_array"
        image = self._inner.render() if own else None
        return _square(image) if is_image(image) else self._images[self.cameras[0]].copy()

    def privileged(self) -> None:
        """Nothing is known of this world but its images; `random` policy needs no more."""

    def close(self) -> None:
        """Close the environment."""
        if hasattr(self._inner, "close"):
            self._inner.close()

    def _scaled(self, action: np.ndarray) -> np.ndarray:
        """From [-1, 1] to the environment's bounds, (A,)."""
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self.action_space.shape} finite numbers, got {action}")
        scaled = self._low + (self._high - self._low) * (action + 1) / 2
        return np.clip(scaled, self._low, self._high).astype(self._action_type)

    def _observe(self, obs: Any) -> dict[str, np.ndarray]:
        images = read_images(obs, self.cameras)
        self._images = {name: _resized(image, self.size) for name, image in images.items()}
        return dict(self._images)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors say which environment they are about."""
        try:
            yield
        except UserError as error:
            raise UserError(f"environment {self.task}: {error}") from error


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """The whole image as (size, size, 3); a smaller pixel is the mean of those it covers."""
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))


def _square(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    side = max(height, width)
    up, left = (side - height) // 2, (side - width) // 2
    edges = ((up, side - height - up), (left, side - width - left), (0, 0))
    return np.pad(image, edges)
