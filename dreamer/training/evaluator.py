"""What a training shows of itself on the way: evaluations, held-out losses, open-loop videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

import gymnasium
import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.data.episode import VIOLATION
from dreamer.data.stream import Store, WindowStream
from dreamer.envs.closing import close
from dreamer.files import atomic_path
from dreamer.training.diagnostics import heldout_estimates, heldout_metrics, open_loop_videos
from dreamer.training.evaluation import means, run_episode
from dreamer.training.logger import Logger
from dreamer.training.settings import RunSettings
from dreamer.training.video import FPS

EVAL_SEED = 10_000  # every checkpoint of every run meets the same worlds
HELDOUT_BATCHES = 8
OPEN_LOOP_ROWS = 45
Views = Callable[[Agent], Mapping[str, Agent]]  # prefix of the metrics -> who plays


def as_it_acts(agent: Agent) -> dict[str, Agent]:
    """The agent itself, and nothing else, is evaluated."""
    return {"eval": agent}


class Evaluator:
    """Looks at an agent without disturbing it: the random numbers of the training stay."""

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        device: torch.device,
        env: gymnasium.Env | None,
        views: Views = as_it_acts,
        violation: float = VIOLATION,
    ) -> None:
        """Videos go to `folder`; without an `env` nothing is played.

        A step violates from the cost `violation` on.
        """
        self._folder, self._settings, self._device = folder, settings, device
        self._env, self._views, self._violation = env, views, violation

    def evaluate(self, agent: Agent, logger: Logger) -> None:
        """Play mean actions in the environment, if there is one, on fixed seeds.

        Of several processes each plays its share of the episodes, so all have to call this.
        """
        if self._env is None:
            return
        seeds = range(EVAL_SEED, EVAL_SEED + self._settings.eval_episodes)
        share = seeds[distributed.rank() :: distributed.world_size()]
        for prefix, player in self._views(agent).items():
            world = (self._device, None, self._violation)
            with logger.timer("evaluate"), distributed.collective_errors():
                played = [run_episode(player, self._env, seed, *world) for seed in share]
            everywhere = chain.from_iterable(distributed.collect(played))
            results = sorted(everywhere, key=lambda result: result.seed)
            if distributed.is_writer():
                logger.add(means(results), prefix=prefix)

    def log_heldout(
        self,
        agent: Agent,
        train: Store,
        heldout: Store | None,
        step: int,
        logger: Logger,
    ) -> None:
        """Losses, histograms and open-loop predictions on held-out rows, else on those trained on.

        Nothing where there are no rows yet.
        """
        store = heldout or train
        length = min(self._settings.batch_length, len(store))  # held out may be one short episode
        if not store.starts(length):
            return
        stream = WindowStream(store, self._settings.batch_size, length, seed=0)
        metrics = heldout_metrics(agent, stream, HELDOUT_BATCHES, self._device)
        prefix = "heldout" if heldout else "training_rows"
        logger.add(metrics, prefix=prefix)
        for name, values in heldout_estimates(agent, stream, self._device).items():
            logger.histogram(f"{prefix}/{name}", values, step)
        self._open_loop(agent, store, step, logger)

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            close(self._env, distributed.warn)

    def _open_loop(self, agent: Agent, store: Store, step: int, logger: Logger) -> None:
        """Videos of truth, prediction and error, in TensorBoard and in the run folder."""
        videos = open_loop_videos(agent, store, OPEN_LOOP_ROWS, self._device)
        for camera, frames in videos.items():
            encoded = logger.video(f"openl_{camera}", frames, step, FPS)
            with atomic_path(self._folder / "open_loop" / f"openl_{camera}_{step:09d}.gif") as part:
                part.write_bytes(encoded)
