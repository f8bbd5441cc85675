"""What a training shows of itself on the way: evaluations, held-out losses, open-loop videos."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import torch

from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.files import atomic_path
from dreamer.training.diagnostics import heldout_estimates, heldout_metrics, open_loop_videos
from dreamer.training.evaluation import evaluate
from dreamer.training.logger import Logger
from dreamer.training.video import FPS
from fosp_ext.config import TrainConfig
from fosp_ext.envs import make_run_env

EVAL_SEED = 10_000  # every checkpoint of every run meets the same layouts
REPORT_BATCHES = 8
OPEN_LOOP_ROWS = 45


def evaluation_env(config: TrainConfig, info: DatasetInfo) -> gymnasium.Env | None:
    """An environment for evaluations, or nothing where none are wanted."""
    return make_run_env(info, config.env.variant) if config.run.eval_every else None


class Evaluator:
    """Looks at an agent without disturbing it: the random numbers of the training stay."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        logger: Logger,
        env: gymnasium.Env | None,
        stores: tuple[RowStore, RowStore | None],
    ) -> None:
        """`stores` are training and held-out rows; without held-out ones reports use the others."""
        self.config, self.device, self.logger, self.env = config, device, logger, env
        self.train, self.heldout = stores

    def evaluate(self, agent: Agent, prefix: str = "eval") -> None:
        """Play the mean action in the real environment on fixed seeds."""
        seeds = range(EVAL_SEED, EVAL_SEED + self.config.run.eval_episodes)
        with self.logger.timer("evaluate"):
            results = evaluate(agent, self.env, seeds, self.device)
        self.logger.add(results, prefix=prefix)

    def report(self, agent: Agent, step: int) -> None:
        """Losses, histograms and open-loop predictions on held-out episodes."""
        store = self.heldout or self.train
        run = self.config.run
        length = min(run.batch_length, len(store))  # one short episode may be all that is held out
        stream = WindowStream(store, run.batch_size, length, seed=0)
        metrics = heldout_metrics(agent, stream, REPORT_BATCHES, self.device)
        self.logger.add(metrics, prefix="report/heldout" if self.heldout else "report/train")
        for name, values in heldout_estimates(agent, stream, self.device).items():
            self.logger.histogram(f"report/{name}", values, step)
        self._open_loop(agent, store, step)

    def close(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()

    def _open_loop(self, agent: Agent, store: RowStore, step: int) -> None:
        """Videos of truth, prediction and error, in TensorBoard and in the run folder."""
        videos = open_loop_videos(agent, store, OPEN_LOOP_ROWS, self.device)
        folder = Path(self.config.logdir) / "report"
        for camera, frames in videos.items():
            encoded = self.logger.video(f"report/openl_{camera}", frames, step, FPS)
            with atomic_path(folder / f"openl_{camera}_{step:09d}.gif") as part:
                part.write_bytes(encoded)
