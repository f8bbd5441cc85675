"""Training from a dataset alone: reports, evaluations, exact resume.

See docs/concepts/algorithm.md 7.2.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from dreamer import distributed
from dreamer.data.augment import augmentation
from dreamer.data.hdf5 import fingerprint
from dreamer.data.stream import WindowStream
from dreamer.errors import UserError
from dreamer.training.checkpoint import set_rng_state
from dreamer.training.logger import Logger
from dreamer.training.loops import Every, Hooks, offline_loop
from dreamer.training.profiler import Tracer
from dreamer.utils import choose_device, seed_everything
from fosp_ext.build import build_agent, compile_agent
from fosp_ext.config import OfflineConfig
from fosp_ext.run.data import (
    dataset_path,
    open_stores,
    record_if_missing,
    require_dataset,
)
from fosp_ext.run.evaluator import Evaluator, evaluation_env
from fosp_ext.run.initialize import begin_with_model
from fosp_ext.run.run_folder import RunFolder


class OfflineRun:
    """One run folder, one agent, one dataset; several processes may train it together."""

    def __init__(self, config: OfflineConfig) -> None:
        """Check everything a user can get wrong before anything is written."""
        self.config = config
        with distributed.collective_errors():
            self.device = distributed.own_device(choose_device(config.device))
            self.folder = RunFolder(config)
            state = self.folder.newest()
            if distributed.is_writer():
                record_if_missing(config)
        with distributed.collective_errors():
            env = self.prepare()
            self.done = self.begin() if state is None else self.resume(state)
        self.folder.require_shared(self.done, dataset_path(config), self.fingerprint)
        distributed.broadcast_(self.agent)
        self.folder.open()
        self.logger = Logger(
            self.folder.path, resume_step=self.done, total_steps=config.run.updates
        )
        self.evaluator = Evaluator(config, self.device, self.logger, env, self.stores)

    def prepare(self) -> gymnasium.Env | None:
        """Open the data and build the agent; returns the environment for evaluations."""
        config, run, seed = self.config, self.config.run, distributed.own_seed(self.config.seed)
        self.info = require_dataset(config)
        env = evaluation_env(config, self.info) if distributed.is_writer() else None
        self.stores = open_stores(config)
        self.stream = WindowStream(
            self.stores[0], run.batch_size, run.batch_length, seed, augmentation(config.augment)
        )
        self.fingerprint = fingerprint(dataset_path(config))
        seed_everything(config.seed)
        self.agent = build_agent(config, self.info, self.device)
        compile_agent(self.agent, config.compile, self.device)
        if not distributed.is_writer():  # equal weights, then random numbers of its own
            seed_everything(seed)
        return env

    def begin(self) -> int:
        """Start a new run, with the world model of another one if asked; returns its updates."""
        if not self.config.init_from:
            return 0
        done, rng = begin_with_model(self.config, self.agent, self.fingerprint)
        set_rng_state(rng[distributed.rank()])
        distributed.say(f"the world model of {self.config.init_from}: {done} updates")
        return done

    def resume(self, state: dict[str, Any]) -> int:
        """Go on from a checkpoint's state; returns the updates it has behind it."""
        if state["dataset"] != self.fingerprint:
            raise UserError(
                f"{self.folder.path} was trained on other data than {dataset_path(self.config)}; "
                "name another --logdir or the dataset it began with"
            )
        self.agent.load_state_dict(state["agent"])
        set_rng_state(state["rng"][distributed.rank()])
        left = max(self.config.run.updates - state["step"], 0)
        what = f"{left} are left" if left else "the run is finished, raise run.updates to go on"
        distributed.say(f"{self.folder.path} has {state['step']} updates behind it; {what}")
        return state["step"]

    @property
    def pretrain(self) -> int:
        """First updates, in which the world model learns alone."""
        return int(self.config.run.pretrain * self.config.run.updates)

    def run(self) -> int:
        """Train to the end; returns the exit code."""
        run = self.config.run
        batches = self.stream.iterate(self.done, self.device)
        every = Every(run.log_every, run.report_every, run.eval_every, run.save_every)
        traced = run.profile if distributed.is_writer() else 0
        tracer = Tracer(self.folder.path / "profile", traced, self.logger.message)
        hooks = Hooks(self.report, self.evaluate, self.save, tracer)
        try:
            return offline_loop(
                self.agent,
                batches,
                self.done,
                run.updates,
                self.pretrain,
                every,
                self.logger,
                hooks,
            )
        finally:
            tracer.close()
            batches.close()
            self.logger.close()
            self.evaluator.close()
            distributed.say(f"run: {self.folder.path}")

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        self.folder.save(self.agent, self.info, step, self.fingerprint)

    def evaluate(self, step: int) -> None:
        """Play the mean action in the real environment, once there is something to see."""
        if distributed.is_writer() and step > self.pretrain:
            self.evaluator.evaluate(self.agent)

    def report(self, step: int) -> None:
        """Look at the world model and the critics on held-out episodes."""
        if distributed.is_writer():
            self.evaluator.report(self.agent, step)
