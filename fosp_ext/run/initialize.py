"""The run that a new one goes on from, or takes its world model from: is it there, does it fit?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamer.agent import Agent
from dreamer.config import to_dict
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import fingerprint
from dreamer.errors import UserError
from fosp_ext.build import begin_online, build_agent
from fosp_ext.envs import check_cameras, check_task, check_variant, task_cameras
from fosp_ext.run.data import dataset_path
from fosp_ext.run.run_folder import (
    CANNOT_LEARN,
    LoadedRun,
    flat,
    load_run,
    own_parts,
    saved_config,
    saved_info,
    saved_state,
)
from fosp_ext.settings import Config

SAME = (  # what decides which weights there are, and which episodes are held out
    "method", "env.cameras", "env.size", "env.action_repeat", "env.render", "dataset.holdout",
    "world_model.rssm", "world_model.heads", "world_model.cnn_depth",
    "actor.net", "critic.net", "critic.split_value",
    "cost_critic.net", "cost_critic.split_value",
    "reachability.net", "reachability.enabled", "lagrange.enabled",
)  # fmt: skip

SAME_MODEL = (  # what decides how a world model learns alone
    "mode", "seed", "precision", "augment", "env", "dataset.holdout", "world_model", "cost_head",
    "run.batch_size", "run.batch_length",
)  # fmt: skip


def begin(config: Config, device: torch.device) -> tuple[Config, DatasetInfo, Agent]:
    """A new online run: complete settings, what its episodes have in common, the loaded agent."""
    source = load_source(config, device)
    config = with_dataset(config, source.config, source.dataset, config.online.source)
    task = check_task(config.task)
    info = replace(
        source.info,
        task=task,
        cameras=check_cameras(config.env.cameras, task_cameras(task)),
        variant=check_variant(config.env.variant, task).name,
    )
    return config, info, begin_online(config, info, source.agent)


def go_on(
    config: Config, state: dict[str, Any], device: torch.device
) -> tuple[Config, DatasetInfo, Agent]:
    """The same for an online run that has a checkpoint; its offline run is not needed any more."""
    before = saved_config(state, config.logdir)
    config = with_dataset(config, before, state["dataset"], config.logdir)
    source = config.online.source or before.online.source
    config = replace(config, online=replace(config.online, source=source))
    info = saved_info(state)
    agent = build_agent(config, info, device)
    agent.load_state_dict(state["agent"])
    return config, info, agent


def load_source(config: Config, device: torch.device) -> LoadedRun:
    """The agent that `online.source` names, checked against this run's settings."""
    source = config.online.source
    if not source:
        raise UserError("an online run goes on from an offline one: name its folder, --from RUN")
    loaded = load_run(source, device)
    if loaded.exported:
        raise UserError(f"{source} {CANNOT_LEARN}")
    if loaded.config.mode != "offline":
        raise UserError(f"{source} is an {loaded.config.mode} run, --from takes an offline one")
    task = check_task(config.task)
    if loaded.info.task != task and not config.online.allow_task_mismatch:
        raise UserError(
            f"{source} was trained for {loaded.info.task}, this command says {task}; "
            "add --allow-task-mismatch if that is meant"
        )
    _check_settings(config, loaded.config, source, SAME)
    return loaded


def begin_with_model(config: Config, agent: Agent, dataset: str) -> tuple[int, dict[str, Any]]:
    """Give `agent` the world model, with its optimiser, that the run `run.model_from` learned.

    `dataset` is the fingerprint of the data. Returns the updates that run has behind it, and its
    random state. While the model learns alone nothing depends on the method, so a run that goes on
    from there is what it would have been without.
    """
    source = config.run.model_from
    state = saved_state(source)
    if "left_out" in state:
        raise UserError(f"{source} {CANNOT_LEARN}")
    before = saved_config(state, source)
    _check_settings(config, before, source, SAME_MODEL)
    if "dreamerv3" in (config.method, before.method) and config.method != before.method:
        raise UserError(f"{source} is of {before.method}; only that method has its world model")
    if state["dataset"] != dataset:
        raise UserError(f"{source} was trained on other data than {dataset_path(config)}")
    alone = int(config.run.pretrain * config.run.updates)
    if state["step"] > alone:
        raise UserError(
            f"{source} has {state['step']} updates behind it; of run.updates "
            f"{config.run.updates}, run.pretrain leaves {alone} to the model alone"
        )
    prefix = "world_model."
    weights = {k.removeprefix(prefix): x for k, x in state["agent"].items() if k.startswith(prefix)}
    agent.world_model.load_state_dict(weights)
    return state["step"], own_parts(state, source)["rng"]


def with_dataset(config: Config, before: Config, expected: str, run: str) -> Config:
    """The settings with the dataset that `before` used; `expected` is its fingerprint."""
    path = Path(config.dataset.path or dataset_path(before))
    if config.dataset.path and not path.exists():
        raise UserError(f"no dataset {path}; it must be the one that {run} was trained on")
    if not path.exists():
        raise UserError(
            f"the dataset that {run} was trained on is not at {path}; say where it is now with "
            "--dataset.path"
        )
    if fingerprint(path) != expected:
        raise UserError(
            f"{path} is not the dataset that {run} was trained on; name that one with "
            "--dataset.path"
        )
    return replace(config, dataset=replace(config.dataset, path=str(path)))


def _check_settings(config: Config, before: Config, source: str, same: tuple[str, ...]) -> None:
    """Refuse settings that differ from those of the source in what `same` names."""
    new, old = flat(to_dict(config)), flat(to_dict(before))
    for key in new:
        if any(f"{key}.".startswith(f"{name}.") for name in same) and new[key] != old[key]:
            if key == "method":
                hint = f"name the preset of its method, {before.method}_online"
            elif before.size != config.size:
                hint = f"name its size preset, {before.size}"
            else:
                hint = "give it the same settings"
            raise UserError(
                f"{source} was trained with {key} {old[key]!r}, this command says {new[key]!r}; "
                f"{hint}"
            )
