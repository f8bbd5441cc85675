"""Types and meanings of the settings of a run, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass

from dreamer.config import setting
from dreamer.errors import UserError
from dreamer.settings import BOTH, MODEL

TENSORBOARD, WANDB = "tensorboard", "wandb"  # see dreamer/training/sinks.py


@dataclass(frozen=True)
class DatasetFile:
    """Where recorded episodes are."""

    path: str = setting("HDF5 file of recorded episodes")


@dataclass(frozen=True)
class StorageSettings(DatasetFile):
    """How recorded episodes are read."""

    storage: str = setting(
        "ram decodes the images once, disk streams them, auto takes ram up to ram_limit_gb",
        choices=("auto", "ram", "disk"),
        decides_result=False,
    )
    ram_limit_gb: float = setting(
        "largest decoded dataset that auto keeps in memory", minimum=0, decides_result=False
    )
    holdout: float = setting(
        "share of episodes kept out of training, for held-out metrics",
        minimum=0,
        maximum=0.9,
        may_change=False,
        must_match=BOTH,
    )


@dataclass(frozen=True)
class RunSettings:
    """What a training run does on the way; counted in gradient updates."""

    batch_size: int = setting(
        "windows per batch, in each process", minimum=1, may_change=False, must_match=(MODEL,)
    )
    batch_length: int = setting("rows per window", minimum=2, may_change=False, must_match=(MODEL,))
    log_every: int = setting(
        "updates between lines of metrics.jsonl", minimum=1, decides_result=False
    )
    heldout_every: int = setting(
        "updates between held-out losses and open-loop videos; 0 never",
        minimum=0,
        decides_result=False,
    )
    eval_every: int = setting("updates between evaluations in the environment; 0 never", minimum=0)
    eval_episodes: int = setting("episodes per evaluation", minimum=1)
    save_every: int = setting("updates between checkpoints", minimum=1, decides_result=False)
    keep_checkpoints: int = setting("checkpoints kept on disk", minimum=1, decides_result=False)
    logger: tuple[str, ...] = setting(
        "programs that show the run, beside metrics.jsonl; or: --logger. wandb has to be installed",
        choices=(TENSORBOARD, WANDB),
        decides_result=False,
        before=(TENSORBOARD,),
    )
    profile: int = setting("updates of this start to trace (--profile takes 10); 0 none", minimum=0)


def check_context(context: int, run: RunSettings) -> None:
    """Refuse windows whose first `context` rows leave fewer than two to learn from."""
    if context > run.batch_length - 2:
        raise UserError(
            f"world_model.context {context} leaves fewer than two rows of windows of "
            f"run.batch_length {run.batch_length}"
        )


@dataclass(frozen=True)
class OfflineRunSettings(RunSettings):
    """How long a run on a dataset is."""

    updates: int = setting("gradient updates of a run on a dataset", minimum=1)


@dataclass(frozen=True)
class OnlineSettings:
    """Acting in environments and learning from it."""

    steps: int = setting("agent steps in all environments together", minimum=1, may_change=True)
    prefill: int = setting("first agent steps, in which nothing is learned yet", minimum=0)
    envs: int = setting("environments, each in a process of its own", minimum=1, maximum=1000)
    ratio: float = setting("gradient updates per agent step", minimum=0)
    capacity: int = setting("rows of own episodes in memory, the oldest leave first", minimum=1)
