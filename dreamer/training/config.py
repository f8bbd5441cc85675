"""Whole configurations of `python -m dreamer`: what it reads in an environment, or on a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dreamer.config import setting
from dreamer.settings import (
    ActorSettings,
    CriticSettings,
    ImaginationSettings,
    WorldModelSettings,
)
from dreamer.training.settings import (
    OfflineRunSettings,
    OnlineSettings,
    RunSettings,
    StorageSettings,
    check_context,
)


@dataclass(frozen=True)
class EvaluationEnv:
    """An environment to be evaluated in."""

    id: str = setting("Gymnasium id, or MODULE:NAME of an environment, its class or a function")


@dataclass(frozen=True)
class EnvSettings(EvaluationEnv):
    """The environment and what is seen of it."""

    cameras: tuple[str, ...] = setting(
        "images of the observation; none named: all of them, or where there are none what render() "
        "returns"
    )
    vectors: tuple[str, ...] = setting(
        "low-dimensional parts of the observation that are encoded as well", before=()
    )
    size: int = setting("side of the square images, in pixels: a power of two", minimum=8)
    action_repeat: int = setting("steps of the environment per agent step", minimum=1)
    replay: bool = setting(
        "a continued run plays its running episodes again and goes on exactly; false: it drops "
        "them, as with a robot it must"
    )


@dataclass(frozen=True)
class DreamerConfig:
    """What every training reads."""

    logdir: str = setting("run folder; {data} and {seed} are filled in", may_change=True)
    seed: int = setting("seed of networks, batches and imagination", minimum=0)
    device: str = setting("auto, cpu, cuda or cuda:N", may_change=True)
    precision: str = setting(
        "type of matrix products; auto is bfloat16 where the processor has it",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: str = setting(
        "torch.compile for the steps of the RSSM that an update repeats; auto is on for CUDA only",
        choices=("auto", "on", "off"),
        may_change=True,
    )
    threads: int = setting(
        "CPU threads of torch in each process; 0 measures whether one or all are faster",
        minimum=0,
        may_change=True,
    )
    env: EvaluationEnv = setting("environment")
    run: RunSettings = setting("length and habits of the run", may_change=True)
    world_model: WorldModelSettings = setting("world model")
    imagination: ImaginationSettings = setting("imagined rollouts")
    actor: ActorSettings = setting("policy")
    critic: CriticSettings = setting("critic")

    def __post_init__(self) -> None:
        check_context(self.world_model.context, self.run)


@dataclass(frozen=True)
class OnlineConfig(DreamerConfig):
    """Training in an environment, from scratch."""

    env: EnvSettings = setting("environment")
    online: OnlineSettings = setting("acting")


@dataclass(frozen=True)
class OfflineConfig(DreamerConfig):
    """Training on recorded episodes."""

    env: EvaluationEnv = setting("environment for evaluations; none: nothing is played")
    dataset: StorageSettings = setting("recorded episodes", may_change=True)
    run: OfflineRunSettings = setting("length and habits of the run", may_change=True)


SCHEMAS: Mapping[str, type[DreamerConfig]] = {"online": OnlineConfig, "offline": OfflineConfig}
