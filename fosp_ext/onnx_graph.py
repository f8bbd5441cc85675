"""One acting step of an agent as an ONNX graph without chance, for fosp_ext/runtime."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.agent import Agent
from dreamer.errors import UserError
from dreamer.types import Latent
from fosp_ext.policy_set import PolicySet
from fosp_ext.runtime.file import BLANK, DIGEST, KEY, PolicyFacts, seal

OPSET = 18
STATE = ("is_first", "deter", "stoch", "action_before", "noise")  # inputs before the images
MISSING = "writing ONNX files needs the packages onnx and onnxscript: pip install onnx onnxscript"


class ActingStep(nn.Module):
    """From the state before and new images to the action, the state after and the estimates.

    `noise` (1, S, K) is Gumbel noise, with which a state that is sampled is drawn; zeros take the
    likeliest classes. An agent that reads probabilities takes no notice of it.
    """

    def __init__(self, agent: Agent, cameras: Sequence[str]):
        super().__init__()
        self.agent, self.cameras = agent, tuple(cameras)

    def forward(
        self,
        is_first: Tensor,
        deter: Tensor,
        stoch: Tensor,
        action_before: Tensor,
        noise: Tensor,
        *images: Tensor,
    ) -> tuple[Tensor, ...]:
        """Shapes (1, ...); images (1, size, size, 3) uint8, in the order of the cameras."""
        model, policy = self.agent.world_model, self.agent.policy
        obs = dict(zip(self.cameras, (image.unsqueeze(1) for image in images), strict=True))
        embed = model.encoder(obs)[:, 0]
        before = Latent(deter, stoch)
        after, post = model.rssm.posterior_step(before, action_before, embed, is_first)
        latent = Latent(after, post if model.rssm.reads_probabilities else drawn(post, noise))
        action, estimates = policy.act(model, latent, explore=False)
        return (action, latent.deter, latent.stoch, *estimates.values())


def drawn(probs: Tensor, noise: Tensor) -> Tensor:
    """One-hot samples of categoricals (..., K), by Gumbel noise of the same shape."""
    index = (probs.log() + noise).argmax(-1)
    return F.one_hot(index, probs.shape[-1]).to(probs.dtype)


def acting_inputs(agent: Agent, cameras: Sequence[str], size: int) -> tuple[Tensor, ...]:
    """Inputs of the first step of an episode, with black images and without noise."""
    state = agent.initial(1)
    images = (torch.zeros(1, size, size, 3, dtype=torch.uint8) for _ in cameras)
    stoch = state.latent.stoch.contiguous()
    noise = torch.zeros_like(stoch)
    return (torch.ones(1), state.latent.deter.contiguous(), stoch, state.action, noise, *images)


def check_exportable(agent: Agent) -> None:
    """Refuse an agent whose choice draws numbers of its own."""
    policy = agent.policy
    if isinstance(policy, PolicySet):
        settings = policy.choice.settings
        if settings.score != "q" or settings.proposals > 1:
            raise UserError(
                "an agent that imagines, or proposes several actions, to choose one has no ONNX "
                "graph; export it as .pt"
            )


def estimate_names(agent: Agent, cameras: Sequence[str], size: int) -> tuple[str, ...]:
    """Names of the policy's estimates, in the order in which the graph returns them."""
    *_, images = acting_inputs(agent, cameras[:1], size)
    obs = dict.fromkeys(cameras, images)
    _, _, estimates = agent.act(obs, torch.ones(1), agent.initial(1), explore=False)
    return tuple(estimates)


@torch.no_grad()
def onnx_file(agent: Agent, facts: PolicyFacts) -> bytes:
    """The sealed file of an agent in float32 on the CPU."""
    try:
        import onnx
        import onnxscript  # noqa: F401  # which the exporter needs
    except ImportError as error:
        raise UserError(MISSING) from error
    step = ActingStep(agent, facts.cameras).eval()
    program = torch.onnx.export(
        step,
        acting_inputs(agent, facts.cameras, facts.size),
        input_names=[*STATE, *facts.cameras],
        output_names=["action", "deter_after", "stoch_after", *facts.estimates],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {KEY: facts.to_json(), DIGEST: BLANK})
    return seal(model.SerializeToString())
