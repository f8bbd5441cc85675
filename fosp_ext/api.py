"""Training and evaluating from programs and notebooks: what train.py and eval.py do, as functions.

config = fosp_ext.configure("fosp_offline", "cpu", "quick", {"run.updates": 500})
run = fosp_ext.train(config)
fosp_ext.evaluate(fosp_ext.load(run), episodes=20)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer.config import load_presets
from dreamer.errors import UserError
from dreamer.training.evaluation import run_episode, summarize
from fosp_ext.acting import ActingAgent, load
from fosp_ext.config import CollectConfig, Config, resolve_config
from fosp_ext.envs import check_task, check_variant, make_run_env
from fosp_ext.run.data import run_dataset
from fosp_ext.run.modes import run_mode
from fosp_ext.run.presets import PRESETS
from fosp_ext.run.run_folder import allow_import
from fosp_ext.run.train import complete


def configure(*names: str | Mapping[str, Any], **settings: Any) -> Config:
    """The configuration that `train.py --configs NAMES --key value` would use.

    `names` are presets; settings with a dot in their name come as mappings (dotted name -> value)
    among them, others by keyword: `configure("bc", "cpu", {"run.updates": 500}, seed=1)`. Wrong
    names and values are a `UserError`.
    """
    presets = load_presets(PRESETS)
    chosen = [name for name in names if isinstance(name, str)]
    overrides: dict[str, Any] = {}
    for mapping in (*(name for name in names if not isinstance(name, str)), settings):
        overrides |= {key: str(x) if isinstance(x, Path) else x for key, x in mapping.items()}
    return resolve_config(presets, *complete(presets, chosen, overrides))


def train(config: Config) -> Path:
    """Record, train, or go on with what was interrupted; returns the dataset or the run folder.

    Ctrl-C saves a checkpoint before it is a `KeyboardInterrupt` here, too.
    """
    if run_mode(config):
        raise KeyboardInterrupt
    return run_dataset(config) if isinstance(config, CollectConfig) else Path(config.logdir)


def evaluate(
    agent: ActingAgent | str | Path,
    task: str | None = None,
    episodes: int = 20,
    seed: int = 1000,
    variant: str | None = None,
) -> dict[str, Any]:
    """Means, deviations and intervals over episodes of these seeds, as eval.py has them.

    The agent, or the file or run that holds it, plays in its own task; another `task` is refused.
    `variant` is one of its unseen variants; without one it is that of the run. Nothing is written.
    """
    if not isinstance(agent, ActingAgent):
        agent = load(agent)
    if task is not None and check_task(task) != agent.task:
        raise UserError(f"this agent was trained for {agent.task}, not for {check_task(task)}")
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}")
    allow_import(agent.task, agent.source, task)
    own = agent.run.config.env
    env = make_run_env(agent.run.info, check_variant(variant or own.variant, agent.task).name)
    try:
        results = [
            run_episode(agent.run.agent, env, seed + k, agent.device, None, own.violation)
            for k in range(episodes)
        ]
    finally:
        env.close()
    return summarize(results)
