"""Targets of the safe critics and weights of the safe actor (docs/concepts/algorithm.md 3 to 5)."""

import math

import numpy as np
import pytest
import torch

from dreamer.distributions import TwoHot, symlog_bins
from dreamer.functional import symexp
from fosp_ext.choice import preference, selection_probabilities
from fosp_ext.lagrange import AugmentedLagrangian
from fosp_ext.targets import (
    expectile_weight,
    policy_weight,
    reachability_target,
    real_q_target,
)


@pytest.mark.invariant(15)
def test_expectile_weight_by_hand():
    weight = expectile_weight(torch.tensor([-1.0, 0.0, 2.0]), 0.9)
    torch.testing.assert_close(weight, torch.tensor([0.1, 0.9, 0.9]))
    torch.testing.assert_close(expectile_weight(torch.randn(9), 0.5), torch.full((9,), 0.5))


def fit_expectile(samples, expectile):
    value = torch.zeros(1, dtype=torch.float64)
    for _ in range(500):  # the stationary point is the weighted mean of its own weights
        weight = expectile_weight(samples - value, expectile)
        value = (weight * samples).sum() / weight.sum()
    return value


@pytest.mark.invariant(16)
def test_expectiles_rise_from_least_to_greatest_sample():
    samples = torch.tensor([0.0, 1.0, 5.0, 10.0], dtype=torch.float64)
    fits = [fit_expectile(samples, tau).item() for tau in (1e-6, 0.2, 0.5, 0.8, 1 - 1e-6)]
    assert fits == sorted(fits)
    assert math.isclose(fits[2], 4.0)
    assert fits[0] < 0.01
    assert fits[-1] > 9.99


@pytest.mark.invariant(17)
@pytest.mark.parametrize(("sign", "expected"), [(+1, 5.81), (-1, 0.615)])
def test_categorical_expectile_of_two_values(sign, expected):
    """One state, Q in {0, 10} equally often: reward leans up, cost down.

    See docs/concepts/algorithm.md 3.3.
    """
    bins, q = symlog_bins(), torch.tensor([0.0, 10.0])
    logits = torch.zeros(255, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")
    for _ in range(30):  # alternate: weights from the present value, then the best logits for them
        value = symexp((logits.softmax(-1) * bins).sum()).detach()
        weight = expectile_weight(sign * (q - value), 0.8)

        def closure(weight=weight):
            optimizer.zero_grad()
            loss = (weight * TwoHot(logits.expand(2, -1), bins).loss(q)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    assert value.item() == pytest.approx(expected, abs=0.01)


@pytest.mark.invariant(14)
def test_real_q_target_on_a_chain():
    # s0 -a-> s1 with reward 3; a time limit bootstraps, a true end does not
    target = real_q_target(
        torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0]), torch.tensor([10.0, 10.0]), 0.9
    )
    torch.testing.assert_close(target, torch.tensor([12.0, 3.0]))


@pytest.mark.invariant(19)
def test_reachability_target_by_hand():
    violation = torch.tensor([[0.0, 0.5, 0.0]])
    cont = torch.tensor([[1.0, 1.0, 0.0]])
    value = torch.tensor([[0.9, 0.8, 0.4, 0.6]])
    # h=2 ends: 0; h=1: 0.5 + 0.5*0.5*(0.5*0.4 + 0.5*0) = 0.55
    # h=0: 0.5*(0.5*0.8 + 0.5*0.55) = 0.3375
    out = reachability_target(violation, cont, value, mu=0.5, lam=0.5)
    torch.testing.assert_close(out, torch.tensor([[0.3375, 0.55, 0.0]]))


@pytest.mark.invariant(19)
def test_reachability_target_equals_brute_force_maximum():
    g = torch.Generator().manual_seed(0)
    violation = (torch.rand(50, 8, generator=g) < 0.2).float()
    out = reachability_target(violation, torch.ones(50, 8), torch.zeros(50, 9), mu=0.9, lam=1.0)
    for n in range(50):
        for h in range(8):
            ahead = [0.9 ** (k - h) * violation[n, k] for k in range(h, 8)]
            assert out[n, h] == pytest.approx(float(max(ahead)), abs=1e-6)


@pytest.mark.invariant(20)
def test_reachability_target_is_a_probability_and_monotone():
    g = torch.Generator().manual_seed(2)
    violation = torch.rand(30, 6, generator=g)
    cont, value = torch.ones(30, 6), torch.rand(30, 7, generator=g)
    base = reachability_target(violation, cont, value, 0.99, 0.95)
    assert ((base >= 0) & (base <= 1)).all()
    worse = violation.clone()
    worse[:, 3] = 1.0
    raised = reachability_target(worse, cont, value, 0.99, 0.95)
    assert (raised[:, :4] >= base[:, :4] - 1e-6).all()
    torch.testing.assert_close(raised[:, 4:], base[:, 4:])
    assert (raised[:, 3] == 1).all()
    higher = reachability_target(violation, cont, (value + 0.1).clamp(0, 1), 0.99, 0.95)
    assert (higher >= base - 1e-6).all()
    safe = reachability_target(torch.zeros(2, 6), torch.ones(2, 6), torch.zeros(2, 7), 0.99, 0.95)
    assert (safe == 0).all()


@pytest.mark.invariant(22)
def test_reachability_converges_to_the_hitting_probability():
    """A random walk on five states, violation at one end, a safe exit at the other."""
    p = np.zeros(5)
    for _ in range(4000):
        violation = torch.tensor([0.0, 0, 0, 0, 1.0]).unsqueeze(1)
        ahead = torch.tensor([p[0], *(0.5 * (p[i - 1] + p[i + 1]) for i in (1, 2, 3)), p[4]])
        value = torch.stack([torch.tensor(p), ahead.double()], 1)
        cont = torch.tensor([0.0, 1, 1, 1, 1]).unsqueeze(1)
        p = reachability_target(violation, cont, value, 1.0, 0.0)[:, 0].numpy()
    np.testing.assert_allclose(p, [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def weight_of(u, adv_r, adv_c, q_c):
    tensors = (torch.as_tensor(x, dtype=torch.float32) for x in (u, adv_r, adv_c, q_c))
    return policy_weight(*tensors, 3.0, 5.0, 100.0, 150.0, 0.1)


@pytest.mark.invariant(24)
def test_policy_weight_has_the_two_cases_of_fisor():
    torch.testing.assert_close(weight_of(1.0, 0.5, 9.0, 0.0), torch.tensor(math.exp(1.5)))
    torch.testing.assert_close(weight_of(0.0, 9.0, -0.5, 9.0), torch.tensor(math.exp(2.5)))
    assert weight_of(1.0, 0.5, 0.0, 0.2) == 0  # the gate is shut
    assert weight_of(1.0, 99.0, 0.0, 0.0) == 100
    assert weight_of(0.0, 0.0, -99.0, 0.0) == 150
    assert weight_of(0.3, 0.0, 0.0, 0.0) == 1


@pytest.mark.invariant(24)
def test_policy_weight_is_bounded():
    g = torch.Generator().manual_seed(3)
    u = torch.rand(500, generator=g)
    adv_r, adv_c, q_c = (10 * torch.randn(500, generator=g) for _ in range(3))
    weight = weight_of(u, adv_r, adv_c, q_c)
    assert ((weight >= 0) & (weight <= u * 100 + (1 - u) * 150 + 1e-3)).all()


@pytest.mark.invariant(29)
def test_the_gradient_of_the_penalty_is_the_cost_weight():
    lagrangian = AugmentedLagrangian(multiplier=0.5, penalty=0.1, cost_limit=2.0)
    cost = torch.tensor(5.0, requires_grad=True)
    loss, weight = lagrangian.step_(cost)
    (grad,) = torch.autograd.grad(loss, cost)
    assert weight.equal(grad)
    torch.testing.assert_close(loss.detach(), torch.tensor(0.5 * 3 + 0.05 * 9))
    torch.testing.assert_close(grad, torch.tensor(0.5 + 0.1 * 3))
    torch.testing.assert_close(lagrangian.multiplier, torch.tensor(0.8))
    torch.testing.assert_close(lagrangian.penalty, torch.tensor(0.1 * (1 + 1e-5)))


@pytest.mark.invariant(29)
def test_the_penalty_is_flat_and_smooth_where_the_limit_holds():
    for multiplier, slack in ((0.2, -5.0), (0.0, 0.0)):
        lagrangian = AugmentedLagrangian(multiplier=multiplier, penalty=0.1)
        cost = torch.tensor(slack, requires_grad=True)
        loss, weight = lagrangian.step_(cost)
        (grad,) = torch.autograd.grad(loss, cost)
        assert grad == weight == 0
        assert lagrangian.multiplier == 0
    edge = torch.tensor(-0.2 / 0.1)  # m = 0: both branches meet
    active = 0.2 * edge + 0.05 * edge.square()
    torch.testing.assert_close(active, torch.tensor(-(0.2**2) / 0.2))


@pytest.mark.invariant(29)
def test_multiplier_falls_to_zero_and_penalty_never_falls():
    lagrangian = AugmentedLagrangian(multiplier=1.0, penalty=0.01, growth=0.5)
    penalties = []
    for _ in range(20):
        lagrangian.step_(torch.tensor(-10.0))
        assert lagrangian.multiplier >= 0
        penalties.append(lagrangian.penalty.item())
    assert lagrangian.multiplier == 0
    assert penalties == sorted(penalties)
    assert penalties[-1] == 1.0


@pytest.mark.invariant(29)
def test_multiplier_is_capped():
    lagrangian = AugmentedLagrangian(penalty=1.0, max_multiplier=3.0)
    lagrangian.step_(torch.tensor(100.0))
    assert lagrangian.multiplier == 3.0


@pytest.mark.invariant(32)
def test_selection_probabilities():
    q_r, q_c = torch.tensor([[1.0, 2.0], [5.0, 5.0]]), torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    scores = preference(q_r, q_c, kappa=0.1)
    p = selection_probabilities(scores, alpha=5.0, scale=1.0)
    torch.testing.assert_close(p.sum(-1), torch.ones(2))
    torch.testing.assert_close(p[0], torch.tensor([5.0, 8.5]).softmax(-1))
    torch.testing.assert_close(p[1], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(selection_probabilities(scores + 7, 5.0, 1.0), p)
    torch.testing.assert_close(selection_probabilities(100 * scores, 5.0, 100.0), p)
    for alpha, scale in ((0.0, 1.0), (5.0, torch.tensor(torch.inf))):
        uniform = selection_probabilities(scores, alpha, scale)
        torch.testing.assert_close(uniform, torch.full((2, 2), 0.5))
    riskier = preference(q_r, q_c + torch.tensor([0.0, 5.0]), 0.1)
    assert (selection_probabilities(riskier, 5.0, 1.0)[:, 1] < p[:, 1]).all()
    greedy = selection_probabilities(scores[:1], 1e4, 1.0)
    torch.testing.assert_close(greedy, torch.tensor([[0.0, 1.0]]))
    blind = preference(q_r, q_c, 0.0)  # PEX: a softmax over reward values
    torch.testing.assert_close(selection_probabilities(blind, 10.0, 1.0), (10 * q_r).softmax(-1))
