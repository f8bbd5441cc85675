"""Types and meanings of every setting of train.py; the values live in configs.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from dreamer.config import setting
from dreamer.settings import (
    ActorSettings,
    CriticSettings,
    ImaginationSettings,
    NetSize,
    OptimizerSettings,
    WorldModelSettings,
)

MODES = ("collect", "offline", "online")
METHODS = ("fosp", "safedreamer", "bc", "dreamerv3")
SIZES = ("auto", "fosp", "small", "cpu", "debug")
ADDED = {  # settings that older runs do not name, with the value that is as it was
    "env.variant": "none",
    "augment": "none",
    "dataset.field_of_view": "all",
    "actor.recorded_advantage": "q",
    "world_model.recon_every": 1,
    "imagination.risky": 0.0,
    "cost_head.scale": 1.0,
    "reachability.enabled": True,
    "lagrange.enabled": True,
    "run.profile": 0,
    "run.pretrain": 0.0,
    "run.model_from": "",
    "compile": "off",
    "online.source": "",
    "online.allow_task_mismatch": False,
    "online.steps": 187_500,
    "online.envs": 4,
    "online.ratio": 0.5,
    "online.capacity": 200_000,
    "online.offline_frac": "pool",
    "online.in_sample_weight": 0.0,
    "online.real_weight": 0.0,
    "online.reachability_real_weight": 1.0,
    "online.reachability_real_expectile": 0.5,
    "online.warning": 0.5,
    "policy_set.enabled": True,
    "policy_set.kappa": 0.1,
    "policy_set.alpha": 5.0,
}


@dataclass(frozen=True)
class EnvSettings:
    """The environment and its cameras."""

    cameras: tuple[str, ...] = setting("camera names, in the order the encoder sees them")
    size: int = setting("side of the square images, in pixels", minimum=8)
    action_repeat: int = setting("simulator steps per agent step", minimum=1)
    render: str = setting(
        "exact matches the task's own pixels, fast leaves out what 64x64 does not need",
        choices=("fast", "exact"),
    )
    variant: str = setting("unseen variant of the task, or several: a+b; see --help-variants")


@dataclass(frozen=True)
class DatasetSettings:
    """Where recorded episodes are, or how they are recorded."""

    path: str = setting("HDF5 file; empty means logdir/<task>/dataset.h5, recorded if missing")
    episodes: int = setting("episodes to record", minimum=1)
    mix: dict[str, float] = setting("share of each policy, e.g. safe=0.6,unsafe=0.2,random=0.2")
    noise: float = setting("largest standard deviation of action noise while recording", minimum=0)
    min_speed: float = setting("slowest speed factor while recording", minimum=0, maximum=1)
    field_of_view: str = setting(
        "what scripted policies act on: what the cameras showed lately, or all there is",
        choices=("cameras", "all"),
    )
    workers: int = setting("recording processes; 0 takes every core", minimum=0)
    storage: str = setting(
        "ram decodes the images once, disk streams them, auto takes ram up to ram_limit_gb",
        choices=("auto", "ram", "disk"),
    )
    ram_limit_gb: float = setting("largest decoded dataset that auto keeps in memory", minimum=0)
    holdout: float = setting(
        "share of episodes kept out of training, for reports", minimum=0, maximum=0.9
    )


@dataclass(frozen=True)
class RunSettings:
    """How long a run is and what it does on the way; counted in gradient updates."""

    updates: int = setting("gradient updates of the offline phase", minimum=1)
    pretrain: float = setting(
        "share of these, from the first on, in which the world model learns alone, so that "
        "policy learns from a model that is worth it; 1: nothing else is learned",
        minimum=0,
        maximum=1,
    )
    model_from: str = setting(
        "run folder or checkpoint whose world model a new run goes on from, as if it had learned "
        "it itself; of the same data, seed and world model"
    )
    batch_size: int = setting("windows per batch, in each process", minimum=1)
    batch_length: int = setting("rows per window", minimum=2)
    log_every: int = setting("updates between lines of metrics.jsonl", minimum=1)
    report_every: int = setting(
        "updates between held-out losses and open-loop videos; 0 never", minimum=0
    )
    eval_every: int = setting("updates between evaluations in the simulator; 0 never", minimum=0)
    eval_episodes: int = setting("episodes per evaluation", minimum=1)
    save_every: int = setting("updates between checkpoints", minimum=1)
    keep_checkpoints: int = setting("checkpoints kept on disk", minimum=1)
    profile: int = setting("updates of this start to trace (--profile takes 10); 0 none", minimum=0)


@dataclass(frozen=True)
class CostHeadSettings:
    """The cost decoder of the world model."""

    scale: float = setting("weight of its loss among those of the world model", minimum=0)
    weight: float = setting("weight of the loss where the recorded cost is at least 1", minimum=1)


@dataclass(frozen=True)
class SafeImaginationSettings(ImaginationSettings):
    """How imagined rollouts of safe agents are made."""

    risky: float = setting(
        "share of the drawn starts that a recorded violation soon follows; needs starts > 0",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class SafeActorSettings(ActorSettings):
    """The policy's safe objective (docs/algorithm.md 5.3)."""

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
    """A critic that learns from recorded actions (docs/algorithm.md 3.3)."""

    expectile: float = setting(
        "0.5 is the mean; towards 1 the value of the best supported action", minimum=0, maximum=1
    )
    imagined_expectile: float = setting(
        "the same for imagined actions of the policy", minimum=0, maximum=1
    )
    real_weight: float = setting("weight of the losses on recorded pairs", minimum=0)
    split_value: bool = setting("separate value heads for recorded and imagined actions")


@dataclass(frozen=True)
class ReachabilitySettings:
    """The estimate whether a violation can still be avoided (docs/algorithm.md 4)."""

    enabled: bool = setting("false: no estimate is learned, every state counts as feasible")
    net: NetSize = setting("reachability network")
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
    """The augmented Lagrangian (docs/algorithm.md 5.4)."""

    enabled: bool = setting("false: cost has no weight, the constraint is left out")
    multiplier: float = setting("first multiplier", minimum=0)
    penalty: float = setting("first penalty coefficient", minimum=0)
    growth: float = setting("relative rise of the penalty per update", minimum=0)
    cost_limit: float = setting(
        "limit on the summed imagined cost returns; not an episode budget", minimum=0
    )
    max_multiplier: float = setting("cap of the multiplier", minimum=0)


@dataclass(frozen=True)
class PolicySetSettings:
    """The frozen offline policy beside the learning one, online (docs/algorithm.md 6)."""

    enabled: bool = setting("false: the learning policy acts alone; only fosp has a set")
    kappa: float = setting("reward that a unit of cost is worth in the choice", minimum=0)
    alpha: float = setting("greed of the choice while exploring; 0 is uniform", minimum=0)


@dataclass(frozen=True)
class OnlineSettings:
    """Fine-tuning in the environment (docs/algorithm.md 7.3)."""

    source: str = setting("offline run folder, or checkpoint of one, to go on from; or: --from")
    allow_task_mismatch: bool = setting("go on in another task than the offline run's")
    steps: int = setting("agent steps in all environments together", minimum=1)
    envs: int = setting("environments, each in a process of its own", minimum=1)
    ratio: float = setting("gradient updates per agent step", minimum=0)
    capacity: int = setting("rows of own episodes in memory, the oldest leave first", minimum=1)
    offline_frac: str = setting("share of each batch from the dataset, or pool: by their sizes")
    in_sample_weight: float = setting("takes the place of actor.in_sample_weight", minimum=0)
    real_weight: float = setting("takes the place of real_weight of both critics", minimum=0)
    reachability_real_weight: float = setting(
        "takes the place of reachability.real_weight", minimum=0
    )
    reachability_real_expectile: float = setting(
        "takes the place of reachability.real_expectile", minimum=0, maximum=1
    )
    warning: float = setting(
        "violation probability above which a coming violation counts as warned of",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class Config:
    """One run, completely."""

    mode: str = setting("what to do", choices=MODES)
    method: str = setting("which agent to train", choices=METHODS)
    size: str = setting("which size preset is in force; auto picks by hardware", choices=SIZES)
    task: str = setting("Safety-Gymnasium id, or MODULE:NAME (docs/custom_environments.md)")
    logdir: str = setting("run folder; {task}, {preset} and {seed} are filled in")
    seed: int = setting("seed of networks, batches and imagination", minimum=0)
    device: str = setting("auto, cpu, cuda or cuda:N")
    precision: str = setting(
        "type of matrix products; auto is bfloat16 where the processor has it",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: str = setting(
        "torch.compile for the steps of the RSSM that an update repeats; auto is on for CUDA only",
        choices=("auto", "on", "off"),
    )
    threads: int = setting("CPU threads of torch in each process; 0 takes every core", minimum=0)
    augment: str = setting(
        "random change of training images: of place (shift), or of light and hues (colour)",
        choices=("none", "shift", "colour"),
    )
    env: EnvSettings = setting("environment")
    dataset: DatasetSettings = setting("recorded episodes")
    run: RunSettings = setting("length and habits of the run")
    world_model: WorldModelSettings = setting("world model")
    cost_head: CostHeadSettings = setting("cost decoder")
    imagination: SafeImaginationSettings = setting("imagined rollouts")
    actor: SafeActorSettings = setting("policy")
    critic: InSampleCriticSettings = setting("reward critic")
    cost_critic: InSampleCriticSettings = setting("cost critic")
    reachability: ReachabilitySettings = setting("reachability estimate")
    lagrange: LagrangeSettings = setting("augmented Lagrangian")
    online: OnlineSettings = setting("online phase")
    policy_set: PolicySetSettings = setting("safe policy expansion, in the online phase")
