"""A robot with a camera, joints and actions of its own range, and its episodes in foreign files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import h5py
import numpy as np
from gymnasium.spaces import Box, Dict

LIMIT = 2.0  # actions lie in [-LIMIT, LIMIT]
LENGTH = 12


class Robot(gymnasium.Env):
    """A point that actions of [-2, 2] move; joints say where it is, and the right side costs."""

    shape = (16, 16, 3)

    def __init__(self) -> None:
        joints = Box(-np.inf, np.inf, (3,), np.float32)
        self.observation_space = Dict(
            {"front": Box(0, 255, self.shape, np.uint8), "joints": joints}
        )
        self.action_space = Box(-LIMIT, LIMIT, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0.3, 0.7, 2)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert self.action_space.contains(np.asarray(action, np.float32)), action
        self.place = np.clip(self.place + 0.04 * np.asarray(action, float), 0, 1)
        self.steps += 1
        reward = float(self.place[1] + action[0])
        cost = float(self.place[0] > 0.6)
        return self.observe(), reward, False, self.steps == LENGTH, {"cost": cost}

    def observe(self) -> dict[str, np.ndarray]:
        height, width, _ = self.shape
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        near = np.hypot(x - self.place[0], y - self.place[1])[..., None] < 0.2
        image = np.where(near, 255, [40, 90, 160]).astype(np.uint8)
        angle = np.float32(np.pi * self.place[0])
        joints = np.array([angle, *self.place], np.float32)
        return {"front": image, "joints": joints}


class WideRobot(Robot):
    """The same with images that are 96 pixels wide and high."""

    shape = (96, 96, 3)


class OblongRobot(Robot):
    """The same with oblong images."""

    shape = (24, 48, 3)


class Played(NamedTuple):
    """An episode as the robot itself has it: actions in its own range."""

    images: np.ndarray  # (T+1, height, width, 3)
    joints: np.ndarray  # (T+1, 3)
    action: np.ndarray  # (T, 2) in [-2, 2]
    reward: np.ndarray
    cost: np.ndarray
    seed: int


def play(env: gymnasium.Env, seed: int) -> Played:
    """An episode of random actions."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    seen, actions, rewards, costs, over = [obs], [], [], [], False
    while not over:
        action = rng.uniform(-LIMIT, LIMIT, 2).astype(np.float32)
        obs, reward, _, over, info = env.step(action)
        seen.append(obs)
        actions.append(action)
        rewards.append(reward)
        costs.append(info["cost"])
    return Played(
        np.stack([each["front"] for each in seen]),
        np.stack([each["joints"] for each in seen]),
        np.stack(actions),
        np.array(rewards, np.float32),
        np.array(costs, np.float32),
        seed,
    )


def episodes(kind: type[Robot] = Robot, count: int = 3) -> list[Played]:
    """Some episodes of the robot."""
    env = kind()
    return [play(env, seed) for seed in range(count)]


def write_minari(
    folder: Path, played: list[Played], low: float = -LIMIT, high: float = LIMIT, costs: bool = True
) -> None:
    """A dataset folder with images and joints in a nested observation, as Minari has it."""
    data = folder / "data"
    data.mkdir(parents=True)
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for index, episode in enumerate(played):
            group = file.create_group(f"episode_{index}")
            group.attrs.update({"id": index, "seed": episode.seed, "total_steps": LENGTH})
            group["observations/pixels/front"] = episode.images
            group["observations/joints"] = episode.joints
            group["observations/mode"] = np.zeros(len(episode.joints), np.int64)
            group["actions"] = episode.action
            group["rewards"] = episode.reward
            last = np.arange(len(episode.reward)) == len(episode.reward) - 1
            group["terminations"], group["truncations"] = ~last & last, last
            if costs:
                group["infos/cost"] = episode.cost
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [low] * 2, "high": [high] * 2}
    metadata = {"data_format": "hdf5", "action_space": json.dumps(box)}
    (data / "metadata.json").write_text(json.dumps(metadata))


def write_dsrl(path: Path, played: list[Played], costs: bool = True) -> None:
    """DSRL's keys, with the images of one camera."""
    join = np.concatenate
    last = join([np.arange(len(e.reward)) == len(e.reward) - 1 for e in played])
    with h5py.File(path, "w") as file:
        file["observations"] = join([e.images[:-1] for e in played])
        file["next_observations"] = join([e.images[1:] for e in played])
        file["actions"] = join([e.action for e in played])
        file["rewards"] = join([e.reward for e in played])
        if costs:
            file["costs"] = join([e.cost for e in played])
        file["terminals"], file["timeouts"] = ~last & last, last


def write_robomimic(path: Path, played: list[Played], costs: bool = True) -> None:
    """Demonstrations with observations before and after each action."""
    with h5py.File(path, "w") as file:
        for index, episode in enumerate(played):
            group = file.create_group(f"data/demo_{index}")
            group.attrs["num_samples"] = len(episode.reward)
            for name, rows in (("front", episode.images), ("joints", episode.joints)):
                group[f"obs/{name}"], group[f"next_obs/{name}"] = rows[:-1], rows[1:]
            group["actions"], group["rewards"] = episode.action, episode.reward
            group["dones"] = np.arange(len(episode.reward)) == len(episode.reward) - 1
            if costs:
                group["costs"] = episode.cost


def write_chunks(folder: Path, played: list[Played], costs: bool = True) -> None:
    """DreamerV3's chunks: one for each episode."""
    folder.mkdir()
    for index, episode in enumerate(played):
        edge = np.arange(len(episode.joints))
        zero = np.zeros(1, np.float32)
        rows = {
            "image": episode.images,
            "joints": episode.joints,
            "action": np.concatenate([episode.action, np.zeros((1, 2), np.float32)]),
            "reward": np.concatenate([zero, episode.reward]),
            "is_first": edge == 0,
            "is_last": edge == edge[-1],
            "is_terminal": edge < 0,
        }
        if costs:
            rows["cost"] = np.concatenate([zero, episode.cost])
        np.savez(folder / f"t{index}-own{index}-0-{len(edge)}.npz", **rows)
