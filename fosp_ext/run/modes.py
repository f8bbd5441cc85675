"""What each mode of train.py does: the one place that branches on a mode."""

from __future__ import annotations

from pathlib import Path

from dreamer import distributed
from dreamer.errors import UserError
from dreamer.training.run_folder import claimed
from dreamer.utils import keep_freed_memory
from fosp_ext.config import CollectConfig, Config, OfflineConfig, OnlineConfig
from fosp_ext.run.data import collect_settings, record_dataset, run_dataset
from fosp_ext.run.offline import train_offline
from fosp_ext.run.online import train_online


def run_mode(config: Config) -> int:
    """Do what `config.mode` says; returns the exit code."""
    keep_freed_memory()
    if distributed.launched() > 1 and config.mode == "collect":
        raise UserError(
            "mode collect runs in one process, which starts workers of its own; several processes "
            "(torchrun) can train, offline and online"
        )
    if isinstance(config, CollectConfig):
        recording = collect_settings(config.task, config.env, config.dataset, config.seed)
        record_dataset(run_dataset(config), recording)
        return 0
    with distributed.process_group(), claimed(Path(config.logdir)):
        match config:
            case OfflineConfig():
                return train_offline(config)
            case OnlineConfig():
                return train_online(config)
    raise TypeError(f"{type(config).__name__} is of no mode")
