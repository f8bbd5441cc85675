"""One scripted episode: planned in the parent process, played and written in a worker process."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.hdf5 import write_dataset
from dreamer.envs.worker import end_with_parent
from fosp_ext.dataset.collect_plan import Recording
from fosp_ext.envs import action_scale, env_action_size, environment_facts, make_env
from fosp_ext.envs.scripted import ScriptedPolicy, make_scripted_policy

if TYPE_CHECKING:
    from fosp_ext.envs import TaskEnv


@dataclass(frozen=True)
class EnvChoice:
    """The arguments of `make_env`."""

    task: str
    cameras: tuple[str, ...]
    size: int
    action_repeat: int
    render: str
    variant: str


def start_worker() -> None:
    """Let the parent alone handle Ctrl-C, and end with the parent, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def record_part(path: Path, recording: Recording, choice: EnvChoice) -> None:
    """Play one episode and write it as a dataset of its own, whole or not at all."""
    env = worker_env(choice)
    rng = np.random.default_rng(recording.seed)
    policy = make_scripted_policy(
        recording.policy,
        choice.task,
        rng,
        recording.noise,
        recording.speed,
        choice.action_repeat,
        env_action_size(env),
        choice.cameras if recording.field_of_view == "cameras" else (),
    )
    episode = play_episode(env, policy, recording.policy, recording.seed)
    info = DatasetInfo(
        choice.task,
        choice.cameras,
        choice.action_repeat,
        choice.size,
        episode.action.shape[1],
        environment_facts(choice.render, choice.variant, action_scale(choice.task)),
    )
    write_dataset(path, [episode], info)


def play_episode(env: TaskEnv, policy: ScriptedPolicy, name: str, seed: int) -> Episode:
    """The episode that `policy` plays in the world of `seed`."""
    frames, actions, rewards, costs = [], [], [], []
    policy.reset()
    obs, _ = env.reset(seed=seed)
    frames.append(obs)
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy.act(env.privileged())
        obs, reward, terminated, truncated, info = env.step(action)
        frames.append(obs)
        actions.append(action)
        rewards.append(reward)
        costs.append(info["cost"])
    return Episode(
        images={camera: np.stack([frame[camera] for frame in frames]) for camera in obs},
        action=np.stack(actions).astype(np.float32),  # (T, A)
        reward=np.array(rewards, np.float32),
        cost=np.array(costs, np.float32),
        terminated=bool(terminated),
        policy=name,
        seed=seed,
    )


@cache
def worker_env(choice: EnvChoice) -> TaskEnv:
    """The environment of this process: made once, used for all its episodes."""
    return make_env(**vars(choice))
