"""How fast this machine learns and plays, in a few updates and one episode."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.learning_plan import PRESETS, Method, Speed, preset_names
from benchmarks.update import Shape, make_batch, synchronize
from dreamer.config import load_presets, resolve
from dreamer.data.episode import DatasetInfo
from dreamer.evaluation import run_episode
from dreamer.utils import choose_device
from fosp_ext.build import build_agent
from fosp_ext.envs import check_task, make_run_env
from fosp_ext.envs.tasks import action_size
from fosp_ext.progress import Progress
from fosp_ext.settings import Config

TIMED, MOST_SECONDS = 4, 20.0  # updates, and after how long there are fewer of them
IMPORTS = "import fosp_ext.stages, fosp_ext.rollouts"


def measure_speed(task: str, methods: Sequence[Method], size: str) -> Speed:
    """Time a start, updates of every method on synthetic batches, and one episode."""
    device = choose_device("auto")
    names = list(dict.fromkeys(method.offline for method in methods))
    first, update = {}, {}
    with Progress("timing", len(names) + 1, "measurements", sys.stderr) as progress:
        for name in names:
            first[name], update[name] = time_updates(name, size, device)
            progress.advance()
        opening, episode, length = time_episode(task, names[0], size, device)
        progress.advance()
    start = time_imports() + opening
    return Speed(start, first, update, episode, length, cores())


def time_updates(name: str, size: str, device: torch.device) -> tuple[float, float]:
    """(seconds of the first update beyond another one's, seconds of each later one)."""
    config = offline_config(name, size)
    run, cameras = config.run, len(config.env.cameras)
    batch = make_batch(Shape(cameras, run.batch_size, run.batch_length, {}), device)
    action, picture = batch.action.shape[-1], next(iter(batch.obs.values())).shape[-2]
    info = DatasetInfo("synthetic", tuple(batch.obs), 1, "fast", picture, action)
    agent = build_agent(config, info, device)
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < TIMED + 1 and sum(seconds) < MOST_SECONDS):
        begin = time.perf_counter()
        agent.update(batch)
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    usual = statistics.median(seconds[1:])
    return max(seconds[0] - usual, 0.0), usual


def time_episode(task: str, name: str, size: str, device: torch.device) -> tuple[float, float, int]:
    """(seconds to make the environment, seconds of an episode, its agent steps)."""
    config, task = offline_config(name, size), check_task(task)
    env = config.env
    info = DatasetInfo(
        task, env.cameras, env.action_repeat, env.render, env.size, action_size(task) or 0
    )
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


def offline_config(name: str, size: str) -> Config:
    """The settings of an offline run, with the threads that it will have."""
    config = resolve(Config, load_presets(PRESETS), [*preset_names(name, "offline"), size], {})
    if config.threads:
        torch.set_num_threads(config.threads)
    return config


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
