"""Invariants of the augmented Lagrangian (docs/concepts/algorithm.md, 5.4 and Invariants)."""

from __future__ import annotations

import pytest
import torch

from dreamer.imagination import choose_starts, imagine
from fosp_ext.actor_critic import RolloutValues, SafeActorCritic
from fosp_ext.lagrange import AugmentedLagrangian
from fosp_ext.transitions import real_transitions
from tests.support.agents import make_agent, make_batch

LIMIT, MULTIPLIER, PENALTY = 2.0, 0.5, 0.01
LIMITED = {
    "lagrange__cost_limit": str(LIMIT),
    "lagrange__multiplier": str(MULTIPLIER),
    "lagrange__penalty": str(PENALTY),
}


def psi(cost: float, **settings: float) -> tuple[float, float, AugmentedLagrangian]:
    """Loss and slope at a constraint signal, and the Lagrangian after it."""
    lagrangian = AugmentedLagrangian(**settings).double()
    signal = torch.tensor(cost, dtype=torch.float64, requires_grad=True)
    loss, weight = lagrangian.step_(signal)
    (slope,) = torch.autograd.grad(loss, signal)
    assert weight.equal(slope)
    return loss.item(), slope.item(), lagrangian


@pytest.mark.invariant(29)
def test_the_slope_is_the_cost_weight_everywhere():
    multiplier, penalty, limit = 0.3, 0.05, 1.5
    settings = {"multiplier": multiplier, "penalty": penalty, "cost_limit": limit}
    for cost in torch.linspace(-20, 20, 81).tolist():
        m = multiplier + penalty * (cost - limit)
        _, slope, after = psi(cost, **settings)
        assert slope == pytest.approx(max(0.0, m), abs=1e-6)
        assert after.multiplier.item() == pytest.approx(max(0.0, m), abs=1e-6)


@pytest.mark.invariant(29)
@pytest.mark.parametrize(("multiplier", "penalty"), [(0.2, 0.1), (1e-3, 0.5), (5.0, 1.0)])
def test_loss_and_slope_are_continuous_where_the_weight_vanishes(multiplier, penalty):
    edge, step = -multiplier / penalty, 1e-5
    settings = {"multiplier": multiplier, "penalty": penalty}
    below, flat, _ = psi(edge - step, **settings)
    above, rising, _ = psi(edge + step, **settings)
    expected = -(multiplier**2) / (2 * penalty)
    assert below == pytest.approx(expected, rel=1e-5, abs=1e-10)
    assert above == pytest.approx(expected, rel=1e-5, abs=1e-10)
    assert flat == 0
    assert rising == pytest.approx(penalty * step, rel=0.05)


@pytest.mark.invariant(29)
@pytest.mark.parametrize("cost", [0.0, -0.1, -50.0])
def test_without_a_multiplier_a_kept_limit_costs_nothing(cost):
    loss, slope, after = psi(cost, multiplier=0.0, penalty=0.1)
    assert loss == slope == after.multiplier.item() == 0


@pytest.mark.invariant(29)
def test_the_multiplier_stays_positive_and_the_penalty_rises_to_one():
    lagrangian = AugmentedLagrangian(multiplier=0.1, penalty=0.4, growth=0.01)
    g = torch.Generator().manual_seed(0)
    before = 0.4
    for cost in (3 * torch.randn(300, generator=g)).tolist():
        lagrangian.step_(torch.tensor(cost))
        assert 0 <= lagrangian.multiplier <= lagrangian.max_multiplier
        assert before <= lagrangian.penalty <= 1
        before = lagrangian.penalty.item()
    assert before == 1


def scored(agent) -> tuple[SafeActorCritic, tuple]:
    """The policy with a rollout, its values and transitions, ready for `update_actor`."""
    policy, batch = agent.policy, make_batch()
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, 0)
    traj = imagine(agent.world_model, policy.actor, starts, horizon=5, gamma=0.9)
    values = policy.rollout_values(traj)
    g = torch.Generator().manual_seed(1)
    values = values._replace(
        feasibility=torch.rand(32, 5, generator=g),
        cost_return=values.cost_return + 5 * torch.rand(32, 5, generator=g),
    )
    return policy, (traj, values, real_transitions(latent, batch))


@pytest.mark.invariant(30)
def test_the_constraint_sums_over_the_horizon():
    """It is the mean times the horizon, and the limit comes off afterwards."""
    policy, (traj, values, real) = scored(make_agent(**LIMITED))
    metrics = policy.update_actor(traj, values, real)
    average = (values.feasibility * values.cost_return).mean().detach()
    torch.testing.assert_close(metrics["constraint"], 5 * average)
    g = 5 * average - LIMIT
    torch.testing.assert_close(policy.lagrangian.multiplier, MULTIPLIER + PENALTY * g)
    torch.testing.assert_close(metrics["penalty"], MULTIPLIER * g + PENALTY / 2 * g**2)


@pytest.mark.invariant(31)
def test_where_nothing_is_feasible_the_constraint_is_minus_the_limit():
    policy, (traj, values, real) = scored(make_agent(**LIMITED))
    hopeless: RolloutValues = values._replace(feasibility=torch.zeros(32, 5))
    metrics = policy.update_actor(traj, hopeless, real)
    assert metrics["constraint"] == 0
    m = MULTIPLIER - PENALTY * LIMIT
    torch.testing.assert_close(policy.lagrangian.multiplier, torch.tensor(m))
    loss = torch.tensor(-MULTIPLIER * LIMIT + PENALTY / 2 * LIMIT**2)
    torch.testing.assert_close(metrics["penalty"], loss)
