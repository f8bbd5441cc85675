"""The whole policy on a corridor whose right half costs.

See docs/concepts/algorithm.md, Invariants.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamer.rssm import Imagined
from dreamer.types import Batch, Latent
from dreamer.world_model import Prediction
from tests.support.agents import make_agent

UPDATES, STEP = 200, 0.2
FAST = {
    "imagination__starts": "48",
    "actor__optimizer__lr": "3e-3",
    "critic__optimizer__lr": "5e-3",
    "cost_critic__optimizer__lr": "5e-3",
    "critic__tau": "0.1",
    "cost_critic__tau": "0.1",
    "reachability__optimizer__lr": "5e-3",
    "reachability__tau": "0.1",
}


def at(place: Tensor) -> Latent:
    """The state at places (...) in [-1, 1], in the sizes of a debug agent."""
    deter = torch.stack([place, 1 - place, place**2, (4 * place).tanh()], -1)
    deter = deter.repeat_interleave(4, -1)
    return Latent(deter, torch.zeros(*place.shape, 4, 4))


def costs(place: Tensor) -> Tensor:
    return (place > 0).float()


class Corridor:
    """A world model that is right: the first action moves, going right is tempting and costs."""

    def __init__(self) -> None:
        self.rssm = self

    def imagine_step(self, state: Latent, action: Tensor) -> Imagined:
        after = at((state.deter[..., 0] + STEP * action[..., 0]).clamp(-1, 1))
        return Imagined(after, prior=torch.ones(1, 1), noise=torch.ones(1))

    def predict(self, feat: Tensor) -> Prediction:
        place = feat[..., 0]
        cost = costs(place)
        return Prediction(0.1 * place, cost, violation=cost, cont=torch.ones_like(place))


def walks(B: int, T: int) -> tuple[Latent, Batch]:
    """Random walks with the actions that made them."""
    action = torch.rand(B, T, 2) * 2 - 1
    place = [torch.rand(B) * 2 - 1]
    for t in range(T - 1):
        place.append((place[-1] + STEP * action[:, t, 0]).clamp(-1, 1))
    places = torch.stack(place, 1)
    flags = torch.zeros(3, B, T)
    flags[0, :, 0] = 1
    return at(places), Batch({}, action, 0.1 * places, costs(places), *flags)


@pytest.mark.invariant(39)
def test_violation_probability_and_cost_values_rise_where_it_costs_and_the_policy_leaves():
    policy, world = make_agent(**FAST).policy, Corridor()
    right, left, entrance = (
        at(torch.linspace(*ends, 7)).feat() for ends in ((0.1, 0.9), (-0.9, -0.5), (0.05, 0.5))
    )
    violation_probability, cost_value = (
        policy.reachability.violation_probability,
        policy.cost_critic.value,
    )
    assert violation_probability(right).max() < 0.2
    assert policy.actor(entrance).mean[:, 0].max() > 0
    for _ in range(UPDATES):
        metrics = policy.update(world, *walks(8, 12))
    assert all(torch.isfinite(value) for value in metrics.values())
    assert violation_probability(right).min() > 0.8
    assert violation_probability(left).max() < 0.4
    assert cost_value(right).mean() > max(0.7, 3 * cost_value(left).mean().item())
    assert policy.actor(entrance).mean[:, 0].max() < -0.5
