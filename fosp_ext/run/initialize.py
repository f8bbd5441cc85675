"""The run that a new one goes on from, or takes its world model from: is it there, does it fit?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.config import differences, marks
from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import fingerprint
from dreamer.envs.closing import close
from dreamer.errors import UserError
from dreamer.settings import AGENT, MODEL
from dreamer.training.dataset import Dataset
from dreamer.training.run_folder import (
    CANNOT_LEARN,
    State,
    own_parts,
    saved_info,
    saved_state,
)
from fosp_ext.build import begin_online, build_agent
from fosp_ext.config import CloningMethod, FOSPOnline, OfflineConfig, OnlineConfig, TrainConfig
from fosp_ext.envs import check_task, is_custom, make_env
from fosp_ext.run.data import expected_info, run_dataset, tell_unused, with_facts_of
from fosp_ext.run.run_folder import LoadedRun, load_run, saved_config


def begin(config: OnlineConfig, device: torch.device) -> tuple[OnlineConfig, DatasetInfo, Agent]:
    """A new online run: complete settings, what its episodes have in common, the loaded agent.

    Without a run to go on from, the agent is a new one, and there is no dataset.
    """
    if not config.init_from:
        info = scratch_info(config)
        return config, info, build_agent(config, info, device)
    source = load_source(config, device)
    usual = run_dataset(source.config)
    path = find_dataset(config.dataset.path, usual, source.dataset, config.init_from)
    config = replace(config, dataset=replace(config.dataset, path=str(path)))
    info = expected_info(config.task, config.env, source.info.action_size, source.info.vectors)
    # it acts as it learned to; an environment that wants another size is refused
    info = replace(with_facts_of(info, source.info), action_size=source.info.action_size)
    return config, info, begin_online(config, info, source.agent)


def scratch_info(config: OnlineConfig) -> DatasetInfo:
    """What the episodes of a run from scratch have in common; refuses what such a run cannot be."""
    if isinstance(config, CloningMethod):
        raise UserError("bc imitates a dataset: name the offline run that has one, --from RUN")
    if isinstance(config, FOSPOnline) and config.policy_set.enabled:
        raise UserError(
            "the policy set needs an offline policy: name its run, --from RUN; to learn from "
            "scratch take the preset fosp_scratch"
        )
    if config.dataset.path:
        raise UserError(
            "a run from scratch has no dataset: leave --dataset.path out, or name the offline run "
            "that was trained on it, --from RUN"
        )
    distributed.say("no --from: learning from scratch")
    task, env, actions = config.task, config.env, 0
    vectors: dict[str, int] = {}
    if is_custom(task):  # which alone knows its actions and vectors
        shown = env.cameras, env.size, env.action_repeat, env.render
        world = make_env(task, *shown, vectors=env.vectors)
        (actions,), vectors = world.action_space.shape or (0,), getattr(world, "vectors", {})
        close(world)
        if not config.run.eval_every:  # else the environment of the evaluations says it
            tell_unused(world)
    return expected_info(task, env, actions, vectors)


def go_on(
    config: OnlineConfig, state: State, device: torch.device
) -> tuple[OnlineConfig, DatasetInfo, Agent]:
    """The same for an online run that has a checkpoint; its offline run is not needed any more."""
    before = saved_config(state, config.logdir)
    if state["dataset"]:
        usual = run_dataset(before)
        path = find_dataset(config.dataset.path, usual, state["dataset"], config.logdir)
        config = replace(config, dataset=replace(config.dataset, path=str(path)))
    elif config.dataset.path:
        raise UserError(f"{config.logdir} began from scratch, without {config.dataset.path}")
    source = config.init_from or before.init_from
    config = replace(config, init_from=source)
    info = saved_info(state)
    agent = build_agent(config, info, device)
    agent.load_state_dict(state["agent"])
    return config, info, agent


def load_source(config: OnlineConfig, device: torch.device) -> LoadedRun:
    """The agent that `init_from` names, checked against this run's settings."""
    source = config.init_from
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
    _check_settings(config, loaded.config, source, AGENT)
    return loaded


def state_with_model(config: OfflineConfig, agent: Agent, dataset: Dataset) -> State:
    """The state of `agent` as if it had learned the world model of the run `init_from` itself.

    With its optimiser, its random state and the updates that run has behind it. While the model
    learns alone nothing depends on the method, so a run that goes on from there is what it would
    have been without.
    """
    source = config.init_from
    state = saved_state(source)
    if "left_out" in state:
        raise UserError(f"{source} {CANNOT_LEARN}")
    before = saved_config(state, source)
    _check_settings(config, before, source, MODEL)
    if "dreamerv3" in (config.method, before.method) and config.method != before.method:
        raise UserError(f"{source} is of {before.method}; only that method has its world model")
    if state["dataset"] != dataset.fingerprint:
        raise UserError(f"{source} was trained on other data than {dataset.path}")
    if saved_info(state).action_scale != dataset.info.action_scale:
        raise UserError(f"{source} was trained with another action scale; train it anew")
    alone = int(config.run.pretrain * config.run.updates)
    if state["step"] > alone:
        raise UserError(
            f"{source} has {state['step']} updates behind it; of run.updates "
            f"{config.run.updates}, run.pretrain leaves {alone} to the model alone"
        )
    distributed.say(f"the world model of {source}: {state['step']} updates")
    model = {key: x for key, x in state["agent"].items() if key.startswith("world_model.")}
    own = {**own_parts(state, source), "pretrain": alone}
    return {**state, **own, "agent": {**agent.state_dict(), **model}}


def find_dataset(named: str, usual: Path, expected: str, run: str) -> Path:
    """The dataset that `run` was trained on: the file `named`, if any is, or else the `usual` one.

    A file that is missing, or whose fingerprint is not the `expected` one, is a `UserError`.
    """
    path = Path(named) if named else usual
    if named and not path.exists():
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
    return path


def _check_settings(config: TrainConfig, before: TrainConfig, source: str, what: str) -> None:
    """Refuse settings that differ from those of the source though `what` is taken from it."""
    must_match = marks(type(config), "must_match")
    for key, (new, old) in differences(config, before).items():
        if what in must_match[key]:
            if key == "method":
                hint = f"name the preset of its method, {before.method}_online"
            elif before.size != config.size:
                hint = f"name its size preset, {before.size}"
            else:
                hint = "give it the same settings"
            raise UserError(
                f"{source} was trained with {key} {old!r}, this command says {new!r}; {hint}"
            )
