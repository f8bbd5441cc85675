"""Which dataset a run uses: recorded, checked against the settings, opened as training rows."""

from __future__ import annotations

import sys
from pathlib import Path

from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import check_compatible, validate_dataset
from dreamer.data.store import RowStore, choose_storage
from dreamer.errors import UserError, did_you_mean
from fosp_ext.collect import CollectSettings, collect_dataset
from fosp_ext.envs import action_size, check_cameras, check_task
from fosp_ext.settings import Config


def dataset_path(config: Config) -> Path:
    """The file the settings name, or the task's default one."""
    return Path(config.dataset.path or f"logdir/{config.task}/dataset.h5")


def record_dataset(config: Config) -> None:
    """Play the scripted behaviours and write the file."""
    path, data, env = dataset_path(config), config.dataset, config.env
    settings = CollectSettings(
        task=config.task, cameras=env.cameras, size=env.size, action_repeat=env.action_repeat,
        render=env.render, episodes=data.episodes, mix=data.mix, noise=data.noise,
        min_speed=data.min_speed, workers=data.workers, seed=config.seed,
    )  # fmt: skip
    for line in collect_dataset(path, settings, sys.stderr):
        sys.stderr.write(f"{line}\n")
    sys.stderr.write(f"dataset: {path}\n")


def require_dataset(config: Config) -> DatasetInfo:
    """Refuse a file that does not fit the settings; record a default one where none is named."""
    path, env, task = dataset_path(config), config.env, check_task(config.task)
    if not path.exists():
        if config.dataset.path:
            siblings = [file.name for file in path.parent.glob("*")]
            raise UserError(
                f"no dataset {path}; --configs collect with the same --dataset.path records it"
                f"{did_you_mean(path.name, siblings)}"
            )
        sys.stderr.write(f"no dataset yet: recording {config.dataset.episodes} episodes\n")
        record_dataset(config)
    expected = DatasetInfo(
        task, check_cameras(env.cameras), env.action_repeat, env.render, env.size, action_size(task)
    )
    check_compatible(validate_dataset(path), expected, path)
    return expected


def open_stores(config: Config, info: DatasetInfo) -> tuple[RowStore, RowStore | None]:
    """(training rows, held-out rows), in memory if they fit the limit, else read from disk."""
    path, data = dataset_path(config), config.dataset
    storage = choose_storage(path, data.storage, data.ram_limit_gb)
    train, heldout = RowStore.open(path, storage, data.holdout)
    rows = len(train) + (len(heldout) if heldout else 0)
    decoded = rows * len(info.cameras) * info.size**2 * 3 / 2**30
    sys.stderr.write(f"dataset: {path}, {rows} rows, {decoded:.2f} GiB decoded, in {storage}\n")
    return train, heldout
