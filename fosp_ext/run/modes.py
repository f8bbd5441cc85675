"""What each mode of train.py does: the one place that branches on a mode."""

from __future__ import annotations

import torch

from dreamer import distributed
from dreamer.errors import UserError
from dreamer.utils import keep_freed_memory
from fosp_ext.run.data import record_dataset
from fosp_ext.run.offline import OfflineRun
from fosp_ext.run.online import OnlineRun
from fosp_ext.settings import Config


def run_mode(config: Config) -> int:
    """Do what `config.mode` says; returns the exit code."""
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if distributed.launched() > 1 and config.mode == "collect":
        raise UserError(
            "mode collect runs in one process, which starts workers of its own; several processes "
            "(torchrun) can train, offline and online"
        )
    with distributed.process_group():
        return {"collect": collect, "offline": offline, "online": online}[config.mode](config)


def collect(config: Config) -> int:
    """Record the dataset file."""
    record_dataset(config)
    return 0


def offline(config: Config) -> int:
    """Train from the dataset alone, or go on training."""
    return OfflineRun(config).run()


def online(config: Config) -> int:
    """Fine-tune an offline run's agent in the environment, or go on fine-tuning."""
    return OnlineRun(config).run()
