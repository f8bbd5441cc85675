"""What open-loop action sequences bring in the world model (docs/concepts/algorithm.md 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dreamer.distributions import draw_noise, sample_one_hot
from dreamer.networks import Actor
from dreamer.types import Latent
from dreamer.world_model import WorldModel


def action_sequences(
    world_model: WorldModel,
    latent: Latent,
    first: Tensor,
    actors: Sequence[Actor],
    horizon: int,
) -> Tensor:
    """Continue first actions (N, P, A) in states (N,) -> (N, P, H, A), for good.

    Each actor proposed an equal share of the P, actor by actor, and goes on with its mean action in
    the states that follow without chance: z is a probability throughout, nothing is drawn.
    """
    state = Latent(*(x.unsqueeze(1).expand(-1, first.shape[1], *x.shape[1:]) for x in latent))
    actions = [first]
    while len(actions) < horizon:
        state = world_model.rssm.prior_step(state, actions[-1])
        shares = state.feat().chunk(len(actors), 1)
        means = [actor(feat).mean for actor, feat in zip(actors, shares, strict=True)]
        actions.append(torch.cat(means, 1).clamp(-1, 1))
    return torch.stack(actions, 2)


def look_ahead(
    world_model: WorldModel,
    latent: Latent,
    actions: Tensor,
    draws: int,
    value_r: Callable[[Tensor], Tensor],
    value_c: Callable[[Tensor], Tensor],
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Discounted reward and cost of action sequences (N, P, H, A), each (N, P, draws).

    Every sequence is followed from `draws` draws of the state (N,), whose z may be probabilities
    (then each draw is another state that the images allow) or a sample. The last states count with
    their values. All sequences of a state meet the same random numbers, so that their difference is
    that of the actions.
    """
    rssm, (N, P) = world_model.rssm, actions.shape[:2]
    deter, probs = (x[:, None, None].expand(-1, 1, draws, *x.shape[1:]) for x in latent)
    drawn = sample_one_hot(probs)  # (N, 1, draws, S, K)
    state = Latent(*(x.expand(-1, P, *x.shape[2:]) for x in (deter, drawn)))
    gain = deter.new_zeros(N, P, draws, dtype=torch.float32)
    cost, alive = torch.zeros_like(gain), torch.ones_like(gain)  # alive: discounted
    for action in actions.unbind(2):
        prior = rssm.prior_step(state, action.unsqueeze(2).expand(-1, -1, draws, -1))
        noise = draw_noise(prior.stoch[:, :1])  # the same for all proposals
        state = Latent(prior.deter, sample_one_hot(prior.stoch, noise))
        arrived = world_model.predict(state.feat())
        gain = gain + alive * arrived.reward
        cost = cost + alive * arrived.cost
        alive = alive * gamma * arrived.cont
    feat = state.feat()
    return gain + alive * value_r(feat), cost + alive * value_c(feat)
