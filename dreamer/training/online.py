"""Acting in environments and learning from it: act, keep, learn, exact resume."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import gymnasium
import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.data.augment import Augmentation
from dreamer.data.episode import DatasetInfo
from dreamer.data.episode_folder import EpisodeFolder
from dreamer.data.replay import EpisodeStore, ReplayStream
from dreamer.data.stream import Store
from dreamer.envs.parallel import ParallelEnvs
from dreamer.errors import NonFiniteError, UserError
from dreamer.training.checkpoint import set_rng_state
from dreamer.training.collector import CollectedEpisode, Collector
from dreamer.training.dataset import Dataset
from dreamer.training.episode_log import EpisodeLog, EpisodeRecord, describe
from dreamer.training.evaluator import Evaluator
from dreamer.training.logger import Logger
from dreamer.training.loops import Budget, Every, Hooks, online_loop
from dreamer.training.profiler import Tracer
from dreamer.training.run_folder import RunFolder, State
from dreamer.training.settings import OnlineSettings, RunSettings
from dreamer.training.sinks import check_loggers
from dreamer.training.state_check import check_record

HEADLINE = ("episode/score", "episode/cost", "training_cost/total", "eval/score", "eval/cost")


class World(NamedTuple):
    """Where a run acts, and how its episodes are told."""

    info: DatasetInfo  # what the episodes have in common
    make: Callable[[], gymnasium.Env]  # called in a process of its own: picklable
    replayable: bool  # may actions be repeated blindly when a run is continued? Not by a robot
    describe: Callable[[CollectedEpisode, int, int, int], EpisodeRecord] = describe


class OnlineRun:
    """One run folder, an agent, environments to act in, and perhaps a dataset beside them.

    Several processes may train it together, each with environments and episodes of its own.
    """

    def __init__(
        self,
        folder: RunFolder,
        agent: Agent,
        world: World,
        dataset: Dataset | None,
        evaluator: Evaluator,
        settings: RunSettings,
        online: OnlineSettings,
        offline_frac: float | None,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        """Start the environments; nothing is written before `run`.

        `offline_frac` is the share of each batch from the dataset; None: by their sizes. `seed`
        decides this process's worlds and batches.
        """
        self.folder, self.agent, self.world = folder, agent, world
        self.evaluator, self.settings, self.seed, self.device = evaluator, settings, seed, device
        self.dataset, self.missed = dataset, False
        check_loggers(settings.logger)
        self.budget = Budget(online.steps, online.ratio, online.prefill)
        distributed.say(replay_size(online, world.info))
        self.store = EpisodeStore(online.capacity)
        self.stream = ReplayStream(
            None if dataset is None else dataset.train,
            self.store,
            settings.batch_size,
            settings.batch_length,
            seed,
            offline_frac,
            augmentation,
            distributed.world_size(),
        )
        self.envs = ParallelEnvs(world.make, online.envs, distributed.warn)

    def run(self, state: State | None) -> int:
        """Act and learn to the end, from a checkpoint's state if there is one.

        Returns the exit code.
        """
        try:
            self.open(state)
        except BaseException:
            self.envs.close()
            raise
        run = self.settings
        every = Every(run.log_every, run.heldout_every, run.eval_every, run.save_every)
        traced = run.profile if distributed.is_writer() else 0
        tracer = Tracer(self.folder.path / "profile", traced, self.logger.message)
        hooks = Hooks(self.log_heldout, self.evaluate, self.save, tracer, self.miss)
        missed, self.missed = self.missed, False
        try:
            code = online_loop(
                self.agent, self.collector, self.stream, self.device, self.keep, self.done,
                self.budget, every, self.logger, hooks, missed,
            )  # fmt: skip
            if not code and not self.stream.ready():
                raise UserError(
                    f"no environment finished {run.batch_length} rows in online.steps "
                    f"{self.budget.agent_steps}, so nothing was learned; raise online.steps"
                )
            return code
        except NonFiniteError as error:
            raise self.folder.explained(error) from error
        finally:
            tracer.close()
            self.envs.close()
            self.logger.close()
            self.evaluator.close()
            distributed.say(f"run: {self.folder.path}")

    def open(self, state: State | None) -> None:
        """Begin to write, where a checkpoint's `state` left off if there is one."""
        path = None if self.dataset is None else self.dataset.path
        self.folder.require_shared(0 if state is None else state["step"], path, self.content)
        distributed.broadcast_(self.agent)
        with distributed.collective_errors():
            self.folder.open()
            replay = own_folder(self.folder.path / "replay")
            self.kept = EpisodeFolder(replay, self.world.info)
            self.collector = Collector(
                self.envs, self.agent, self.seed, self.device, distributed.warn
            )
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
                shown_in=self.settings.logger,
            )

    def resume(self, state: State) -> tuple[int, int, int]:
        """Go on from a checkpoint's state; what it has behind it: updates, own episodes, all steps.

        The running episodes of a world that is not replayable are dropped.
        """
        for each in state.get("online", [{}]):
            check_record(each, {"collector": dict, "episodes": int}, str(self.folder.path))
        own = state["online"][distributed.rank()]
        self.collector.load_state_dict(own["collector"], replay=self.world.replayable)
        for stream, episode in self.kept.read(own["episodes"]):
            self.store.add(stream, episode)
        set_rng_state(state["rng"][distributed.rank()])
        for each in state["online"]:
            check_record(each["collector"], {"agent_steps": int}, str(self.folder.path))
        self.missed = state.get("missed", False)
        played = sum(each["collector"]["agent_steps"] for each in state["online"])
        left = max(self.budget.agent_steps - played, 0)
        what = f"{left} steps are left" if left else "the run is finished, raise online.steps"
        distributed.say(
            f"{self.folder.path} has {played} agent steps and {state['step']} updates behind it; "
            f"{what}"
        )
        return state["step"], own["episodes"], played

    @property
    def content(self) -> str:
        """The fingerprint of the dataset; empty without one."""
        return "" if self.dataset is None else self.dataset.fingerprint

    def keep(self, finished: list[CollectedEpisode], updates: int, agent_steps: int) -> None:
        """Own episodes go to the disk and to the replay, those of all processes into the logs."""
        records = []
        for played in finished:
            env = distributed.rank() * len(self.envs) + played.worker
            self.kept.write(self.episodes, env, played.episode)
            self.episodes += 1
            self.store.add(env, played.episode)
            records.append(self.world.describe(played, env, updates, agent_steps))
        everywhere = chain.from_iterable(distributed.collect(records))
        if distributed.is_writer():
            for record in everywhere:
                self.logger.row(self.log.add(record), updates, agent_steps)

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        online = {"collector": self.collector.state_dict(), "episodes": self.episodes}
        self.folder.save(
            self.agent, self.world.info, step, self.content, online, missed=self.missed
        )
        self.missed = False

    def miss(self, step: int) -> None:
        """The looks at this update, which is saved next, were given up."""
        self.missed = True

    def evaluate(self, step: int) -> None:
        """Play in the real environment."""
        if distributed.is_writer():
            self.evaluator.evaluate(self.agent, self.logger)

    def log_heldout(self, step: int) -> None:
        """Look at the world model and the critics on held-out episodes of the dataset.

        Without a dataset, on own episodes.
        """
        if distributed.is_writer():
            train: Store = self.store
            heldout: Store | None = None
            if self.dataset is not None:
                train, heldout = self.dataset.train, self.dataset.heldout
            self.evaluator.log_heldout(self.agent, train, heldout, step, self.logger)


def replay_size(online: OnlineSettings, info: DatasetInfo) -> str:
    """How much memory the images of the run's own episodes will take, as a line."""
    processes = distributed.world_size()
    rows = min(online.capacity, -(-online.steps // processes))
    size = rows * len(info.cameras) * info.size**2 * 3 / 2**30
    where = " in each process" if processes > 1 else ""
    return f"own episodes{where}: up to {rows} rows, {size:.2f} GiB"


def own_folder(replay: Path) -> Path:
    """Where this process keeps its episodes: the first one, or the only one, in `replay` itself."""
    return replay if distributed.is_writer() else replay / f"process_{distributed.rank()}"
