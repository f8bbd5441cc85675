"""Fine-tuning in the environment (docs/algorithm.md 6, 7.3): act, keep, learn, exact resume."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from dreamer.checkpoint import set_rng_state
from dreamer.data.augment import augmentation
from dreamer.data.episode import DatasetInfo
from dreamer.data.episode_folder import EpisodeFolder
from dreamer.data.hdf5 import fingerprint
from dreamer.data.replay import EpisodeStore, ReplayStream
from dreamer.driver import Driver, Played
from dreamer.envs.parallel import ParallelEnvs
from dreamer.errors import UserError
from dreamer.logger import Logger
from dreamer.loops import Budget, Every, Hooks, online_loop
from dreamer.tracing import Tracer
from dreamer.types import Batch
from dreamer.utils import choose_device, seed_everything
from fosp_ext.build import compile_agent
from fosp_ext.dataset.training import open_stores
from fosp_ext.envs import is_custom, make_run_env
from fosp_ext.envs.gl import choose_backend
from fosp_ext.episode_log import EpisodeLog
from fosp_ext.observer import Observer, evaluation_env
from fosp_ext.policy_set import PolicySet, single_policy
from fosp_ext.run_folder import RunFolder
from fosp_ext.settings import Config
from fosp_ext.source import begin, go_on

HEADLINE = ("episode/score", "episode/cost", "price/cost", "eval/score", "eval/cost")


class OnlineRun:
    """One run folder, an agent from an offline run, its dataset, environments to act in."""

    def __init__(self, config: Config) -> None:
        """Check everything a user can get wrong before anything is written."""
        self.device, run = choose_device(config.device), config.run
        share = offline_share(config.online.offline_frac)
        state = RunFolder(config).newest()
        seed_everything(config.seed)
        if state is None:
            config, self.info, self.agent = begin(config, self.device)
        else:
            config, self.info, self.agent = go_on(config, state, self.device)
        compile_agent(self.agent, config.compile, self.device)
        self.config, self.folder = config, RunFolder(config)
        self.budget = Budget(config.online.steps, config.online.ratio)
        self.fingerprint = fingerprint(config.dataset.path)
        env = evaluation_env(config, self.info)
        stores = open_stores(config)
        warn(replay_size(config, self.info))
        self.store = EpisodeStore(config.online.capacity)
        self.stream = ReplayStream(
            stores[0], self.store, run.batch_size, run.batch_length, config.seed, share,
            augmentation(config.augment),
        )  # fmt: skip
        if not is_custom(self.info.task):
            choose_backend()  # once, here: the processes inherit the choice
        make = partial(make_run_env, self.info, config.env.variant)
        self.envs = ParallelEnvs(make, config.online.envs, warn)
        try:
            self.open(state)
        except BaseException:
            self.envs.close()
            raise
        self.observer = Observer(config, self.device, self.logger, env, stores)

    def open(self, state: dict[str, Any] | None) -> None:
        """Begin to write, where a checkpoint's `state` left off if there is one."""
        self.folder.open()
        self.kept = EpisodeFolder(self.folder.path / "replay", self.info)
        self.driver = Driver(self.envs, self.agent, self.config.seed, self.device, warn)
        self.done, self.episodes = (0, 0) if state is None else self.resume(state)
        self.kept.keep(self.episodes)
        played, alarm = self.driver.agent_steps, self.config.online.alarm
        self.log = EpisodeLog(self.folder.path / "episodes.jsonl", alarm, played)
        self.logger = Logger(
            self.folder.path,
            resume_step=self.done,
            resume_env_steps=played,
            total_steps=self.budget.updates(self.budget.agent_steps),
            headline=HEADLINE,
        )

    def resume(self, state: dict[str, Any]) -> tuple[int, int]:
        """Go on from a checkpoint's state; returns the updates and episodes it has behind it.

        The running episodes of a custom environment are dropped: nobody knows whether it may be
        played again blindly, it may be a robot.
        """
        online = state["online"]
        self.driver.load_state_dict(online["driver"], replay=not is_custom(self.info.task))
        for stream, episode in self.kept.read(online["episodes"]):
            self.store.add(stream, episode)
        set_rng_state(state["rng"])
        left = max(self.budget.agent_steps - self.driver.agent_steps, 0)
        what = f"{left} steps are left" if left else "the run is finished, raise online.steps"
        warn(
            f"{self.folder.path} has {self.driver.agent_steps} agent steps and {state['step']} "
            f"updates behind it; {what}"
        )
        return state["step"], online["episodes"]

    def run(self) -> int:
        """Act and learn to the end; returns the exit code."""
        run = self.config.run
        every = Every(run.log_every, run.report_every, run.eval_every, run.save_every)
        tracer = Tracer(self.folder.path / "profile", run.profile, self.logger.message)
        hooks = Hooks(self.report, self.evaluate, self.save, tracer)
        try:
            return online_loop(
                self.agent, self.driver, self.batch, self.keep, self.done, self.budget, every,
                self.logger, hooks,
            )  # fmt: skip
        finally:
            tracer.close()
            self.envs.close()
            self.logger.close()
            self.observer.close()
            sys.stderr.write(f"run: {self.folder.path}\n")

    def batch(self, index: int) -> Batch:
        """The batch of update number `index`, on the device."""
        return self.stream.batch(index, self.device)

    def keep(self, played: Played, updates: int) -> None:
        """A finished episode goes to the disk, to the replay and into the logs."""
        self.kept.write(self.episodes, played.worker, played.episode)
        self.episodes += 1
        self.store.add(played.worker, played.episode)
        self.logger.row(self.log.add(played, updates), updates, played.agent_steps)

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        online = {"driver": self.driver.state_dict(), "episodes": self.episodes}
        self.folder.save(self.agent, self.info, step, self.fingerprint, online)

    def evaluate(self, step: int) -> None:
        """Play what acts; where that is a set of policies, also each of them alone."""
        self.observer.evaluate(self.agent)
        if isinstance(self.agent.behavior, PolicySet):
            for policy in ("online", "offline"):
                self.observer.evaluate(single_policy(self.agent, policy), f"eval/{policy}_only")

    def report(self, step: int) -> None:
        """Look at the world model and the critics on held-out episodes of the dataset."""
        self.observer.report(self.agent, step)


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


def replay_size(config: Config, info: DatasetInfo) -> str:
    """How much memory the pictures of the run's own episodes will take, as a line."""
    rows = min(config.online.capacity, config.online.steps)
    size = rows * len(info.cameras) * info.size**2 * 3 / 2**30
    return f"own episodes: up to {rows} rows, {size:.2f} GiB"


def warn(text: str) -> None:
    """One line for the person at the terminal."""
    sys.stderr.write(f"{text}\n")
