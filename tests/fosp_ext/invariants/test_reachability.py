"""Invariants of the reachability estimate (docs/concepts/algorithm.md, 4 and Invariants)."""

from __future__ import annotations

import pytest
import torch

from dreamer.imagination import Starts
from dreamer.types import Latent, Trajectory
from fosp_ext.actor_critic import violation_labels
from fosp_ext.reachability import ReachabilityCritic
from fosp_ext.targets import reachability_target
from fosp_ext.transitions import RealTransitions
from tests.support.agents import make_agent, make_config

N, H, F = 40, 6, 5


def randoms(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Violations (N, H) in {0, 1}, cont (N, H) in {0, 1} and values (N, H+1) in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    violation = (torch.rand(N, H, generator=g) < 0.2).float()
    cont = (torch.rand(N, H, generator=g) > 0.1).float()
    return violation, cont, torch.rand(N, H + 1, generator=g)


def trajectory(cont: torch.Tensor) -> Trajectory:
    """A rollout over random features."""
    g = torch.Generator().manual_seed(9)
    feat = torch.randn(len(cont), cont.shape[1] + 1, F, generator=g)
    nothing = torch.zeros_like(cont)
    ones = torch.ones_like(cont)
    return Trajectory(feat, nothing.unsqueeze(-1), *[nothing] * 3, cont, ones, *[nothing] * 2)


def transitions(violation: torch.Tensor, cont: torch.Tensor) -> RealTransitions:
    """Recorded pairs over random features."""
    g = torch.Generator().manual_seed(8)
    feat = torch.randn(*cont.shape, F, generator=g)
    none = torch.zeros_like(cont)
    after = torch.randn(*cont.shape, F, generator=g)
    return RealTransitions(
        feat, none.unsqueeze(-1), violation, none, none, cont, after, none, torch.ones_like(cont)
    )


def critic(*, wild: bool = True, **settings: str) -> ReachabilityCritic:
    """A small estimate; `wild` gives both of its networks large random outputs."""
    torch.manual_seed(0)
    named = {f"reachability__{key}": value for key, value in settings.items()}
    settings = make_config("fosp_offline", "debug", **named).reachability
    reach = ReachabilityCritic(F, settings, violation=0.5)
    for net in (reach.net, reach.target_net) if wild else ():
        torch.nn.init.normal_(net.mlp[-1].weight)
    return reach


@pytest.mark.invariant(19)
def test_estimates_and_targets_are_probabilities():
    violation, cont, _ = randoms()
    fresh = critic(wild=False)
    feat = 10 * torch.randn(200, F, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        fresh.violation_probability(feat), torch.full((200,), -2.2).sigmoid()
    )
    reach = critic()
    violation_probability = reach.violation_probability(feat)
    assert ((violation_probability > 0) & (violation_probability < 1)).all()
    assert violation_probability.std() > 0.1
    torch.testing.assert_close(reach.feasibility(feat), 1 - violation_probability)
    for target in (
        reach.imagined_target(trajectory(cont), violation),
        reach.real_target(transitions(violation, cont)),
    ):
        assert ((target >= 0) & (target <= 1)).all()
        assert (target == 1).equal(violation == 1), "one exactly where the state violates"


@pytest.mark.invariant(19)
def test_the_target_is_at_least_any_later_discounted_label():
    g = torch.Generator().manual_seed(3)
    violation, value = torch.rand(N, H, generator=g), torch.rand(N, H + 1, generator=g)
    out = reachability_target(violation, torch.ones(N, H), value, mu=0.9, lam=1.0)
    for h in range(H):
        for k in range(H - h):
            assert (out[:, h] >= 0.9**k * violation[:, h + k] - 1e-6).all()


@pytest.mark.invariant(20)
@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("turned", range(H))
def test_a_further_violation_never_lowers_what_comes_before(turned, lam):
    violation, cont, value = randoms()
    base = reachability_target(violation, cont, value, 0.99, lam)
    worse = violation.clone()
    worse[:, turned] = 1
    raised = reachability_target(worse, cont, value, 0.99, lam)
    assert (raised[:, : turned + 1] >= base[:, : turned + 1] - 1e-6).all()
    assert raised[:, turned + 1 :].equal(base[:, turned + 1 :])
    assert (raised > base).any()


@pytest.mark.invariant(20)
def test_targets_rise_with_the_bootstrap_and_with_the_discount():
    violation, cont, value = randoms()
    base = reachability_target(violation, cont, value, 0.9, 0.95)
    for h in range(H + 1):
        higher = value.clone()
        higher[:, h] += 0.5 * (1 - higher[:, h])
        raised = reachability_target(violation, cont, higher, 0.9, 0.95)
        assert (raised >= base - 1e-6).all()
        assert (raised > base).any() == (h > 0), "the value of the first state is not used"
    further = reachability_target(violation, cont, value, 0.95, 0.95)
    assert (further >= base - 1e-6).all()
    assert (further > base).any()


@pytest.mark.invariant(21)
def test_without_violations_zero_is_the_only_fixed_point():
    _, cont, value = randoms()
    safe = torch.zeros(N, H)
    zero = reachability_target(safe, cont, torch.zeros(N, H + 1), 0.99, 0.95)
    assert not zero.any()
    for _ in range(2000):  # from anywhere; each state of a row is its own successor's equal
        value = reachability_target(safe, torch.ones(N, H), value, 0.99, 0.95).amax(1, True)
        value = value.expand(-1, H + 1)
    assert value.max() < 1e-6


@pytest.mark.invariant(21)
def test_the_linear_form_is_the_maximum():
    violation, cont, value = randoms()
    out = reachability_target(violation, cont, value, 0.9, 0.0)
    torch.testing.assert_close(out, torch.maximum(violation, 0.9 * cont * value[:, 1:]))
    reach, real = critic(), transitions(violation, cont)
    ahead = reach.settings.mu * cont * reach.target_net(real.feat_next).probs()
    torch.testing.assert_close(reach.real_target(real), torch.maximum(violation, ahead))


def chain(states: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Transition matrix and violations of a random chain; state 0 is a safe trap, 1 and 2 harm."""
    g = torch.Generator().manual_seed(4)
    matrix = torch.rand(states, states, generator=g, dtype=torch.float64) ** 4
    matrix[0] = torch.eye(states)[0]
    violation = torch.zeros(states, dtype=torch.float64)
    violation[1:3] = 1
    return matrix / matrix.sum(1, keepdim=True), violation


def sweep(matrix: torch.Tensor, violation: torch.Tensor, p: torch.Tensor, mu: float):
    """One application of the target to every state; it is linear in the next state's value."""
    value = torch.stack([p, matrix @ p], 1)
    cont = torch.ones(len(p), 1, dtype=torch.float64)
    return reachability_target(violation.unsqueeze(1), cont, value, mu, 0.0)[:, 0]


@pytest.mark.invariant(22)
def test_the_fixed_point_tends_to_the_hitting_probability():
    matrix, violation = chain()
    inner = slice(3, None)  # hitting probabilities solve a linear system on the other states
    system = torch.eye(len(matrix) - 3, dtype=torch.float64) - matrix[inner, inner]
    hit = torch.linalg.solve(system, matrix[inner, 1:3].sum(1))
    gaps = []
    for mu in (0.9, 0.99, 0.999):
        p = torch.zeros_like(violation)
        for _ in range(3000):
            p = sweep(matrix, violation, p, mu)
        assert p[0] == 0
        assert (p[1:3] == 1).all()
        gaps.append((hit - p[inner]).abs().max().item())
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] > 0
    assert gaps[2] < 0.01
    assert 0.1 < hit.min() < hit.max() < 0.9


@pytest.mark.invariant(22)
@pytest.mark.parametrize("mu", [0.5, 0.9, 0.99])
def test_one_sweep_contracts_by_the_discount(mu):
    matrix, violation = chain()
    g = torch.Generator().manual_seed(5)
    for _ in range(50):
        p, q = torch.rand(2, len(matrix), generator=g, dtype=torch.float64)
        gap = (sweep(matrix, violation, p, mu) - sweep(matrix, violation, q, mu)).abs().max()
        assert gap <= mu * (p - q).abs().max() + 1e-12


@pytest.mark.invariant(23)
@pytest.mark.parametrize("change", [-1.0, 100.0])
def test_the_networks_own_output_enters_by_the_bootstrap_only(change):
    violation, cont, _ = randoms()
    reach, traj, real = critic(), trajectory(cont), transitions(violation, cont)
    targets = reach.imagined_target(traj, violation), reach.real_target(real)
    violation_probability = reach.violation_probability(traj.feat)
    with torch.no_grad():
        for parameter in reach.net.mlp[-1].parameters():
            parameter.mul_(change)
    assert not reach.violation_probability(traj.feat).allclose(violation_probability)
    assert reach.imagined_target(traj, violation).equal(targets[0])
    assert reach.real_target(real).equal(targets[1])


@pytest.mark.invariant(23)
def test_labels_come_from_costs_and_not_from_the_estimate():
    """With whole look-ahead, the estimate is asked about the last state of a rollout only."""
    violation, cont, _ = randoms()
    reach, traj = critic(lam="1.0"), trajectory(cont)
    target = reach.imagined_target(traj, violation)
    other = traj._replace(feat=torch.cat([-traj.feat[:, :-1], traj.feat[:, -1:]], 1))
    assert reach.imagined_target(other, violation).equal(target)
    ended = cont.clone()
    ended[:, -1] = 0
    closed = reach.imagined_target(trajectory(ended), violation)
    by_hand = reachability_target(violation, ended, torch.zeros(N, H + 1), reach.settings.mu, 1.0)
    torch.testing.assert_close(closed, by_hand)


@pytest.mark.invariant(23)
def test_violation_labels_do_not_ask_the_estimate():
    agent = make_agent()
    model, reach = agent.world_model, agent.policy.reachability
    torch.manual_seed(2)
    feat = torch.randn(6, 4, model.feat_size)
    cost = torch.tensor([0.0, 0.49, 0.5, 1.0, 4.0, 0.0])
    zero, violation = torch.zeros(6, 3), model.predict(feat[:, 1:]).violation
    traj = Trajectory(feat, zero.unsqueeze(-1), zero, zero, violation, *[zero] * 4)
    starts = Starts(Latent(feat[:, 0], feat[:, :1, :1]), torch.ones(6), cost)
    labels = violation_labels(traj, starts, 0.5)
    torch.nn.init.constant_(reach.net.mlp[-1].bias, 9.0)
    torch.nn.init.constant_(reach.target_net.mlp[-1].bias, 9.0)
    assert model.predict(feat[:, 1:]).violation.equal(violation)
    assert violation_labels(traj, starts, 0.5).equal(labels)
    assert labels[:, 0].tolist() == [0, 0, 1, 1, 1, 0]
