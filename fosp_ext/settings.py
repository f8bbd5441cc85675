"""The sections of train.py's settings: types and meanings; the values live in configs.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from dreamer.config import setting
from dreamer.settings import (
    AGENT,
    BOTH,
    MODEL,
    ActorSettings,
    CriticSettings,
    ImaginationSettings,
    NetSize,
    OptimizerSettings,
)
from dreamer.training import settings as training


@dataclass(frozen=True)
class EnvSettings:
    """The environment and its cameras."""

    cameras: tuple[str, ...] = setting(
        "camera names, in the order the encoder sees them", must_match=BOTH
    )
    vectors: tuple[str, ...] = setting(
        "names of low-dimensional observations that are encoded as well; custom tasks have some",
        must_match=BOTH,
        before=(),
    )
    size: int = setting("side of the square images, in pixels", minimum=8, must_match=BOTH)
    action_repeat: int = setting("simulator steps per agent step", minimum=1, must_match=BOTH)
    render: str = setting(
        "exact matches the task's own pixels, fast leaves out what 64x64 does not need",
        choices=("fast", "exact"),
        must_match=BOTH,
    )
    variant: str = setting(
        "unseen variant of the task, or several: a+b; see --help-variants", must_match=(MODEL,)
    )


@dataclass(frozen=True)
class TrainEnvSettings(EnvSettings):
    """The environment of a training."""

    violation: float = setting(
        "cost of a row from which on it violates the constraint", minimum=1e-6, must_match=BOTH
    )


@dataclass(frozen=True)
class DatasetFile(training.DatasetFile):
    """Where recorded episodes are."""

    path: str = setting("HDF5 file; empty means logdir/<task>/dataset.h5, recorded if missing")


@dataclass(frozen=True)
class RecordingSettings(DatasetFile):
    """How episodes are recorded by scripted policies."""

    episodes: int = setting("episodes to record", minimum=1)
    mix: dict[str, float] = setting(
        "share of each scripted policy, e.g. safe=0.6,unsafe=0.2,random=0.2"
    )
    noise: float = setting("largest standard deviation of action noise while recording", minimum=0)
    min_speed: float = setting("slowest speed factor while recording", minimum=0, maximum=1)
    field_of_view: str = setting(
        "what scripted policies act on: what the cameras showed lately, or all there is",
        choices=("cameras", "all"),
    )
    workers: int = setting(
        "recording processes; 0 takes every core", minimum=0, decides_result=False
    )


@dataclass(frozen=True)
class StorageSettings(DatasetFile, training.StorageSettings):
    """How recorded episodes are read."""


@dataclass(frozen=True)
class OfflineDatasetSettings(StorageSettings, RecordingSettings):
    """Recorded episodes of an offline run, which records them where there are none."""


@dataclass(frozen=True)
class OfflineRunSettings(training.OfflineRunSettings):
    """How long an offline run is."""

    pretrain: float = setting(
        "world-model pretraining: share of the updates, counted when the run begins, in which the "
        "world model learns alone; 1: nothing else is learned",
        minimum=0,
        maximum=1,
        may_change=False,
    )
    freeze: bool = setting(
        "after the pretraining the world model stays as it is, which saves the time of its updates",
        may_change=False,
        before=False,
    )


@dataclass(frozen=True)
class CostHeadSettings:
    """The cost decoder of the world model."""

    scale: float = setting("weight of its loss among those of the world model", minimum=0)
    weight: float = setting("weight of the loss where the recorded cost is at least 1", minimum=1)


@dataclass(frozen=True)
class SafeImaginationSettings(ImaginationSettings):
    """How imagined rollouts of safe agents are made."""

    risky: float = setting(
        "share of the drawn starts that a recorded violation soon follows, in batches with both "
        "kinds of rows; has no effect with starts 0, which takes every row once",
        minimum=0,
        maximum=1,
    )
    worst_cost: bool = setting(
        "imagined costs and violations are those of the prior that predicts the highest; needs "
        "priors > 1",
        before=False,
    )


@dataclass(frozen=True)
class SafeActorSettings(ActorSettings):
    """The policy's safe objective (docs/concepts/algorithm.md 5.3)."""

    imagined_weight: float = setting("weight of the pathwise term in imagination", minimum=0)
    in_sample_weight: float = setting("weight of the imitation of good recorded actions", minimum=0)
    advantage: str = setting(
        "q differentiates Q at each imagined state, lambda the whole rollout",
        choices=("q", "lambda"),
    )
    recorded_advantage: str = setting(
        "recorded actions are judged by Q, or by what the rows after them brought (lambda)",
        choices=("q", "lambda"),
    )
    beta_r: float = setting("inverse temperature of reward advantages", minimum=0)
    beta_c: float = setting("inverse temperature of cost advantages", minimum=0)
    clip_r: float = setting("largest weight of a recorded action in feasible states", minimum=0)
    clip_c: float = setting("largest weight of a recorded action in infeasible states", minimum=0)
    gate: str = setting(
        "a recorded action counts as safe by its cost value, or by its cost advantage",
        choices=("value", "advantage"),
    )
    cost_tolerance: float = setting(
        "cost value or advantage up to which a recorded action counts as safe", minimum=0
    )


@dataclass(frozen=True)
class InSampleCriticSettings(CriticSettings):
    """A critic that learns from recorded actions (docs/concepts/algorithm.md 3.3)."""

    expectile: float = setting(
        "0.5 is the mean; towards 1 the value of the best supported action", minimum=0, maximum=1
    )
    imagined_expectile: float = setting(
        "the same for imagined actions of the policy", minimum=0, maximum=1
    )
    real_weight: float = setting("weight of the losses on recorded pairs", minimum=0)
    split_value: bool = setting(
        "in-sample values V and Q are networks of their own, which recorded rows alone teach",
        must_match=(AGENT,),
    )


@dataclass(frozen=True)
class ReachabilitySettings:
    """The estimate whether a violation can still be avoided (docs/concepts/algorithm.md 4)."""

    enabled: bool = setting(
        "false: no estimate is learned, every state counts as feasible", must_match=(AGENT,)
    )
    net: NetSize = setting("reachability network", must_match=(AGENT,))
    mu: float = setting("discount per agent step of a coming violation", minimum=0, maximum=1)
    lam: float = setting("mixing of look-ahead lengths", minimum=0, maximum=1)
    tau: float = setting("share by which the target network moves per update", minimum=0, maximum=1)
    bias: float = setting("first output before the sigmoid")
    real_expectile: float = setting(
        "below 0.5 recorded rows are judged by the safest supported policy", minimum=0, maximum=1
    )
    real_weight: float = setting("weight of the loss on recorded rows", minimum=0)
    optimizer: OptimizerSettings = setting("optimiser of the reachability network")


@dataclass(frozen=True)
class LagrangeSettings:
    """The augmented Lagrangian (docs/concepts/algorithm.md 5.4)."""

    enabled: bool = setting("false: the constraint on cost is left out", must_match=(AGENT,))
    multiplier: float = setting("first multiplier", minimum=0)
    penalty: float = setting("first penalty coefficient", minimum=0)
    growth: float = setting("relative rise of the penalty per update", minimum=0)
    cost_limit: float = setting(
        "limit on the summed imagined cost returns; not an episode budget", minimum=0
    )
    max_multiplier: float = setting("cap of the multiplier", minimum=0)


@dataclass(frozen=True)
class CloningSettings:
    """The policy of behaviour cloning."""

    net: NetSize = setting("policy network", must_match=(AGENT,))
    optimizer: OptimizerSettings = setting("optimiser of the policy")


@dataclass(frozen=True)
class PolicySetSettings:
    """The frozen offline policy beside the learning one, online (docs/concepts/algorithm.md 6)."""

    enabled: bool = setting("false: the learning policy acts alone")
    kappa: float = setting("reward that a unit of cost is worth in the choice", minimum=0)
    alpha: float = setting("greed of the choice while exploring; 0 is uniform", minimum=0)
    scaled: bool = setting(
        "while exploring, scores are divided by the running spread of proposals of one state",
        before=False,
    )
    proposals: int = setting("actions that each policy proposes at every step", minimum=1, before=1)
    score: str = setting(
        "proposals are judged by Q, or by imagining open-loop where they lead",
        choices=("q", "rollout"),
        before="q",
    )
    horizon: int = setting("steps of such a rollout", minimum=1, before=5)
    draws: int = setting("draws of the state that each rollout starts from", minimum=1, before=8)
    draw_cost: str = setting(
        "the cost of a proposal over its draws", choices=("mean", "max"), before="mean"
    )


@dataclass(frozen=True)
class OnlineSettings(training.OnlineSettings):
    """Learning in the environment (docs/concepts/algorithm.md 7.3)."""

    allow_task_mismatch: bool = setting(
        "go on in another task than the offline run's", decides_result=False
    )
    offline_frac: str = setting("share of each batch from the dataset, or pool: by their sizes")
    warning: float = setting(
        "violation probability above which a step warns of a coming violation",
        minimum=0,
        maximum=1,
    )
