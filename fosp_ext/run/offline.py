"""Training from a dataset alone: the configuration cut into its parts.

See docs/concepts/algorithm.md 7.2.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium

from dreamer import distributed
from dreamer.build import compile_agent
from dreamer.data.augment import augmentation
from dreamer.data.episode import DatasetInfo
from dreamer.training.dataset import load_dataset
from dreamer.training.evaluator import Evaluator
from dreamer.training.offline import OfflineRun
from dreamer.training.run_folder import RunFolder
from dreamer.training.threads import ThreadChoice
from dreamer.utils import choose_device, seed_everything
from fosp_ext.build import build_agent, require_room
from fosp_ext.config import OfflineConfig
from fosp_ext.envs import make_run_env
from fosp_ext.run.data import (
    record_if_missing,
    require_costs,
    require_dataset,
    run_dataset,
    tell_unused,
)
from fosp_ext.run.initialize import state_with_model


def train_offline(config: OfflineConfig) -> int:
    """Train, or go on training; returns the exit code.

    Everything a user can get wrong is checked before anything is written.
    """
    data, env, run = config.dataset, config.env, config.run
    seed = distributed.own_seed(config.seed)
    with distributed.collective_errors():
        device = distributed.own_device(choose_device(config.device))
        folder = RunFolder(Path(config.logdir), config, run.keep_checkpoints)
        state = folder.newest()
        path = run_dataset(config)
        if distributed.is_writer():
            record_if_missing(path, config.task, env, data, config.seed)
    with distributed.collective_errors():
        info = require_dataset(path, config.task, env)
        require_room(config, info, device)
        require_costs(info, config.method, path)
        world = evaluation_env(info, env.variant, run.eval_every)
        dataset = load_dataset(path, info, data, run.batch_size * run.batch_length)
        seed_everything(config.seed)
        agent = build_agent(config, info, device)
        compile_agent(agent, config.compile, device)
        if not distributed.is_writer():  # equal weights, then random numbers of its own
            seed_everything(seed)
        if state is None and config.init_from:
            state = state_with_model(config, agent, dataset)
        evaluator = Evaluator(folder.path, run, device, world, violation=config.env.violation)
        training = OfflineRun(
            folder, agent, dataset, evaluator, run, int(run.pretrain * run.updates),
            run.freeze, augmentation(config.augment), seed, device,
            ThreadChoice(folder.path, config.threads, device),
        )  # fmt: skip
    return training.run(state)


def evaluation_env(info: DatasetInfo, variant: str, eval_every: int) -> gymnasium.Env | None:
    """An environment for evaluations, or nothing where none are wanted."""
    if not eval_every:
        return None
    env = make_run_env(info, variant)
    tell_unused(env)
    return env
