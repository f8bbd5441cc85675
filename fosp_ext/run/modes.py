"""What each mode of train.py does: the one place that branches on a mode."""

from __future__ import annotations

import torch

from dreamer import distributed
from dreamer.errors import UserError
from dreamer.utils import keep_freed_memory
from fosp_ext.config import CollectConfig, Config, OfflineConfig, OnlineConfig
from fosp_ext.run.data import record_dataset
from fosp_ext.run.offline import OfflineRun
from fosp_ext.run.online import OnlineRun


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
        match config:
            case OfflineConfig():
                return OfflineRun(config).run()
            case OnlineConfig():
                return OnlineRun(config).run()
            case CollectConfig():
                record_dataset(config)
        return 0
