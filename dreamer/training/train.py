"""Plain DreamerV3: the configuration cut into its parts, online from scratch or on a dataset."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.build import build_dreamer, choose_precision, compile_agent
from dreamer.data.augment import unchanged
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import validate_dataset
from dreamer.data.images import check_side
from dreamer.envs.adapter import ImageEnv
from dreamer.errors import UserError
from dreamer.footprint import require_memory
from dreamer.training.config import DreamerConfig, OfflineConfig, OnlineConfig
from dreamer.training.dataset import load_dataset
from dreamer.training.evaluator import Evaluator
from dreamer.training.offline import OfflineRun
from dreamer.training.online import OnlineRun, World
from dreamer.training.run_folder import RunFolder, claimed
from dreamer.training.state_check import load_weights
from dreamer.training.threads import ThreadChoice
from dreamer.utils import choose_device, keep_freed_memory, seed_everything, use_threads


def train(config: DreamerConfig) -> int:
    """Train, or go on training; returns the exit code."""
    keep_freed_memory()
    use_threads(config.threads)
    if not config.logdir.strip():
        raise UserError("--logdir is empty; name the run folder")
    with distributed.process_group(), claimed(Path(config.logdir)):
        match config:
            case OnlineConfig():
                return train_online(config)
            case OfflineConfig():
                return train_offline(config)
    raise TypeError(f"{type(config).__name__} says not where to learn")


def train_online(config: OnlineConfig) -> int:
    """Act in an environment and learn from that alone."""
    env, run, seed = config.env, config.run, distributed.own_seed(config.seed)
    with distributed.collective_errors():
        device = distributed.own_device(choose_device(config.device))
        folder = RunFolder(Path(config.logdir), config, run.keep_checkpoints)
        state = folder.newest()
        check_side(env.size)
        shown = partial(
            ImageEnv, size=env.size, action_repeat=env.action_repeat, vectors=env.vectors
        )
        world = shown(env.id, env.cameras)
        sizes = (env.action_repeat, env.size, world.action_size)
        info = DatasetInfo(env.id, world.cameras, *sizes, vectors=world.vectors)
        for name, kind in world.unused.items():
            distributed.say(f"not used: observation '{name}' ({kind})")
        agent = make_agent(config, info, device)
        if state is not None:
            load_weights(agent, state["agent"], folder.path)
        make = partial(shown, env.id, world.cameras)
        training = OnlineRun(
            folder, agent, World(info, make, env.replay), None,
            Evaluator(folder.path, run, device, world), run, config.online, None, unchanged, seed,
            device, ThreadChoice(folder.path, config.threads, device),
        )  # fmt: skip
    return training.run(state)


def train_offline(config: OfflineConfig) -> int:
    """Learn from a dataset alone; with an environment to be evaluated in, if one is named."""
    data, run, seed = config.dataset, config.run, distributed.own_seed(config.seed)
    with distributed.collective_errors():
        device = distributed.own_device(choose_device(config.device))
        folder = RunFolder(Path(config.logdir), config, run.keep_checkpoints)
        state = folder.newest()
        info = validate_dataset(data.path)
        dataset = load_dataset(Path(data.path), info, data, run.batch_size * run.batch_length)
        world = evaluation_env(config.env.id, info) if config.env.id and run.eval_every else None
        agent = make_agent(config, info, device)
        training = OfflineRun(
            folder, agent, dataset, Evaluator(folder.path, run, device, world), run, 0, False,
            unchanged, seed, device, ThreadChoice(folder.path, config.threads, device),
        )  # fmt: skip
    return training.run(state)


def evaluation_env(name: str, info: DatasetInfo) -> ImageEnv:
    """The environment as the episodes of a dataset show it."""
    vectors = tuple(info.vectors)
    env = ImageEnv(name, info.cameras, info.size, info.action_repeat, vectors=vectors)
    env.require(info)
    return env


def make_agent(config: DreamerConfig, info: DatasetInfo, device: torch.device) -> Agent:
    """A fresh agent, the same in every process; only then random numbers of their own."""
    run, im = config.run, config.imagination
    rows = run.batch_size * run.batch_length
    require_memory(config, info, rows, (im.starts or rows) * im.horizon, device)
    seed_everything(config.seed)
    agent = build_dreamer(
        info,
        config.world_model,
        config.imagination,
        config.actor,
        config.critic,
        choose_precision(config.precision, device),
    ).to(device)
    compile_agent(agent, config.compile, device)
    if not distributed.is_writer():
        seed_everything(distributed.own_seed(config.seed))
    return agent
