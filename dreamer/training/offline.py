"""Training from a dataset alone: reports, evaluations, exact resume."""

from __future__ import annotations

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.data.augment import Augmentation
from dreamer.data.stream import WindowStream
from dreamer.errors import NonFiniteError, UserError
from dreamer.training.checkpoint import set_rng_state
from dreamer.training.dataset import Dataset
from dreamer.training.evaluator import Evaluator
from dreamer.training.logger import Logger
from dreamer.training.loops import Every, Hooks, offline_loop
from dreamer.training.profiler import Tracer
from dreamer.training.run_folder import RunFolder, State, saved_info
from dreamer.training.settings import OfflineRunSettings
from dreamer.training.sinks import check_loggers
from dreamer.training.state_check import load_weights


class OfflineRun:
    """One run folder, one agent, one dataset; several processes may train it together."""

    def __init__(
        self,
        folder: RunFolder,
        agent: Agent,
        dataset: Dataset,
        evaluator: Evaluator,
        settings: OfflineRunSettings,
        pretrain: int,
        freeze: bool,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        """In the first `pretrain` updates of a new run the world model learns alone, and with
        `freeze` stays as it is afterwards.

        `seed` decides this process's batches; nothing is written before `run`.
        """
        self.folder, self.agent, self.dataset = folder, agent, dataset
        self.evaluator, self.settings = evaluator, settings
        self.pretrain, self.freeze = pretrain, freeze
        self.device, self.missed = device, False
        check_loggers(settings.logger)
        self.stream = WindowStream(
            dataset.train, settings.batch_size, settings.batch_length, seed, augmentation
        )

    def run(self, state: State | None) -> int:
        """Train to the end, from a checkpoint's state if there is one; returns the exit code."""
        with distributed.collective_errors():
            done = 0 if state is None else self.resume(state)
        self.folder.require_shared(done, self.dataset.path, self.dataset.fingerprint)
        distributed.broadcast_(self.agent)
        self.folder.open()
        run = self.settings
        self.logger = Logger(
            self.folder.path, resume_step=done, total_steps=run.updates, shown_in=run.logger
        )
        batches = self.stream.iterate(done, self.device)
        every = Every(run.log_every, run.heldout_every, run.eval_every, run.save_every)
        traced = run.profile if distributed.is_writer() else 0
        tracer = Tracer(self.folder.path / "profile", traced, self.logger.message)
        hooks = Hooks(self.log_heldout, self.evaluate, self.save, tracer, self.miss)
        missed, self.missed = self.missed, False
        try:
            return offline_loop(
                self.agent, batches, done, run.updates, self.pretrain, self.freeze, every,
                self.logger, hooks, missed,
            )  # fmt: skip
        except NonFiniteError as error:
            raise self.folder.explained(error) from error
        finally:
            tracer.close()
            batches.close()
            self.logger.close()
            self.evaluator.close()
            distributed.say(f"run: {self.folder.path}")

    def resume(self, state: State) -> int:
        """Go on from a checkpoint's state; returns the updates it has behind it."""
        if state["dataset"] != self.dataset.fingerprint:
            raise UserError(
                f"{self.folder.path} was trained on other data than {self.dataset.path}; "
                "name another --logdir or the dataset it began with"
            )
        if saved_info(state, self.folder.path).action_scale != self.dataset.info.action_scale:
            raise UserError(
                f"{self.folder.path} holds a run whose actions have another scale; name another "
                "--logdir"
            )
        load_weights(self.agent, state["agent"], self.folder.path)
        self.pretrain = state.get("pretrain", 0)  # as many as when the run began
        self.missed = state.get("missed", False)
        set_rng_state(state["rng"][distributed.rank()])
        left = max(self.settings.updates - state["step"], 0)
        what = f"{left} are left" if left else "the run is finished, raise run.updates to go on"
        distributed.say(f"{self.folder.path} has {state['step']} updates behind it; {what}")
        return state["step"]

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        info, content = self.dataset.info, self.dataset.fingerprint
        self.folder.save(
            self.agent, info, step, content, pretrain=self.pretrain, missed=self.missed
        )
        self.missed = False

    def miss(self, step: int) -> None:
        """The looks at this update, which is saved next, were given up."""
        self.missed = True

    def evaluate(self, step: int) -> None:
        """Play in the real environment, once there is something to see."""
        if distributed.is_writer() and step > self.pretrain:
            self.evaluator.evaluate(self.agent, self.logger)

    def log_heldout(self, step: int) -> None:
        """Look at the world model and the critics on held-out episodes."""
        if distributed.is_writer():
            train, heldout = self.dataset.train, self.dataset.heldout
            self.evaluator.log_heldout(self.agent, train, heldout, step, self.logger)
