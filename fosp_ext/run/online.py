"""Fine-tuning in the environment: act, keep, learn, exact resume.

See docs/concepts/algorithm.md 6 and 7.3.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dreamer import distributed
from dreamer.data.augment import augmentation
from dreamer.data.episode import DatasetInfo
from dreamer.data.episode_folder import EpisodeFolder
from dreamer.data.hdf5 import fingerprint
from dreamer.data.replay import EpisodeStore, ReplayStream
from dreamer.envs.parallel import ParallelEnvs
from dreamer.errors import UserError
from dreamer.training.checkpoint import set_rng_state
from dreamer.training.collector import CollectedEpisode, Collector
from dreamer.training.logger import Logger
from dreamer.training.loops import Budget, Every, Hooks, online_loop
from dreamer.training.profiler import Tracer
from dreamer.types import Batch
from dreamer.utils import choose_device, seed_everything
from fosp_ext.build import compile_agent
from fosp_ext.config import OnlineConfig
from fosp_ext.envs import is_custom, make_run_env
from fosp_ext.envs.gl import choose_backend, choose_gpu
from fosp_ext.policy_set import PolicySet, single_policy
from fosp_ext.run.data import open_stores
from fosp_ext.run.episode_log import EpisodeLog, describe
from fosp_ext.run.evaluator import Evaluator, evaluation_env
from fosp_ext.run.initialize import begin, go_on
from fosp_ext.run.run_folder import RunFolder

HEADLINE = ("episode/score", "episode/cost", "training_cost/total", "eval/score", "eval/cost")


class OnlineRun:
    """One run folder, an agent from an offline run, its dataset, environments to act in.

    Several processes may train it together, each with environments and episodes of its own.
    """

    def __init__(self, config: OnlineConfig) -> None:
        """Check everything a user can get wrong before anything is written."""
        self.seed = distributed.own_seed(config.seed)
        with distributed.collective_errors():
            state = self.prepare(config)
        self.folder.require_shared(
            0 if state is None else state["step"], Path(self.config.dataset.path), self.fingerprint
        )
        distributed.broadcast_(self.agent)
        try:
            with distributed.collective_errors():
                self.open(state)
        except BaseException:
            self.envs.close()
            raise
        self.evaluator = Evaluator(self.config, self.device, self.logger, self.env, self.stores)

    def prepare(self, config: OnlineConfig) -> dict[str, Any] | None:
        """Load the agent, open the data, make the environments; returns a checkpoint's state."""
        self.device, run = distributed.own_device(choose_device(config.device)), config.run
        share = offline_share(config.online.offline_frac)
        state = RunFolder(config).newest()
        seed_everything(config.seed)
        if state is None:
            config, self.info, self.agent = begin(config, self.device)
        else:
            config, self.info, self.agent = go_on(config, state, self.device)
        compile_agent(self.agent, config.compile, self.device)
        if not distributed.is_writer():  # equal weights, then random numbers of its own
            seed_everything(self.seed)
        self.config, self.folder = config, RunFolder(config)
        self.budget = Budget(config.online.steps, config.online.ratio)
        self.fingerprint = fingerprint(config.dataset.path)
        if not is_custom(self.info.task):
            choose_drawing(self.device)  # once, here: the environments' processes inherit it
        self.env = evaluation_env(config, self.info) if distributed.is_writer() else None
        self.stores = open_stores(config)
        distributed.say(replay_size(config, self.info))
        self.store = EpisodeStore(config.online.capacity)
        self.stream = ReplayStream(
            self.stores[0], self.store, run.batch_size, run.batch_length, self.seed, share,
            augmentation(config.augment), distributed.world_size(),
        )  # fmt: skip
        make = partial(make_run_env, self.info, config.env.variant)
        self.envs = ParallelEnvs(make, config.online.envs, distributed.warn)
        return state

    def open(self, state: dict[str, Any] | None) -> None:
        """Begin to write, where a checkpoint's `state` left off if there is one."""
        self.folder.open()
        self.kept = EpisodeFolder(own_folder(self.folder.path / "replay"), self.info)
        self.collector = Collector(self.envs, self.agent, self.seed, self.device, distributed.warn)
        self.done, self.episodes, played = (0, 0, 0) if state is None else self.resume(state)
        self.kept.keep(self.episodes)
        if distributed.is_writer():
            self.log = EpisodeLog(self.folder.path / "episodes.jsonl", played)
        self.logger = Logger(
            self.folder.path,
            resume_step=self.done,
            resume_env_steps=played,
            total_steps=self.budget.updates(self.budget.agent_steps),
            headline=HEADLINE,
        )

    def resume(self, state: dict[str, Any]) -> tuple[int, int, int]:
        """Go on from a checkpoint's state; what it has behind it: updates, own episodes, all steps.

        The running episodes of a custom environment are dropped: nobody knows whether it may be
        played again blindly, it may be a robot.
        """
        own = state["online"][distributed.rank()]
        self.collector.load_state_dict(own["collector"], replay=not is_custom(self.info.task))
        for stream, episode in self.kept.read(own["episodes"]):
            self.store.add(stream, episode)
        set_rng_state(state["rng"][distributed.rank()])
        played = sum(each["collector"]["agent_steps"] for each in state["online"])
        left = max(self.budget.agent_steps - played, 0)
        what = f"{left} steps are left" if left else "the run is finished, raise online.steps"
        distributed.say(
            f"{self.folder.path} has {played} agent steps and {state['step']} updates behind it; "
            f"{what}"
        )
        return state["step"], own["episodes"], played

    def run(self) -> int:
        """Act and learn to the end; returns the exit code."""
        run = self.config.run
        every = Every(run.log_every, run.report_every, run.eval_every, run.save_every)
        traced = run.profile if distributed.is_writer() else 0
        tracer = Tracer(self.folder.path / "profile", traced, self.logger.message)
        hooks = Hooks(self.report, self.evaluate, self.save, tracer)
        try:
            return online_loop(
                self.agent, self.collector, self.batch, self.keep, self.done, self.budget, every,
                self.logger, hooks,
            )  # fmt: skip
        finally:
            tracer.close()
            self.envs.close()
            self.logger.close()
            self.evaluator.close()
            distributed.say(f"run: {self.folder.path}")

    def batch(self, index: int) -> Batch:
        """The batch of update number `index`, on the device."""
        return self.stream.batch(index, self.device)

    def keep(self, finished: list[CollectedEpisode], updates: int, agent_steps: int) -> None:
        """Own episodes go to the disk and to the replay, those of all processes into the logs."""
        lines = []
        for played in finished:
            env = distributed.rank() * len(self.envs) + played.worker
            self.kept.write(self.episodes, env, played.episode)
            self.episodes += 1
            self.store.add(env, played.episode)
            lines.append(describe(played, env, updates, agent_steps, self.config.online.warning))
        everywhere = chain.from_iterable(distributed.collect(lines))
        if distributed.is_writer():
            for line in everywhere:
                self.logger.row(self.log.add(line), updates, agent_steps)

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        online = {"collector": self.collector.state_dict(), "episodes": self.episodes}
        self.folder.save(self.agent, self.info, step, self.fingerprint, online)

    def evaluate(self, step: int) -> None:
        """Play what acts; where that is a set of policies, also each of them alone."""
        if not distributed.is_writer():
            return
        self.evaluator.evaluate(self.agent)
        if isinstance(self.agent.policy, PolicySet):
            for policy in ("online", "offline"):
                self.evaluator.evaluate(single_policy(self.agent, policy), f"eval/{policy}_only")

    def report(self, step: int) -> None:
        """Look at the world model and the critics on held-out episodes of the dataset."""
        if distributed.is_writer():
            self.evaluator.report(self.agent, step)


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


def replay_size(config: OnlineConfig, info: DatasetInfo) -> str:
    """How much memory the images of the run's own episodes will take, as a line."""
    processes = distributed.world_size()
    rows = min(config.online.capacity, -(-config.online.steps // processes))
    size = rows * len(info.cameras) * info.size**2 * 3 / 2**30
    where = " in each process" if processes > 1 else ""
    return f"own episodes{where}: up to {rows} rows, {size:.2f} GiB"


def own_folder(replay: Path) -> Path:
    """Where this process keeps its episodes: the first one, or the only one, in `replay` itself."""
    return replay if distributed.is_writer() else replay / f"process_{distributed.rank()}"


def choose_drawing(device: torch.device) -> None:
    """Decide what draws the cameras; with several processes, each one's GPU draws for it."""
    choose_backend()
    if distributed.world_size() > 1 and device.type == "cuda":
        reason = choose_gpu(device.index)
        if reason:
            distributed.warn(f"EGL does not draw on GPU {device.index} ({reason})")
