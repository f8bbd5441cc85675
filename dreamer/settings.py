"""Types and meanings of the agent's settings; the values live in configs.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from dreamer.config import setting

AGENT, MODEL = "agent", "world model"  # what one run may take from another: `must_match`
BOTH = (AGENT, MODEL)


@dataclass(frozen=True)
class OptimizerSettings:
    """One Adam optimiser."""

    lr: float = setting("step size", minimum=0)
    eps: float = setting("added to the root of the second moment", minimum=0)
    clip: float = setting("largest global gradient norm", minimum=0)
    half_life: int = setting(
        "steps after which the step size is half; 0: constant", minimum=0, before=0
    )


@dataclass(frozen=True)
class NetSize:
    """One MLP."""

    layers: int = setting("hidden layers", minimum=1)
    units: int = setting("width of each hidden layer", minimum=1)


@dataclass(frozen=True)
class RSSMSettings:
    """Sizes of the recurrent state-space model."""

    deter: int = setting("size of the deterministic (GRU) state", minimum=1)
    hidden: int = setting("width of the layers around the GRU", minimum=1)
    stoch: int = setting("number of categorical variables", minimum=1)
    classes: int = setting("classes of each categorical variable", minimum=2)
    unimix: float = setting("share of uniform probability mixed in", minimum=0, maximum=1)
    read: str = setting(
        "what policy and critics read of a state that was seen",
        choices=("probabilities", "sample"),
        must_match=(AGENT,),
        before="sample",
    )
    imagine: str = setting(
        "what imagination carries on",
        choices=("probabilities", "samples"),
        must_match=(AGENT,),
        before="samples",
    )
    priors: int = setting(
        "prior heads on the one GRU; from 2 on they can disagree", minimum=1, before=1
    )


@dataclass(frozen=True)
class OvershootSettings:
    """Losses of the scalar heads after steps without an image."""

    steps: int = setting("steps without an image; 0: none of these losses", minimum=0, before=0)
    every: int = setting("of so many rows, one is a start", minimum=1, before=4)
    scale: float = setting("weight of these losses", minimum=0, before=1)


@dataclass(frozen=True)
class WorldModelSettings:
    """Everything the world model needs to know besides its inputs."""

    rssm: RSSMSettings = setting("recurrent state-space model", must_match=BOTH)
    heads: NetSize = setting("reward, cost and continue heads", must_match=BOTH)
    cnn_depth: int = setting("channels of the first convolution", minimum=1, must_match=BOTH)
    context: int = setting(
        "first rows of each window that only lead the state to where learning begins",
        minimum=0,
        before=0,
    )
    recon_every: int = setting(
        "images are drawn and compared in one of so many rows; the others save time", minimum=1
    )
    colour_rarity: float = setting(
        "pixels weigh as the frequency of their colour to the power of minus this",
        minimum=0,
        before=0,
    )
    overshoot: OvershootSettings = setting("rollouts along recorded actions that heads learn from")
    free_nats: float = setting("KL divergence below which nothing is pulled", minimum=0)
    dyn_scale: float = setting("weight of the KL that trains the prior", minimum=0)
    rep_scale: float = setting("weight of the KL that trains the posterior", minimum=0)
    optimizer: OptimizerSettings = setting("optimiser of the whole world model")


@dataclass(frozen=True)
class ImaginationSettings:
    """How imagined rollouts are made and summed up."""

    horizon: int = setting("imagined steps", minimum=1)
    starts: int = setting("start states per update, drawn from the batch; 0 takes all", minimum=0)
    gamma: float = setting("discount per agent step", minimum=0, maximum=1)
    lam: float = setting("mixing of n-step returns", minimum=0, maximum=1)
    disagreement: float = setting(
        "imagined reward falls by so much per nat by which the priors disagree; needs priors > 1",
        minimum=0,
        before=0,
    )


@dataclass(frozen=True)
class ActorSettings:
    """The policy network and its plain DreamerV3 objective."""

    net: NetSize = setting("policy network", must_match=(AGENT,))
    entropy: float = setting("weight of the policy's entropy", minimum=0)
    optimizer: OptimizerSettings = setting("optimiser of the policy")


@dataclass(frozen=True)
class CriticSettings:
    """What every critic has."""

    net: NetSize = setting("critic networks", must_match=(AGENT,))
    tau: float = setting("share by which the target network moves per update", minimum=0, maximum=1)
    target_weight: float = setting("weight of the pull towards the target network", minimum=0)
    optimizer: OptimizerSettings = setting("optimiser of the critic")
