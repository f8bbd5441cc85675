"""Invariants of the in-sample critics and of the running scale.

See docs/concepts/algorithm.md, 2.5 and 3.
"""

from __future__ import annotations

import pytest
import torch

from dreamer.distributions import TwoHot, symlog_bins
from dreamer.functional import symexp, symlog
from dreamer.moments import Moments
from dreamer.types import Batch, Latent, Trajectory
from fosp_ext.critics import InSampleCritic
from fosp_ext.targets import expectile_weight
from fosp_ext.transitions import RealTransitions, real_transitions
from tests.support.agents import make_agent, make_batch, make_config

F, A = 4, 2


def critic(sign: int = +1, **settings: str) -> InSampleCritic:
    """A small reward (+1) or cost (-1) critic that predicts 0 everywhere."""
    torch.manual_seed(0)
    named = {f"critic__{key}": value for key, value in settings.items()}
    config = make_config("fosp_offline", "debug", **named)
    return InSampleCritic(F, A, config.critic, config.imagination, sign)


def excite(module: torch.nn.Module) -> None:
    """Large random outputs."""
    for name, parameter in module.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(parameter)


def expectile(samples: torch.Tensor, tau: float) -> torch.Tensor:
    """The number whose errors to all samples, so weighted, cancel."""
    value = samples.mean()
    for _ in range(300):
        weight = torch.where(samples < value, 1 - tau, tau)
        value = (weight * samples).sum() / weight.sum()
    return value


def chain(rewards: list[float], lasts: list[int], terminals: list[int]) -> tuple[Latent, Batch]:
    """One window whose state at row t is the number t."""
    T = len(rewards)
    flags = torch.zeros(3, 1, T)
    flags[0, 0, 0] = 1
    flags[1, 0, lasts] = 1
    flags[2, 0, terminals] = 1
    for last in lasts:
        flags[0, 0, last + 1 : last + 2] = 1
    reward = torch.tensor([rewards])
    action = torch.linspace(-1, 1, T * A).reshape(1, T, A)
    deter = torch.arange(T).float().reshape(1, T, 1).expand(1, T, F)
    batch = Batch({}, action, reward, 10 * reward, *flags)
    return Latent(deter, torch.zeros(1, T, 0, 1)), batch


@pytest.mark.invariant(14)
def test_an_action_is_credited_with_what_followed_it():
    """Two states, s0 -a-> s1 with reward 3, then a true end."""
    latent, batch = chain([7.0, 3.0], lasts=[1], terminals=[1])
    real = real_transitions(latent, batch)
    reward = critic(+1).real_target(real, real.reward)
    cost = critic(-1).real_target(real, real.cost)
    torch.testing.assert_close(reward, torch.tensor([[3.0]]))
    torch.testing.assert_close(cost, torch.tensor([[30.0]]))


@pytest.mark.invariant(14)
def test_a_time_limit_bootstraps_and_a_true_end_does_not():
    """Rows 0 to 2 end by time, rows 3 to 5 truly; row 6 begins a third episode."""
    latent, batch = chain([0.0, 1, 2, 0, 4, 5, 0], lasts=[2, 5], terminals=[5])
    real = real_transitions(latent, batch)
    net = critic(+1)
    excite(net)
    after = net.in_sample_value(real.feat_next)[0]
    target = net.real_target(real, real.reward)[0]
    gamma = net.imagination.gamma
    torch.testing.assert_close(target[1], 2 + gamma * after[1])
    assert target[4] == 5
    assert real.mask[0].tolist() == [1, 1, 0, 1, 1, 0]


@pytest.mark.invariant(14)
def test_targets_read_no_other_episode_and_no_other_window():
    net = critic(+1)
    excite(net)
    latent, batch = chain([0.0, 1, 2, 0, 4, 5, 0], lasts=[2, 5], terminals=[5])
    two = Batch({}, *(torch.cat([x, x]) for x in batch[1:]))
    latents = Latent(*(torch.cat([x, x]) for x in latent))

    def target(rows: slice, window: int, change: float) -> torch.Tensor:
        """Targets of window 0 after everything in these rows has changed."""
        deter, reward = latents.deter.clone(), two.reward.clone()
        for x in (deter, reward):
            x[window, rows] += change
        moved = real_transitions(Latent(deter, latents.stoch), two._replace(reward=reward))
        return net.real_target(moved, moved.reward)[0]

    base = target(slice(0), 0, 0.0)
    assert target(slice(0, 7), 1, 50.0).equal(base)
    later = target(slice(3, 7), 0, 50.0)
    assert later[:2].equal(base[:2])
    assert not later[3].isclose(base[3])


@pytest.mark.invariant(14)
def test_masked_pairs_teach_nothing():
    """What a pair across an episode's end says does not enter any loss."""
    agent, batch = make_agent(), make_batch()
    latent, _ = agent.world_model.update(batch)
    real = real_transitions(latent, batch)
    net = agent.policy.reward_critic
    for nets in (net.in_sample_q_net, net.in_sample_target_q_net, net.in_sample_net):
        excite(nets)
    wild = torch.where(real.mask.bool(), real.reward, 1e4)
    assert not wild.equal(real.reward)
    for signal in (real.reward, wild):
        losses = net.real_losses(real, signal)
        shifted = real._replace(action=torch.where(real.mask.bool()[..., None], real.action, 0.9))
        other = net.real_losses(shifted, signal)
        assert losses["v_loss"] == other["v_loss"]
        assert losses["q_loss"] == other["q_loss"]
    kept = net.real_losses(real, real.reward)
    assert losses["q_loss"] == kept["q_loss"]


@pytest.mark.invariant(15)
@pytest.mark.parametrize("sign", [+1, -1])
def test_at_one_half_the_loss_is_half_the_plain_one(sign):
    g = torch.Generator().manual_seed(0)
    logits, q = torch.randn(50, 255, generator=g), 5 * torch.randn(50, generator=g)
    dist = TwoHot(logits, symlog_bins())
    loss = critic(sign)._expectile_loss(dist, dist.mean(), q, 0.5)
    torch.testing.assert_close(loss, 0.5 * dist.loss(q))
    error = q - dist.mean()
    torch.testing.assert_close(expectile_weight(error, 0.5) * error**2, 0.5 * error**2)


@pytest.mark.invariant(16)
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_upper_and_lower_expectiles_mirror_each_other(tau):
    error = torch.randn(200, generator=torch.Generator().manual_seed(1))
    upper = expectile_weight(error, tau) * error.square()
    lower = expectile_weight(-error, 1 - tau) * error.square()
    torch.testing.assert_close(upper, lower)


@pytest.mark.invariant(16)
def test_reward_and_cost_losses_are_mirror_images():
    """V to -V and Q to -Q turn one critic's loss into the other's."""
    g = torch.Generator().manual_seed(1)
    value, q = torch.randn(2, 200, generator=g)

    class Squared:
        def __init__(self, value: torch.Tensor):
            self.value = value

        def loss(self, target: torch.Tensor) -> torch.Tensor:
            return (target - self.value).square()

    reward, cost = critic(+1), critic(-1)
    for tau in (0.2, 0.8):
        left = reward._expectile_loss(Squared(value), value, q, tau)
        right = cost._expectile_loss(Squared(-value), -value, -q, tau)
        torch.testing.assert_close(left, right)
        assert not left.allclose(cost._expectile_loss(Squared(value), value, q, tau))


def fitted(net: InSampleCritic, q: torch.Tensor) -> float:
    """The in-sample value of one state with these target Qs (K,), fitted by `real_losses`."""
    net.in_sample_target_q = lambda feat, action: q.unsqueeze(0)
    feat, flag = torch.zeros(1, len(q), F), torch.zeros(1, len(q))
    action, mask = torch.zeros(1, len(q), A), torch.ones(1, len(q))
    real = RealTransitions(feat, action, flag, flag, flag, flag, feat, flag, mask)
    bias = net.in_sample_net.mlp[-1].bias
    optimizer = torch.optim.Adam([bias], lr=1.0)
    slower = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.975)
    for _ in range(300):
        loss = net.real_losses(real, flag)["v_loss"]
        (bias.grad,) = torch.autograd.grad(loss, [bias])
        optimizer.step()
        slower.step()
    return net.in_sample_value(feat[0, 0]).item()


@pytest.mark.invariant(17)
@pytest.mark.parametrize(("sign", "tau"), [(+1, 0.8), (+1, 0.3), (-1, 0.7)])
def test_the_fit_is_the_expectile_in_symlog_space(sign, tau):
    q = 20 * torch.rand(7, generator=torch.Generator().manual_seed(2)) - 4
    upper = tau if sign > 0 else 1 - tau
    expected = symexp(expectile(symlog(q.double()), upper)).item()
    net = critic(sign, expectile=str(tau))
    assert fitted(net, q) == pytest.approx(expected, abs=0.02)


@pytest.mark.invariant(18)
@pytest.mark.parametrize(
    ("sign", "tau", "expected"),
    [(+1, 0.8, 5.81), (-1, 0.8, 0.615), (+1, 0.5, 2.317), (-1, 0.5, 2.317)],
)
def test_rewards_lean_up_and_costs_lean_down(sign, tau, expected):
    """One state, Q in {0, 10} equally often, through the critic's own loss."""
    net = critic(sign, expectile=str(tau))
    assert fitted(net, torch.tensor([0.0, 10.0])) == pytest.approx(expected, abs=0.01)


@pytest.mark.invariant(28)
def test_the_running_scale_follows_the_closed_form():
    moments = Moments()
    for _ in range(30):  # from 0, without bias correction
        moments.update_(torch.linspace(-100, 300, 401).requires_grad_())
    reached = 1 - 0.99**30
    torch.testing.assert_close(moments.range, reached * torch.tensor([-80.0, 280.0]))
    torch.testing.assert_close(moments.scale(), torch.tensor(360 * reached))
    assert not moments.scale().requires_grad
    assert not list(moments.parameters()), "no optimiser can move it"


@pytest.mark.invariant(28)
def test_small_signals_are_not_blown_up_and_large_ones_scale_away():
    signal = torch.randn(500, generator=torch.Generator().manual_seed(3))
    quiet, loud, louder = Moments(), Moments(), Moments()
    for _ in range(20):
        quiet.update_(0.01 * signal)
        loud.update_(1e3 * signal)
        louder.update_(1e5 * signal)
        assert quiet.scale() == 1
    assert loud.scale() > 1
    torch.testing.assert_close(1e3 * signal / loud.scale(), 1e5 * signal / louder.scale())


def flat(value: float, count: int, horizon: int) -> Trajectory:
    """Rollouts in one state under one action, each step of which pays `value`, without end."""
    one = torch.ones(count, horizon)
    signal = value * one
    feat, action = torch.ones(count, horizon + 1, F), torch.ones(count, horizon, A)
    return Trajectory(feat, action, signal, signal, *[one] * 5)


def records(signal: torch.Tensor) -> RealTransitions:
    """Recorded steps (1, T) in the same state; what pays is the action of `flat`."""
    none, one = torch.zeros_like(signal), torch.ones_like(signal)
    feat = torch.ones(*signal.shape, F)
    action = (2 * (signal > 0) - 1.0).unsqueeze(-1).expand(*signal.shape, A)
    return RealTransitions(feat, action, none, signal, signal, one, feat, none, one)


@pytest.mark.invariant(42)
def test_the_policys_value_and_the_supported_one_are_both_right():
    """One absorbing state, discount 0.95: the policy always pays 1, half of the records nothing.

    The policy's cost value is 1 / (1 - 0.95) = 20, that of the best recorded action 0.
    """
    torch.manual_seed(0)
    words = {"expectile": "0.99", "tau": "0.1", "optimizer__lr": "1e-2"}
    config = make_config(
        "fosp_offline",
        "debug",
        imagination__gamma="0.95",
        **{f"cost_critic__{key}": value for key, value in words.items()},
    )
    net = InSampleCritic(F, A, config.cost_critic, config.imagination, sign=-1)
    traj, real = flat(1.0, 1, 15), records(torch.tensor([[0.0, 1.0]]))
    for _ in range(1500):
        net.update(traj, traj.cost, real, real.cost)
    state = torch.ones(F)
    assert net.value(state).item() == pytest.approx(20, rel=0.02)
    assert net.q(state, torch.ones(A)).item() == pytest.approx(20, rel=0.02)
    assert abs(net.in_sample_value(state).item()) <= 0.02 * 20


def taught(imagined: float, recorded: float, **settings: str) -> dict[str, torch.Tensor]:
    """All that a critic holds after two updates with these signals, Adam's state left out."""
    net = critic(+1, **settings)
    real = records(torch.tensor([[0.0, recorded, 1.0]]))
    traj = flat(imagined, 4, 3)
    for _ in range(2):
        net.update(traj, traj.reward, real, real.reward)
    return {name: x.clone() for name, x in net.state_dict().items() if "optimizer" not in name}


@pytest.mark.invariant(42)
@pytest.mark.parametrize("clip", ["100", "1e-3"])
def test_imagination_and_records_teach_networks_of_their_own(clip):
    """Where gradients are clipped, too: the one's size does not shorten the other's step."""
    base = taught(1, 2, optimizer__clip=clip)
    for imagined, recorded, in_sample in ((1, 50, True), (50, 2, False)):
        other = taught(imagined, recorded, optimizer__clip=clip)
        changed = {name.partition(".")[0] for name, x in other.items() if not x.equal(base[name])}
        own = {"in_sample_net", "in_sample_q_net", "in_sample_target_q_net"}
        assert changed == (own if in_sample else {"value_net", "q_net", "target_q_net"})


@pytest.mark.invariant(42)
def test_without_the_split_one_v_and_one_q_learn_from_both():
    base, other = (taught(1, recorded, split_value="false") for recorded in (2, 50))
    for name in ("value_net", "q_net"):
        bias = f"{name}.mlp.{len(critic().q_net.mlp) - 1}.bias"
        assert not base[bias].equal(other[bias])


@pytest.mark.invariant(38)
@pytest.mark.parametrize("split", ["true", "false"])
def test_a_weight_of_zero_leaves_recorded_pairs_out(split):
    base, other = (taught(1, x, real_weight="0", split_value=split) for x in (2, 50))
    assert all(x.equal(base[name]) for name, x in other.items())


@pytest.mark.invariant(38)
def test_online_nothing_of_the_in_sample_values_moves():
    net = critic(+1)
    excite(net)  # the target network differs from what it follows
    online = critic(+1, real_weight="0")
    online.load_state_dict(net.state_dict())
    real, traj = records(torch.tensor([[0.0, 1.0]])), flat(1.0, 4, 3)
    metrics = online.update(traj, traj.reward, real, real.reward)
    assert not any(name.startswith("real_") for name in metrics)
    for name, before in net.named_parameters():
        assert online.get_parameter(name).equal(before) == name.startswith("in_sample_"), name
