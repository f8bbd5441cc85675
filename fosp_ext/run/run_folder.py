"""Trained agents out of run folders, checkpoints and exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer.agent import Agent
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError
from dreamer.training.run_folder import saved_info, saved_state
from fosp_ext.build import build_agent
from fosp_ext.config import TrainConfig, config_from_dict


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
    info = saved_info(state)
    agent = build_agent(config, info, device)
    leave_out(agent, state.get("left_out", []))
    agent.load_state_dict(state["agent"])
    exported = "left_out" in state
    return LoadedRun(agent, config, info, state["step"], state["dataset"], exported)


def saved_config(state: dict[str, Any], path: str | Path) -> TrainConfig:
    """The settings in a checkpoint's state."""
    config = config_from_dict(state["config"], str(path))
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path} is of mode {config.mode}, which trains nothing")
    return config


def leave_out(agent: Agent, parts: list[str]) -> None:
    """Remove modules by their dotted names: to ask one is an error then, not a wrong answer."""
    for part in parts:
        parent, _, name = part.rpartition(".")
        delattr(agent.get_submodule(parent), name)
