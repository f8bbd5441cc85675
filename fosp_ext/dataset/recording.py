"""One scripted episode: planned in the parent process, played and written in a worker process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode, observed
from dreamer.data.hdf5 import write_dataset
from dreamer.envs.adapter import ImageEnv
from dreamer.envs.worker import end_with_parent, ignore_stop_signals
from fosp_ext.dataset.collect_plan import Recording
from fosp_ext.envs import action_scale, env_action_size, environment_facts, is_custom, make_env
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
    vectors: tuple[str, ...] = ()


class RecordingStopped(Exception):
    """The parent was asked to stop: the episode that was played is given up."""


class _Worker:
    """What a worker process knows of its parent."""

    stopped: Event | None = None  # set when the parent stops


def start_worker(stopped: Event | None = None) -> None:
    """Leave signals to the parent and end with it, however it ends.

    Once `stopped` is set, `play_episode` raises `RecordingStopped` at its next step.
    """
    ignore_stop_signals()
    end_with_parent()
    _Worker.stopped = stopped


def part_note(recording: Recording, choice: EnvChoice) -> str:
    """All that decides an episode, as the file of the episode says it."""
    return json.dumps({**asdict(choice), **asdict(recording)}, sort_keys=True)


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
        environment_facts(
            None if is_custom(choice.task) else choice.render,
            choice.variant,
            action_scale(choice.task),
            env.action_bounds if isinstance(env, ImageEnv) else None,
        ),
        {name: values.shape[1] for name, values in episode.vectors.items()},
    )
    write_dataset(path, [episode], info, recording=part_note(recording, choice))


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
        if _Worker.stopped is not None and _Worker.stopped.is_set():
            raise RecordingStopped
    images, vectors = observed(frames)
    return Episode(
        images=images,
        vectors=vectors,
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
