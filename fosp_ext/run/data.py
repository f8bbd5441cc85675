"""Which dataset a run uses: where it is, recorded if missing, checked against the settings."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import gymnasium

from dreamer import distributed
from dreamer.data.episode import ACTION_SCALE, DatasetInfo
from dreamer.data.hdf5 import check_compatible, validate_dataset
from dreamer.data.validation import READ
from dreamer.envs.closing import close
from dreamer.errors import UserError, did_you_mean
from fosp_ext.config import Config
from fosp_ext.dataset.collect import CollectSettings, collect_dataset
from fosp_ext.dataset.summary import summarise, table
from fosp_ext.envs import (
    action_scale,
    action_size,
    check_cameras,
    check_task,
    check_variant,
    check_vectors,
    environment_facts,
    is_custom,
    make_env,
    task_cameras,
    task_folder,
)
from fosp_ext.settings import EnvSettings, RecordingSettings

SCALE = (ACTION_SCALE,)
NEED_COSTS = ("fosp", "safedreamer")  # methods


def dataset_path(task: str, variant: str, named: str) -> Path:
    """The file that is named, or else the default one of the task and its variant."""
    task = check_task(task)
    changes = check_variant(variant, task)
    name = f"dataset-{changes.name}.h5" if changes.changes else "dataset.h5"
    return Path(named or f"logdir/{task_folder(task)}/{name}")


def run_dataset(config: Config) -> Path:
    """The dataset of a run that has been loaded."""
    return dataset_path(config.task, config.env.variant, config.dataset.path)


def collect_settings(
    task: str, env: EnvSettings, data: RecordingSettings, seed: int
) -> CollectSettings:
    """What to record for a task, as the settings of a run say."""
    return CollectSettings(
        task=task, cameras=env.cameras, size=env.size, action_repeat=env.action_repeat,
        render=env.render, episodes=data.episodes, mix=data.mix, noise=data.noise,
        min_speed=data.min_speed, workers=data.workers, seed=seed, variant=env.variant,
        field_of_view=data.field_of_view, vectors=env.vectors,
    )  # fmt: skip


def record_dataset(path: Path, settings: CollectSettings) -> None:
    """Play the scripted policies and write the file."""
    if is_custom(settings.task):  # its mistakes show here, before anything is written
        env = make_env(
            settings.task, settings.cameras, settings.size, settings.action_repeat,
            settings.render, vectors=settings.vectors,
        )  # fmt: skip
        close(env)
        tell_unused(env)
    collect_dataset(path, settings, sys.stderr)
    sys.stderr.write("\n".join([*table(summarise(path)), f"dataset: {path}\n"]))


def tell_unused(env: gymnasium.Env) -> None:
    """A line for each part of the observations of a custom environment that is left out."""
    for name, kind in getattr(env, "unused", {}).items():
        distributed.say(f"not used: observation '{name}' ({kind}); see env.cameras, env.vectors")


def record_if_missing(
    path: Path, task: str, env: EnvSettings, data: RecordingSettings, seed: int
) -> None:
    """Record the default dataset if there is none; refuse a missing file that is named."""
    if path.exists():
        return
    if data.path:
        siblings = [file.name for file in path.parent.glob("*")]
        raise UserError(
            f"no dataset {path}; --configs collect with the same --dataset.path records it"
            f"{did_you_mean(path.name, siblings)}"
        )
    sys.stderr.write(f"no dataset yet: recording {data.episodes} episodes\n")
    record_dataset(path, collect_settings(task, env, data, seed))


def require_dataset(path: Path, task: str, env: EnvSettings) -> DatasetInfo:
    """What the episodes of the dataset share; a file that does not fit the settings is refused.

    Its variant may be another one than the policy is to meet, and its actions in another scale:
    they are converted. It may have more cameras and vectors than the settings name.
    """
    found = validate_dataset(path)
    expected = expected_info(task, env, found.action_size, found.vectors)
    shown = replace(
        found,
        cameras=tuple(name for name in found.cameras if name in expected.cameras) or found.cameras,
        vectors={name: size for name, size in found.vectors.items() if name in expected.vectors},
    )
    drawn = {} if is_custom(task) else {"render": env.render}
    check_compatible(shown, with_facts_of(replace(expected, environment=drawn), found), path)
    return with_facts_of(replace(expected, environment=found.environment), expected, SCALE)


def require_costs(info: DatasetInfo, method: str, path: Path) -> None:
    """Refuse data without costs for a method that learns to avoid them."""
    if not info.has_costs and method in NEED_COSTS:
        raise UserError(
            f"{path} has no costs, from which {method} learns what is unsafe: convert its source "
            "again with --cost-from MODULE:FUNCTION, or train --configs dreamerv3 or bc"
        )


def expected_info(
    task: str, env: EnvSettings, actions: int, vectors: Mapping[str, int]
) -> DatasetInfo:
    """What episodes of a run in this environment share.

    `actions` is the size of an action where the task does not say it, and `vectors` has the sizes
    of those that the settings name: a custom environment need not be installed here.
    """
    task = check_task(task)
    for name in check_vectors(env.vectors, task):
        if name not in vectors:
            raise UserError(f"no vector '{name}' in the data{did_you_mean(name, vectors)}")
    return DatasetInfo(
        task,
        check_cameras(env.cameras, task_cameras(task)),
        env.action_repeat,
        env.size,
        action_size(task) or actions,
        environment_facts(
            None if is_custom(task) else env.render,
            check_variant(env.variant, task).name,
            action_scale(task),
        ),
        {name: vectors[name] for name in env.vectors},
    )


def with_facts_of(
    info: DatasetInfo, other: DatasetInfo, names: Collection[str] = READ
) -> DatasetInfo:
    """`info` with what `other` says of its actions and costs, or with these facts of it alone."""
    facts = {fact: text for fact, text in info.environment.items() if fact not in names}
    taken = {fact: text for fact, text in other.environment.items() if fact in names}
    return replace(info, environment={**facts, **taken})
