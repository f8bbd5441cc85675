"""Training from a dataset alone (docs/algorithm.md 7.2): reports, evaluations, exact resume."""

from __future__ import annotations

import sys
from typing import Any

from dreamer.checkpoint import set_rng_state
from dreamer.data.augment import augmentation
from dreamer.data.hdf5 import fingerprint
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.errors import UserError
from dreamer.evaluation import evaluate
from dreamer.files import atomic_path
from dreamer.logger import Logger
from dreamer.loops import Every, Hooks, offline_loop
from dreamer.report import heldout_estimates, heldout_metrics, open_loop_films
from dreamer.utils import choose_device, seed_everything
from dreamer.video import FPS
from fosp_ext.build import build_agent
from fosp_ext.dataset.training import dataset_path, open_stores, require_dataset
from fosp_ext.envs import check_action_size, make_env
from fosp_ext.run_folder import RunFolder
from fosp_ext.settings import Config

EVAL_SEED = 10_000  # every checkpoint of every run meets the same layouts
REPORT_BATCHES = 8
OPEN_LOOP_ROWS = 45


class OfflineRun:
    """One run folder, one agent, one dataset."""

    def __init__(self, config: Config) -> None:
        """Check everything a user can get wrong before anything is written."""
        self.config, self.device = config, choose_device(config.device)
        self.folder = RunFolder(config)
        state = self.folder.newest()
        self.info = require_dataset(config)
        self.env = None
        if config.run.eval_every:
            shape = (self.info.cameras, self.info.size, self.info.action_repeat, self.info.render)
            self.env = make_env(self.info.task, *shape, config.env.variant)
            check_action_size(self.env, self.info.action_size)
        self.train, self.heldout = open_stores(config)
        run = config.run
        self.stream = WindowStream(
            self.train, run.batch_size, run.batch_length, config.seed, augmentation(config.augment)
        )
        self.fingerprint = fingerprint(dataset_path(config))
        seed_everything(config.seed)
        self.agent = build_agent(config, self.info, self.device)
        self.done = 0 if state is None else self.resume(state)
        self.folder.open()
        self.logger = Logger(
            self.folder.path, resume_step=self.done, total_steps=config.run.updates
        )

    def resume(self, state: dict[str, Any]) -> int:
        """Go on from a checkpoint's state; returns the updates it has behind it."""
        if state["dataset"] != self.fingerprint:
            raise UserError(
                f"{self.folder.path} was trained on other data than {dataset_path(self.config)}; "
                "name another --logdir or the dataset it began with"
            )
        self.agent.load_state_dict(state["agent"])
        set_rng_state(state["rng"])
        left = max(self.config.run.updates - state["step"], 0)
        what = f"{left} are left" if left else "the run is finished, raise run.updates to go on"
        sys.stderr.write(f"{self.folder.path} has {state['step']} updates behind it; {what}\n")
        return state["step"]

    def run(self) -> int:
        """Train to the end; returns the exit code."""
        run = self.config.run
        batches = self.stream.iterate(self.done, self.device)
        every = Every(run.log_every, run.report_every, run.eval_every, run.save_every)
        hooks = Hooks(self.report, self.evaluate, self.save)
        try:
            return offline_loop(
                self.agent, batches, self.done, run.updates, every, self.logger, hooks
            )
        finally:
            batches.close()
            self.logger.close()
            if self.env is not None:
                self.env.close()
            sys.stderr.write(f"run: {self.folder.path}\n")

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        self.folder.save(self.agent, self.info, step, self.fingerprint)

    def evaluate(self, step: int) -> None:
        """Play the mean action in the real environment on fixed seeds."""
        seeds = range(EVAL_SEED, EVAL_SEED + self.config.run.eval_episodes)
        with self.logger.timer("evaluate"):
            results = evaluate(self.agent, self.env, seeds, self.device)
        self.logger.add(results, prefix="eval")

    def report(self, step: int) -> None:
        """Losses, histograms and open-loop predictions on held-out episodes."""
        store = self.heldout or self.train
        run = self.config.run
        length = min(run.batch_length, len(store))  # one short episode may be all that is held out
        stream = WindowStream(store, run.batch_size, length, seed=0)
        metrics = heldout_metrics(self.agent, stream, REPORT_BATCHES, self.device)
        self.logger.add(metrics, prefix="report/heldout" if self.heldout else "report/train")
        for name, values in heldout_estimates(self.agent, stream, self.device).items():
            self.logger.histogram(f"report/{name}", values, step)
        self.open_loop(store, step)

    def open_loop(self, store: RowStore, step: int) -> None:
        """Films of truth, prediction and error, in TensorBoard and in the run folder."""
        films = open_loop_films(self.agent, store, OPEN_LOOP_ROWS, self.device)
        for camera, frames in films.items():
            encoded = self.logger.video(f"report/openl_{camera}", frames, step, FPS)
            file = self.folder.path / "report" / f"openl_{camera}_{step:09d}.gif"
            with atomic_path(file) as part:
                part.write_bytes(encoded)
