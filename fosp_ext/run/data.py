"""Which dataset a run uses: recorded, checked against the settings, opened as training rows."""

from __future__ import annotations

import sys
from pathlib import Path

from dreamer import distributed
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import check_compatible, validate_dataset
from dreamer.data.memory import plan_memory
from dreamer.data.store import RowStore
from dreamer.data.stream import AT_ONCE
from dreamer.errors import UserError, did_you_mean
from dreamer.training.progress import Progress
from fosp_ext.config import CollectConfig, Config, OfflineConfig, TrainConfig
from fosp_ext.dataset.collect import CollectSettings, collect_dataset
from fosp_ext.dataset.summary import summarise, table
from fosp_ext.envs import (
    action_size,
    check_cameras,
    check_task,
    check_variant,
    is_custom,
    make_env,
    task_cameras,
    task_folder,
)


def dataset_path(config: Config) -> Path:
    """The file the settings name, or the default one of the task and its variant."""
    task = check_task(config.task)
    variant = check_variant(config.env.variant, task)
    name = f"dataset-{variant.name}.h5" if variant.changes else "dataset.h5"
    return Path(config.dataset.path or f"logdir/{task_folder(task)}/{name}")


def record_dataset(config: CollectConfig | OfflineConfig) -> None:
    """Play the scripted policies and write the file."""
    path, data, env = dataset_path(config), config.dataset, config.env
    settings = CollectSettings(
        task=config.task, cameras=env.cameras, size=env.size, action_repeat=env.action_repeat,
        render=env.render, episodes=data.episodes, mix=data.mix, noise=data.noise,
        min_speed=data.min_speed, workers=data.workers, seed=config.seed, variant=env.variant,
        field_of_view=data.field_of_view,
    )  # fmt: skip
    if is_custom(settings.task):  # its mistakes show here, before anything is written
        make_env(
            settings.task, settings.cameras, settings.size, settings.action_repeat, settings.render
        ).close()
    collect_dataset(path, settings, sys.stderr)
    sys.stderr.write("\n".join([*table(summarise(path)), f"dataset: {path}\n"]))


def require_dataset(config: TrainConfig) -> DatasetInfo:
    """What the episodes of the dataset share; a file that does not fit the settings is refused."""
    path, env, task = dataset_path(config), config.env, check_task(config.task)
    found = validate_dataset(path)
    expected = DatasetInfo(
        task,
        check_cameras(env.cameras, task_cameras(task)),
        env.action_repeat,
        env.render,
        env.size,
        action_size(task) or found.action_size,  # a custom environment need not be installed here
        found.variant,  # a policy may train on data of another variant than it is to meet
    )
    check_compatible(found, expected, path)
    return expected


def record_if_missing(config: OfflineConfig) -> None:
    """Record a default dataset where none is named and there is none; refuse a missing file."""
    path = dataset_path(config)
    if path.exists():
        return
    if config.dataset.path:
        siblings = [file.name for file in path.parent.glob("*")]
        raise UserError(
            f"no dataset {path}; --configs collect with the same --dataset.path records it"
            f"{did_you_mean(path.name, siblings)}"
        )
    sys.stderr.write(f"no dataset yet: recording {config.dataset.episodes} episodes\n")
    record_dataset(config)


def open_stores(config: TrainConfig) -> tuple[RowStore, RowStore | None]:
    """(training rows, held-out rows), in memory if they fit the limit, else read from disk."""
    data, run = config.dataset, config.run
    batch_rows = AT_ONCE * run.batch_size * run.batch_length
    plan = plan_memory(
        dataset_path(config), data.storage, data.ram_limit_gb, batch_rows, distributed.neighbours()
    )
    distributed.say(str(plan))
    if plan.storage == "disk":
        return RowStore.open(plan.path, "disk", data.holdout)
    with Progress("decoding", plan.images, "images", distributed.screen()) as progress:
        return RowStore.open(plan.path, "ram", data.holdout, progress.advance)
