"""Invariants of the policy: weights, gradients, acting.

See docs/concepts/algorithm.md, 5 and Invariants.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dreamer.agent import AgentState
from dreamer.distributions import Normal
from dreamer.imagination import choose_starts, imagine
from dreamer.networks import TwoHotHead
from dreamer.types import Latent, Trajectory
from fosp_ext.actor_critic import SafeActorCritic
from fosp_ext.targets import policy_weight
from fosp_ext.transitions import RealTransitions, real_transitions
from tests.support.agents import make_agent, make_batch

N, H, A = 32, 5, 2


def randoms(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recorded(agent) -> RealTransitions:
    """Transitions of a batch, (4, 7)."""
    batch = make_batch()
    latent, _ = agent.world_model.update(batch)
    return real_transitions(latent, batch)


def lively_agent(**settings: str):
    """An agent whose critics and reachability disagree between states and actions."""
    agent = make_agent(**settings)
    torch.manual_seed(4)
    policy = agent.policy
    for critic in (policy.reward_critic, policy.cost_critic):
        for net in (module for module in critic.modules() if isinstance(module, TwoHotHead)):
            nn.init.normal_(net.mlp[-1].weight, std=0.3)
    nn.init.normal_(policy.reachability.net.mlp[-1].weight)
    return agent


@pytest.mark.invariant(24)
def test_weights_reduce_to_the_two_cases_and_stay_bounded():
    u, adv_r, adv_c, q_c = randoms(4, 1000).mul(3)
    settings = {"beta_r": 3.0, "beta_c": 5.0, "clip_r": 100.0, "clip_c": 150.0}
    one, zero = torch.ones(1000), torch.zeros(1000)
    feasible = policy_weight(one, adv_r, adv_c, q_c, **settings, cost_tolerance=0.1)
    expected = (q_c <= 0.1) * (3 * adv_r).exp().clamp_max(100)
    torch.testing.assert_close(feasible, expected)
    hopeless = policy_weight(zero, adv_r, adv_c, q_c, **settings, cost_tolerance=0.1)
    torch.testing.assert_close(hopeless, (-5 * adv_c).exp().clamp_max(150))
    u = u.sigmoid()
    weight = policy_weight(u, adv_r, adv_c, q_c, **settings, cost_tolerance=0.1)
    torch.testing.assert_close(weight, u * feasible + (1 - u) * hopeless)
    neutral = policy_weight(u, zero, zero, zero, **settings, cost_tolerance=0.1)
    torch.testing.assert_close(neutral, one)


@pytest.mark.invariant(24)
def test_the_mixture_of_cases_is_at_least_the_geometric_form():
    u, adv_r, adv_c = randoms(3, 1000)
    u, beta = u.sigmoid(), 2.0
    open_gate, no_clip = torch.zeros(1000), math.inf

    def mixture(u: Tensor, adv_c: Tensor) -> Tensor:
        return policy_weight(u, adv_r, adv_c, open_gate, beta, beta, no_clip, no_clip, 0.1)

    def geometric(u: Tensor, adv_c: Tensor) -> Tensor:
        return (beta * (u * adv_r - (1 - u) * adv_c)).exp()

    gap = mixture(u, adv_c) / geometric(u, adv_c)
    assert (gap >= 1 - 1e-5).all()
    assert gap.max() > 2
    for end in (torch.zeros(1000), torch.ones(1000)):
        torch.testing.assert_close(mixture(end, adv_c), geometric(end, adv_c))
    torch.testing.assert_close(mixture(u, -adv_r), geometric(u, -adv_r))


@pytest.mark.invariant(25)
def test_feasibility_and_weights_carry_no_gradient():
    agent, batch = lively_agent(), make_batch()
    policy, real = agent.policy, recorded(agent)
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, 0)
    traj = imagine(agent.world_model, policy.actor, starts, horizon=H, gamma=0.9)
    values = policy.rollout_values(traj)
    weight, gate = policy.data_weights(real)
    assert values.action_value_r.requires_grad
    carried = (traj.weight, values.feasibility, weight, gate)
    assert not any(x.requires_grad for x in carried)
    loss, _ = policy.in_sample_loss(real)
    others = [
        parameter
        for part in (policy.reward_critic, policy.cost_critic, policy.reachability)
        for parameter in part.parameters()
        if parameter.requires_grad
    ]
    others += agent.world_model.parameters()
    assert all(
        grad is None
        for grad in torch.autograd.grad(loss, others, retain_graph=True, allow_unused=True)
    )
    policy.update_actor(traj, values, real)
    assert all(parameter.grad is None for parameter in agent.parameters())


@pytest.mark.invariant(25)
def test_the_cloning_gradient_agrees_with_finite_differences():
    agent = lively_agent()
    policy, real = agent.policy, recorded(agent)
    assert policy.data_weights(real)[0].std() > 0.1, "or the weights are not tested"
    parameters = list(policy.actor.parameters())
    grads = torch.autograd.grad(policy.in_sample_loss(real)[0], parameters)
    norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
    step = 1e-2

    def moved(amount: float) -> float:
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.add_(amount * grad / norm)
            return policy.in_sample_loss(real)[0].item()

    above, below = moved(step), moved(-2 * step)
    assert (above - below) / (2 * step) == pytest.approx(norm.item(), rel=0.01)


@pytest.mark.invariant(25)
def test_weights_of_one_are_plain_cloning():
    indifferent = {"actor__beta_r": "0", "actor__beta_c": "0", "actor__cost_tolerance": "1e9"}
    agent = lively_agent(**indifferent)
    real = recorded(agent)
    loss, _ = agent.policy.in_sample_loss(real)
    kept = real.mask.bool()
    log_prob = agent.policy.actor(real.feat[kept]).log_prob(real.action[kept])
    torch.testing.assert_close(loss, -log_prob.mean())


class Arms(nn.Module):
    """A policy over a few arms; an action's first number says which one."""

    def __init__(self, count: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def forward(self, feat: Tensor) -> Arms:
        return self

    def log_prob(self, action: Tensor) -> Tensor:
        return self.logits.log_softmax(-1)[action[..., 0].long()]


@pytest.mark.invariant(26)
@pytest.mark.parametrize("u", [0.0, 0.6, 1.0])
def test_the_best_clone_on_a_bandit_is_the_weighted_policy(u):
    """One state, four arms of known worth, recorded 1, 3, 4 and 2 times."""
    counts, q_r = torch.tensor([1.0, 3, 4, 2]), torch.tensor([1.0, 0.5, 0.0, -0.5])
    q_c = torch.tensor([0.9, 0.0, 0.05, 0.0])  # the most rewarding arm is not safe
    policy = make_agent().policy
    policy.actor = arms = Arms(4)
    taken = torch.repeat_interleave(torch.arange(4), counts.long())
    flag = torch.zeros(1, len(taken))
    feat = flag.unsqueeze(-1)
    action = taken.float().reshape(1, -1, 1)
    real = RealTransitions(feat, action, flag, flag, flag, flag, feat, flag, flag + 1)
    for critic, values in ((policy.reward_critic, q_r), (policy.cost_critic, q_c)):
        critic.in_sample_target_q = lambda _, action, values=values: values[action[..., 0].long()]
        critic.in_sample_value = lambda feat: torch.zeros(feat.shape[:-1])
    policy.reachability.feasibility = lambda feat: torch.full(feat.shape[:-1], u)
    optimizer = torch.optim.LBFGS(arms.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss, _ = policy.in_sample_loss(real)
        loss.backward()
        return loss

    optimizer.step(closure)
    s = policy.settings
    by_hand = [
        u * (c <= 0.1) * math.exp(s.beta_r * r) + (1 - u) * math.exp(-s.beta_c * c)
        for r, c in zip(q_r.tolist(), q_c.tolist(), strict=True)
    ]
    target = counts * torch.tensor(by_hand)
    torch.testing.assert_close(arms.logits.softmax(-1), target / target.sum(), rtol=0, atol=2e-3)


class Aim(nn.Module):
    """A policy with one mean for all states."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.2, -0.1]))

    def forward(self, feat: Tensor) -> Normal:
        return Normal(self.mean.expand(*feat.shape[:-1], A), torch.full((A,), 0.3))


def aimed(value: float) -> tuple[SafeActorCritic, Trajectory, RealTransitions]:
    """A policy judged by quadratic Qs; the states it visits depend on its actions."""
    free = {"lagrange__multiplier": "0", "lagrange__penalty": "1e-30"}
    agent = make_agent(actor__in_sample_weight="0", **free)
    policy, real = agent.policy, recorded(agent)
    policy.actor = aim = Aim()
    action = aim.mean + 0.3 * randoms(N, H, A)
    feat = torch.cat([randoms(N, 1, A), action], 1).cumsum(1)
    for critic, goal, sign in (
        (policy.reward_critic, 0.5, -1),
        (policy.cost_critic, 0.8, 1),
    ):
        critic.q = lambda feat, action, goal=goal, sign=sign: (
            sign * (action - goal).square().sum(-1) + feat.sum(-1)
        )
        critic.value = lambda feat: value * feat.square().sum(-1)
    policy.reachability.feasibility = lambda _: randoms(N, H, seed=1).sigmoid()
    policy.data_weights = lambda real: (torch.zeros_like(real.mask),) * 2
    cost = torch.ones(N, H)
    weight = randoms(N, H, seed=2).sigmoid()
    entropy = aim(feat[:, :-1]).entropy()
    traj = Trajectory(feat, action, *[cost] * 4, weight, entropy, disagreement=0 * cost)
    return policy, traj, real


def gradient(policy: SafeActorCritic, traj: Trajectory, real: RealTransitions) -> Tensor:
    """What the policy's mean is moved by."""
    losses = []
    policy.optimizer.step = lambda loss: losses.append(loss) or {}
    policy.update_actor(traj, policy.rollout_values(traj), real)
    (grad,) = torch.autograd.grad(losses[0], policy.actor.mean)
    return grad


@pytest.mark.invariant(27)
@pytest.mark.parametrize("value", [0.0, 1.0, -30.0])
def test_the_pathwise_gradient_on_quadratic_qs_is_the_analytic_one(value):
    """Neither the baseline's values nor their slope along the states change it."""
    policy, traj, real = aimed(value)
    grad = gradient(policy, traj, real)
    u, action = randoms(N, H, seed=1).sigmoid().unsqueeze(-1), traj.action.detach()
    scales = [c.moments.scale() for c in (policy.reward_critic, policy.cost_critic)]
    up = -2 * (action - 0.5) / scales[0]
    down = 2 * (action - 0.8) / scales[1]
    gain = traj.weight.unsqueeze(-1) * (u * up - (1 - u) * down)
    torch.testing.assert_close(grad, -gain.mean((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.invariant(35)
@pytest.mark.parametrize("explore", [True, False])
def test_acting_leaves_what_it_is_given_unchanged(explore):
    agent, batch = make_agent(), make_batch()
    obs = {name: image[:, 0] for name, image in batch.obs.items()}
    first = torch.tensor([1.0, 0.0, 0.0, 1.0])
    state = agent.initial(4)
    _, state, _ = agent.act(obs, torch.ones(4), state, explore)
    given = [*state.latent, state.action, *obs.values(), first]
    before = [x.clone() for x in given]
    action, after, _ = agent.act(obs, first, state, explore)
    assert all(x.equal(y) for x, y in zip(given, before, strict=True))
    assert isinstance(after, AgentState)
    assert isinstance(after.latent, Latent)
    assert after.action.equal(action)
    assert not after.latent.deter.equal(state.latent.deter)
    kept = [x.clone() for x in after.latent]
    agent.policy.act(agent.world_model, after.latent, explore)
    assert all(map(torch.equal, after.latent, kept))
