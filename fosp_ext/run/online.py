"""Learning in the environment: the configuration cut into its parts.

See docs/concepts/algorithm.md 6 and 7.3.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.build import compile_agent
from dreamer.data.augment import augmentation
from dreamer.errors import UserError
from dreamer.training.dataset import load_dataset
from dreamer.training.evaluator import Evaluator
from dreamer.training.online import OnlineRun, World
from dreamer.training.run_folder import RunFolder
from dreamer.training.threads import ThreadChoice
from dreamer.utils import choose_device, seed_everything
from fosp_ext.config import OnlineConfig
from fosp_ext.envs import is_custom, make_run_env
from fosp_ext.envs.gl import choose_backend, choose_gpu
from fosp_ext.policy_set import PolicySet, single_policy
from fosp_ext.run.episode_log import describe
from fosp_ext.run.initialize import begin, go_on
from fosp_ext.run.offline import evaluation_env


def train_online(config: OnlineConfig) -> int:
    """Act and learn, from an offline run's agent or from scratch, or go on; returns the exit code.

    Everything a user can get wrong is checked before anything is written.
    """
    run, online, variant = config.run, config.online, config.env.variant
    seed = distributed.own_seed(config.seed)
    with distributed.collective_errors():
        device = distributed.own_device(choose_device(config.device))
        share = offline_share(online.offline_frac)
        state = RunFolder(Path(config.logdir), config, run.keep_checkpoints).newest()
        seed_everything(config.seed)
        if state is None:
            config, info, agent = begin(config, device)
        else:
            config, info, agent = go_on(config, state, device)
        compile_agent(agent, config.compile, device)
        if not distributed.is_writer():  # equal weights, then random numbers of its own
            seed_everything(seed)
        folder = RunFolder(Path(config.logdir), config, run.keep_checkpoints)
        if not is_custom(info.task):
            choose_drawing(device)  # once, here: the environments' processes inherit it
        dataset, path = None, config.dataset.path
        if path:
            dataset = load_dataset(
                Path(path), info, config.dataset, run.batch_size * run.batch_length
            )
        world = World(
            info,
            partial(make_run_env, info, variant),
            replayable=not is_custom(info.task),  # nobody knows what it is, perhaps a robot
            describe=partial(describe, warning=online.warning, violation=config.env.violation),
        )
        shown = evaluation_env(info, variant, run.eval_every)
        evaluator = Evaluator(folder.path, run, device, shown, who_plays, config.env.violation)
        training = OnlineRun(
            folder, agent, world, dataset, evaluator, run, online, share,
            augmentation(config.augment), seed, device,
            ThreadChoice(folder.path, config.threads, device),
        )  # fmt: skip
    return training.run(state)


def who_plays(agent: Agent) -> dict[str, Agent]:
    """What is evaluated: the agent as it acts; of a set of policies, also each of them alone."""
    if not isinstance(agent.policy, PolicySet):
        return {"eval": agent}
    alone = {f"eval/{name}_only": single_policy(agent, name) for name in ("online", "offline")}
    return {"eval": agent, **alone}


def offline_share(text: str) -> float | None:
    """The share of each batch that comes from the dataset; None for `pool`."""
    if text == "pool":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"online.offline_frac must be pool or a number in [0, 1], not '{text}'")
    return share


def choose_drawing(device: torch.device) -> None:
    """Decide what draws the cameras; with several processes, each one's GPU draws for it."""
    choose_backend()
    if distributed.world_size() > 1 and device.type == "cuda":
        reason = choose_gpu(device.index)
        if reason:
            distributed.warn(f"EGL does not draw on GPU {device.index} ({reason})")
