"""Speed of this machine: times of a few updates and of one episode."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import torch

from benchmarks.update import Shape, make_batch, synchronize
from dreamer.agent import Agent
from dreamer.build import compile_agent
from dreamer.data.episode import DatasetInfo
from dreamer.training.evaluation import run_episode
from dreamer.training.progress import Progress
from dreamer.types import Batch
from dreamer.utils import choose_device, keep_freed_memory
from experiments.comparison.methods import PRESETS, Method, offline_config, offline_names
from experiments.comparison.plan import Request, Speed
from fosp_ext.build import build_agent
from fosp_ext.envs import check_task, environment_facts, make_run_env
from fosp_ext.envs.tasks import action_size

TIMED, MOST_SECONDS = 4, 20.0  # updates, and after how long there are fewer of them
IMPORTS = "import fosp_ext.run.modes, fosp_ext.run.evaluate"


def measure_speed(request: Request, methods: Sequence[Method], threads: int) -> Speed:
    """Time a start, updates of every method on synthetic batches, and one episode.

    `threads` are those that each job will have; 0: every core.
    """
    keep_freed_memory()  # as train.py does
    device, names = choose_device("auto"), offline_names(methods)
    first, update, model = {}, {}, {}
    settings = {**request.settings, "task": request.task}
    threads = threads or offline_config(names[0], request.scale, settings).threads
    if threads:
        torch.set_num_threads(threads)
    with Progress("timing", len(names) + 1, "measurements", sys.stderr) as progress:
        for name in names:
            found = time_updates(name, request.scale, settings, device)
            first[name], update[name], model[name] = found
            progress.advance()
        opening, episode, length = time_episode(request, names[0], device)
        progress.advance()
    start = time_imports() + opening
    shared = next((model[method.offline] for method in methods if method.alone), 0.0)
    return Speed(start, first, update, episode, length, cores(), shared)


def time_updates(
    name: str, scale: Sequence[str], settings: Mapping[str, str], device: torch.device
) -> tuple[float, float, float]:
    """(seconds of the first update beyond another one's, mean of the later ones, model alone).

    The last is that part of the mean which comes from updates of the world model alone.
    """
    config = offline_config(name, scale, settings)
    run, cameras = config.run, len(config.env.cameras)
    batch = make_batch(Shape(cameras, run.batch_size, run.batch_length, {}), device)
    action, image = batch.action.shape[-1], next(iter(batch.obs.values())).shape[-2]
    info = DatasetInfo("synthetic", tuple(batch.obs), 1, image, action)
    agent = build_agent(config, info, device)
    compile_agent(agent, config.compile, device)
    first, usual = _time_kind(agent, batch, device, update_policy=True)
    share = run.pretrain
    alone = _time_kind(agent, batch, device, update_policy=False)[1] if share else 0.0
    return max(first - usual, 0.0), share * alone + (1 - share) * usual, share * alone


def _time_kind(
    agent: Agent, batch: Batch, device: torch.device, update_policy: bool
) -> tuple[float, float]:
    """Seconds of a first update with or without policy, and the median of some later ones."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < TIMED + 1 and sum(seconds) < MOST_SECONDS):
        begin = time.perf_counter()
        agent.update(batch, update_policy)
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds[0], statistics.median(seconds[1:])


def time_episode(request: Request, name: str, device: torch.device) -> tuple[float, float, int]:
    """(seconds to make the environment, seconds of an episode, its agent steps)."""
    task = check_task(request.task)
    config = offline_config(name, request.scale, {**request.settings, "task": task})
    env = config.env
    facts, size = environment_facts(env.render), action_size(task) or 0
    info = DatasetInfo(task, env.cameras, env.action_repeat, env.size, size, facts)
    agent = build_agent(config, info, device)
    begin = time.perf_counter()
    world = make_run_env(info, env.variant)
    world.reset(seed=0)
    made = time.perf_counter()
    result = run_episode(agent, world, 0, device)
    played = time.perf_counter()
    world.close()
    return made - begin, played - made, result.length


def time_imports() -> float:
    """Seconds until a command has imported what it needs."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=PRESETS.parent, check=True)
    return time.perf_counter() - begin


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
