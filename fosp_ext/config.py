"""Whole configurations: what each method reads in each mode, and how presets become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config import Presets, from_dict, marks, raw_value, resolve, setting
from dreamer.errors import UserError, did_you_mean, shown
from dreamer.settings import (
    AGENT,
    MODEL,
    ActorSettings,
    CriticSettings,
    ImaginationSettings,
    WorldModelSettings,
)
from dreamer.training.settings import RunSettings, check_context
from dreamer.yaml_file import read_yaml
from fosp_ext.settings import (
    CloningSettings,
    CostHeadSettings,
    DatasetFile,
    EnvSettings,
    InSampleCriticSettings,
    LagrangeSettings,
    OfflineDatasetSettings,
    OfflineRunSettings,
    OnlineSettings,
    PolicySetSettings,
    ReachabilitySettings,
    RecordingSettings,
    SafeActorSettings,
    SafeImaginationSettings,
    StorageSettings,
    TrainEnvSettings,
)

MODES = ("collect", "offline", "online")
METHODS = ("fosp", "safedreamer", "bc", "dreamerv3")
SIZES = ("full", "small", "cpu", "debug")
RECIPES = ("paper", "quick")


@dataclass(frozen=True)
class Config:
    """What train.py reads in every mode."""

    mode: str = setting("what to do", choices=MODES, must_match=(MODEL,))
    size: str = setting("size preset in force: widths, batches, cadence of logs", choices=SIZES)
    recipe: str = setting("recipe preset in force: what is computed", choices=RECIPES)
    task: str = setting(
        "Safety-Gymnasium id, SafeReach-v0, or MODULE:NAME (docs/reference/custom_environments.md)"
    )
    logdir: str = setting(
        "run folder; {task}, {preset} and {seed} are filled in",
        may_change=True,
        decides_result=False,
    )
    seed: int = setting("seed of networks, batches and imagination", minimum=0, must_match=(MODEL,))
    threads: int = setting(
        "CPU threads of torch in each process; 0 measures whether one or all are faster",
        minimum=0,
        may_change=True,
        decides_result=False,
    )
    env: EnvSettings = setting("environment")
    dataset: DatasetFile = setting("recorded episodes", may_change=True)


@dataclass(frozen=True)
class CollectConfig(Config):
    """Recording a dataset."""

    dataset: RecordingSettings = setting("recorded episodes", may_change=True)


@dataclass(frozen=True)
class TrainConfig(Config):
    """What every training reads, offline and online."""

    method: str = setting("which agent to train", choices=METHODS, must_match=(AGENT,))
    device: str = setting("auto, cpu, cuda or cuda:N", may_change=True, decides_result=False)
    precision: str = setting(
        "type of matrix products; auto is bfloat16 where the processor has it",
        choices=("auto", "float32", "bfloat16"),
        must_match=(MODEL,),
    )
    compile: str = setting(
        "torch.compile for the steps of the RSSM that an update repeats; auto is on for CUDA only",
        choices=("auto", "on", "off"),
        may_change=True,
    )
    augment: str = setting(
        "random change of training images: of place (shift), or of light and hues (colour)",
        choices=("none", "shift", "colour", "light"),
        must_match=(MODEL,),
    )
    init_from: str = setting(
        "run folder or checkpoint that a new run goes on from; or: --from. Offline takes its world "
        "model, pretrained on the same data with the same seed; online takes the whole agent",
        may_change=True,
        decides_result=False,
    )
    env: TrainEnvSettings = setting("environment")
    world_model: WorldModelSettings = setting("world model", must_match=(MODEL,))
    dataset: StorageSettings = setting("recorded episodes", may_change=True)
    run: RunSettings = setting("length and habits of the run", may_change=True)

    def __post_init__(self) -> None:
        check_context(self.world_model.context, self.run)


@dataclass(frozen=True)
class OfflineConfig(TrainConfig):
    """Training from a dataset alone."""

    dataset: OfflineDatasetSettings = setting("recorded episodes", may_change=True)
    run: OfflineRunSettings = setting("length and habits of the run", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run.freeze and not int(self.run.pretrain * self.run.updates):
            raise UserError("run.freeze needs a pretrained world model: set run.pretrain")


@dataclass(frozen=True)
class OnlineConfig(TrainConfig):
    """Training in the environment."""

    online: OnlineSettings = setting("online phase")


@dataclass(frozen=True)
class DreamerMethod:
    """What DreamerV3 reads."""

    imagination: ImaginationSettings = setting("imagined rollouts")
    actor: ActorSettings = setting("policy")
    critic: CriticSettings = setting("critic")


@dataclass(frozen=True)
class SafeMethod:
    """What every method reads whose world model predicts costs."""

    cost_head: CostHeadSettings = setting("cost decoder", must_match=(MODEL,))


@dataclass(frozen=True)
class CloningMethod(SafeMethod):
    """What behaviour cloning reads."""

    actor: CloningSettings = setting("policy")


@dataclass(frozen=True)
class SafeDreamerMethod(SafeMethod):
    """What SafeDreamer reads."""

    imagination: SafeImaginationSettings = setting("imagined rollouts")
    actor: ActorSettings = setting("policy")
    critic: CriticSettings = setting("reward critic")
    cost_critic: CriticSettings = setting("cost critic")
    lagrange: LagrangeSettings = setting("augmented Lagrangian")


@dataclass(frozen=True)
class FOSPMethod(SafeMethod):
    """What FOSP reads."""

    imagination: SafeImaginationSettings = setting("imagined rollouts")
    actor: SafeActorSettings = setting("policy")
    critic: InSampleCriticSettings = setting("reward critic")
    cost_critic: InSampleCriticSettings = setting("cost critic")
    reachability: ReachabilitySettings = setting("reachability estimate")
    lagrange: LagrangeSettings = setting("augmented Lagrangian")


@dataclass(frozen=True)
class DreamerOffline(DreamerMethod, OfflineConfig):
    """DreamerV3 on a dataset."""


@dataclass(frozen=True)
class DreamerOnline(DreamerMethod, OnlineConfig):
    """DreamerV3 in the environment."""


@dataclass(frozen=True)
class CloningOffline(CloningMethod, OfflineConfig):
    """Behaviour cloning on a dataset."""


@dataclass(frozen=True)
class CloningOnline(CloningMethod, OnlineConfig):
    """Behaviour cloning of the dataset and of its own episodes."""


@dataclass(frozen=True)
class SafeDreamerOffline(SafeDreamerMethod, OfflineConfig):
    """SafeDreamer on a dataset."""


@dataclass(frozen=True)
class SafeDreamerOnline(SafeDreamerMethod, OnlineConfig):
    """SafeDreamer in the environment."""


@dataclass(frozen=True)
class FOSPOffline(FOSPMethod, OfflineConfig):
    """FOSP on a dataset."""


@dataclass(frozen=True)
class FOSPOnline(FOSPMethod, OnlineConfig):
    """FOSP in the environment, with a policy set."""

    policy_set: PolicySetSettings = setting("safe policy expansion")


SCHEMAS: Mapping[str, type[Config]] = {
    "collect": CollectConfig,
    "fosp offline": FOSPOffline,
    "fosp online": FOSPOnline,
    "safedreamer offline": SafeDreamerOffline,
    "safedreamer online": SafeDreamerOnline,
    "bc offline": CloningOffline,
    "bc online": CloningOnline,
    "dreamerv3 offline": DreamerOffline,
    "dreamerv3 online": DreamerOnline,
}


def schema_of(mode: object, method: object, where: str = "") -> type[Config]:
    """What a method reads in a mode; `where` begins the message of an error."""
    _check_name(mode, MODES, f"{where}mode")
    if mode == "collect":
        return CollectConfig
    _check_name(method, METHODS, f"{where}method")
    return SCHEMAS[f"{method} {mode}"]


def with_task_preset(
    presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> list[str]:
    """The names, and before them the preset of the task's own name, if it has one."""
    task = raw_value("task", presets, names, overrides)
    own = task in presets and presets[task].get("task") == task and task not in names
    return [task, *names] if own else list(names)


def choose_schema(
    presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> type[Config]:
    """The schema that the presets and the command line ask for."""
    mode, method = (raw_value(key, presets, names, overrides) for key in ("mode", "method"))
    return schema_of(mode, method, "--")


def resolve_config(presets: Presets, names: Sequence[str], overrides: Mapping[str, str]) -> Config:
    """The configuration of these presets and overrides; see `dreamer.config.resolve`.

    Between a recipe and the other presets comes the preset of the task's own name.
    """
    names = with_task_preset(presets, names, overrides)
    return resolve(choose_schema(presets, names, overrides), presets, names, overrides, SCHEMAS)


def read_by(schema: type[Config], settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings (dotted key -> value) that a schema has."""
    known = marks(schema, "may_change")
    return {key: value for key, value in settings.items() if key in known}


def config_from_dict(values: dict[str, Any], where: str) -> Config:
    """A configuration as a checkpoint holds it."""
    schema = schema_of(values.get("mode"), values.get("method"), f"{where}: ")
    return from_dict(schema, values, where)


def load_config(path: str | Path) -> Config:
    """The configuration in a run folder's config.yaml."""
    return config_from_dict(read_yaml(path), str(path))


def _check_name(name: object, known: Sequence[str], where: str) -> None:
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise UserError(f"{where} must be one of {', '.join(known)}, not {shown(name)}{hint}")
