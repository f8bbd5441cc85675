"""Trained agents out of run folders, checkpoints and exported files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError, shown
from dreamer.footprint import require_memory
from dreamer.training.run_folder import run_of, saved_info, saved_state
from dreamer.training.state_check import load_weights
from fosp_ext.build import build_agent
from fosp_ext.config import TrainConfig, config_from_dict, load_config
from fosp_ext.envs import check_task, is_custom

# Parts by the last word of their name: acting, estimates and open-loop images do without them.
LEARNING = {
    "optimizer", "target_net", "target_q_net",
    "in_sample_net", "in_sample_q_net", "in_sample_target_q_net", "in_sample_optimizer",
}  # fmt: skip
HEADS = {"reward_head", "cont_head", "cost_head"}  # acting needs them to judge by rollouts alone


class LoadedRun(NamedTuple):
    """A trained agent and what it was trained for."""

    agent: Agent
    config: TrainConfig
    info: DatasetInfo
    updates: int
    dataset: str  # fingerprint of the dataset it was trained on; empty where there was none
    exported: bool  # a file of fosp_ext/export.py: it lacks what learning needs


def load_run(path: str | Path, device: torch.device) -> LoadedRun:
    """The agent of a checkpoint file, or of the newest checkpoint of a run folder.

    The file may be an exported agent: then the parts that it leaves out are missing.
    """
    state = saved_state(path)
    config = saved_config(state, path)
    info = saved_info(state, path)
    require_memory(config, info, rows=0, imagined=0, device=device)
    agent = build_agent(config, info, device)
    exported = "left_out" in state
    if exported:
        leave_out_learning(agent, heads="world_model.reward_head" in state["left_out"])
    load_weights(agent, state["agent"], path)
    return LoadedRun(agent, config, info, state["step"], state["dataset"], exported)


def allow_import(task: str, source: Path, named: str | None = None) -> None:
    """Refuse to import the module of a task that nobody but a checkpoint names.

    The user names it, as `named`, or the run folder of `source` is the user's own: it belongs to
    this account, and its config.yaml has the same task. One line says what will be imported.
    """
    if not is_custom(task) or (named is not None and check_task(named) == task):
        return
    folder = run_of(source)
    if folder is None or not _is_own(folder, task):
        raise UserError(
            f"{source} says task {shown(task)}, whose module would be imported and run; if you "
            "trust it, name it yourself: --task"
        )
    sys.stderr.write(f"importing {task.rpartition(':')[0]} for task {task} of your run {folder}\n")


def _is_own(folder: Path, task: str) -> bool:
    """Does a run folder belong to this account, and was it begun with this task?"""
    settings = folder / "config.yaml"
    try:
        owners = {folder.stat().st_uid, settings.stat().st_uid}
        return owners == {os.geteuid()} and check_task(load_config(settings).task) == task
    except (OSError, UserError):
        return False


def saved_config(state: dict[str, Any], path: str | Path) -> TrainConfig:
    """The settings in a checkpoint's state."""
    config = config_from_dict(state["config"], str(path))
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path} is of mode {config.mode}, which trains nothing")
    return config


def leave_out_learning(agent: Agent, heads: bool) -> list[str]:
    """Remove what acting, estimates and images do without; returns the dotted names.

    The `heads` of the world model are removed where nothing that acts imagines.

    To ask one of these modules is an error then, not a wrong answer.
    """
    modules = agent.named_modules(remove_duplicate=False)
    unused = LEARNING | HEADS if heads else LEARNING
    parts = [name for name, _ in modules if name.rpartition(".")[2] in unused]
    for part in parts:
        parent, _, name = part.rpartition(".")
        delattr(agent.get_submodule(parent), name)
    return parts
