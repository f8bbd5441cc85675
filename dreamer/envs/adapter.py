"""Wrapper of Gymnasium environments with continuous actions: images of one size, vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from dreamer.data.episode import DatasetInfo
from dreamer.data.images import resized
from dreamer.envs.contract import (
    RENDERED,
    cameras_of,
    check_choice,
    choose_vectors,
    is_image,
    read_action_space,
    read_cost,
    read_flag,
    read_images,
    read_reward,
    read_vectors,
    split_reset,
    split_step,
    unused_of,
)
from dreamer.envs.loading import load_env
from dreamer.errors import UserError


class ImageEnv(gymnasium.Env):
    """A wrapped environment: resized images, vectors that are asked for; reward and cost summed
    over the action repeat.

    Actions are scaled from [-1, 1] to the environment's own bounds. `info` has the cost, and the
    `success` of environments whose own `info` has one. What breaks the rules
    (dreamer/envs/contract.py) is a `UserError` that names the environment; what the environment
    itself raises is passed on.
    """

    def __init__(
        self,
        name: str,
        cameras: Sequence[str] = (),
        size: int = 64,
        action_repeat: int = 1,
        needs_cost: bool = False,
        vectors: Sequence[str] = (),
    ) -> None:
        """Make the environment `name`: a Gymnasium id, or MODULE:NAME.

        `cameras` choose images of its observations; none: all of them, or where there are none
        what `render()` returns. An environment without costs has cost 0, unless it `needs_cost`.
        `vectors` choose rows of numbers of its observations; none: no others are observed.
        """
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.task, self.size, self.action_repeat = name, size, action_repeat
        self._needs_cost = needs_cost
        self._inner, self._time_limit = load_env(name)
        self._steps = 0  # of the inner environment in this episode
        self._images: dict[str, np.ndarray] = {}
        with self._named():
            self.cameras = self._choose(tuple(cameras))
            self.vectors = choose_vectors(vectors, self._inner.observation_space)  # name -> D
            box = read_action_space(self._inner.action_space)
        self._low, self._high = box.low.astype(np.float64), box.high.astype(np.float64)
        self._action_type = box.dtype
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, box.shape, np.float32)
        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        parts: dict[str, gymnasium.spaces.Space] = dict.fromkeys(self.cameras, image)
        for vector, numbers in self.vectors.items():
            parts[vector] = gymnasium.spaces.Box(-np.inf, np.inf, (numbers,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(parts)

    @property
    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What -1 and what 1 are to the environment itself, (A,) each."""
        return tuple(self._low.tolist()), tuple(self._high.tolist())

    @property
    def unused(self) -> dict[str, str]:
        """Parts of its observations that were not chosen: name -> what it is."""
        return unused_of(self._inner.observation_space, (*self.cameras, *self.vectors))

    @property
    def action_size(self) -> int:
        """How many numbers an action has."""
        return len(self._low)

    def require(self, info: DatasetInfo) -> None:
        """Refuse recorded actions or vectors that mean something else here."""
        if self.action_size != info.action_size:
            raise UserError(
                f"an action of {self.task} has {self.action_size} numbers, not {info.action_size}"
            )
        recorded, played = info.action_bounds, self.action_bounds
        if recorded and not np.allclose(recorded, played, rtol=1e-5, atol=1e-8):
            raise UserError(
                f"{self.task} takes actions from {bounds_text(*played)}, the recorded ones were "
                f"from {bounds_text(*recorded)}: they would not do the same"
            )
        if self.vectors != info.vectors:
            raise UserError(f"{self.task} has vectors {self.vectors}, the data {info.vectors}")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; the seed is passed on to the environment."""
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
        said: dict[str, bool] = {}
        for _ in range(self.action_repeat):
            result = self._inner.step(action.copy())
            self._steps += 1
            with self._named():
                raw = split_step(result)
                reward += read_reward(raw.reward)
                if self._needs_cost or raw.cost is not None:
                    cost += read_cost(raw.cost)
                terminated = read_flag(raw.terminated, "terminated")
                truncated = read_flag(raw.truncated, "truncated")
                if raw.success is not None:
                    said["success"] = said.get("success", False) or bool(raw.success)
            truncated = truncated or self._steps == self._time_limit
            if terminated or truncated:
                break
        with self._named():
            obs = self._observe(raw.obs)
        return obs, reward, terminated, truncated, {"cost": cost, **said}

    def render(self) -> np.ndarray:  # type: ignore[override]  # always an image
        """The environment's own image, made square with black edges, or the first camera's."""
        image: Any = self._rendered() if self._renders() else None
        return _square(image) if is_image(image) else self._images[self.cameras[0]].copy()

    def close(self) -> None:
        """Close the environment."""
        if hasattr(self._inner, "close"):
            self._inner.close()

    def _choose(self, cameras: tuple[str, ...]) -> tuple[str, ...]:
        """These cameras, or those there are."""
        known = cameras_of(self._inner.observation_space)
        if not known and self._renders() and cameras in ((), (RENDERED,)):
            return (RENDERED,)
        check_choice(cameras, self._inner.observation_space)
        return cameras or tuple(known)

    def _renders(self) -> bool:
        return getattr(self._inner, "render_mode", None) == "rgb_array"

    def _rendered(self) -> Any:
        try:
            return self._inner.render()
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            raise UserError(f"it cannot be drawn: {error}") from error

    def _scaled(self, action: np.ndarray) -> np.ndarray:
        """From [-1, 1] to the environment's bounds, (A,)."""
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self.action_space.shape} finite numbers, got {action}")
        scaled = self._low + (self._high - self._low) * (action + 1) / 2
        return np.clip(scaled, self._low, self._high).astype(self._action_type)

    def _observe(self, obs: Any) -> dict[str, np.ndarray]:
        vectors = read_vectors(obs, self.vectors)
        if self.cameras == (RENDERED,):
            obs = {RENDERED: self._rendered()}
        images = read_images(obs, self.cameras)
        self._images = {name: resized(image, self.size) for name, image in images.items()}
        return {**self._images, **vectors}

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors say which environment they are about."""
        try:
            yield
        except UserError as error:
            raise UserError(f"environment {self.task}: {error}") from error


def bounds_text(low: Sequence[float], high: Sequence[float]) -> str:
    """Bounds of actions: one pair of numbers where those of all components are the same."""
    if len(set(low)) == len(set(high)) == 1:
        low, high = low[:1], high[:1]
    return " to ".join(" ".join(f"{x:g}" for x in side) for side in (low, high))


def _square(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    side = max(height, width)
    up, left = (side - height) // 2, (side - width) // 2
    edges = ((up, side - height - up), (left, side - width - left), (0, 0))
    return np.pad(image, edges)
