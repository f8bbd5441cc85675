"""Invariants of the world model (docs/concepts/algorithm.md, 2 and Invariants)."""

from __future__ import annotations

import pytest
import torch

from dreamer.distributions import symlog_bins
from dreamer.functional import two_hot
from dreamer.rssm import RSSM, kl_losses
from dreamer.settings import RSSMSettings
from dreamer.types import Latent
from tests.support.agents import make_agent, make_batch

CLASSES, UNIMIX = 48, 0.01


@pytest.fixture
def rssm() -> RSSM:
    """A small model with as many classes as the full size, and sharp distributions."""
    torch.manual_seed(0)
    settings = RSSMSettings(
        deter=8,
        hidden=12,
        stoch=3,
        classes=CLASSES,
        unimix=UNIMIX,
        read="sample",
        imagine="samples",
        priors=1,
    )
    model = RSSM(embed_size=10, action_size=2, settings=settings)
    torch.nn.init.normal_(model.initial_deter)
    for net in (model.prior_net, model.post_net):
        torch.nn.init.normal_(net[-1].weight, std=5.0)
    return model


def window(B: int, T: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings (B, T, 10), actions (B, T, 2) and is_first (B, T), which marks row 0."""
    g = torch.Generator().manual_seed(1)
    is_first = torch.zeros(B, T)
    is_first[:, 0] = 1
    return (
        torch.randn(B, T, 10, generator=g),
        torch.rand(B, T, 2, generator=g) * 2 - 1,
        is_first,
    )


@pytest.mark.invariant(2)
def test_the_code_of_a_number_has_two_neighbours_over_the_whole_range():
    bins = symlog_bins().double()
    x = torch.cat([torch.linspace(-20, 20, 10_001).double(), bins])
    code = two_hot(x, bins)
    torch.testing.assert_close(code.sum(-1), torch.ones_like(x), rtol=0, atol=1e-14)
    assert (code >= 0).all()
    used = code > 0
    places = torch.arange(len(bins))
    span = (used * places).amax(-1) - torch.where(used, places, len(bins)).amin(-1)
    assert ((used.sum(-1) <= 2) & (span <= 1)).all()
    torch.testing.assert_close((code * bins).sum(-1), x, rtol=0, atol=1e-13)
    zero = torch.eye(255)[127:128]
    torch.testing.assert_close(two_hot(torch.zeros(1), symlog_bins()), zero, rtol=0, atol=0)
    beyond = two_hot(torch.tensor([-21.0, 21.0, 1e9]), symlog_bins())
    assert beyond.argmax(-1).tolist() == [0, 254, 254]
    assert (beyond.amax(-1) == 1).all()


@pytest.mark.invariant(4)
def test_a_fresh_agent_expects_no_reward_and_no_value():
    agent = make_agent()
    torch.manual_seed(1)
    feat, action = torch.randn(20, agent.world_model.feat_size), torch.rand(20, 2)
    means = [agent.world_model.reward_head(feat).mean()]
    for critic in (agent.policy.reward_critic, agent.policy.cost_critic):
        means += [critic.value(feat), critic.in_sample_value(feat), critic.q(feat, action)]
        means += [critic.target_q(feat, action), critic.in_sample_target_q(feat, action)]
    assert all(mean.abs().max() < 1e-6 for mean in means)
    assert agent.world_model.cost_head(feat).mean().abs().min() > 1e-6, "it does not start at 0"


@pytest.mark.invariant(5)
@pytest.mark.parametrize("flagged", [(0,), (1, 2), ()])
def test_only_flagged_rows_start_anew(rssm, flagged):
    embed, action, _ = window(B=3, T=1)
    g = torch.Generator().manual_seed(2)
    wild = Latent(torch.randn(3, 8, generator=g), torch.rand(3, 3, CLASSES, generator=g))
    first = torch.tensor([float(row in flagged) for row in range(3)])

    def step(state: Latent, action: torch.Tensor, first: torch.Tensor) -> Latent:
        torch.manual_seed(5)
        return rssm.obs_step(state, action, embed[:, 0], first)

    out = step(wild, action[:, 0], first)
    fresh = step(rssm.initial(3), torch.zeros(3, 2), torch.zeros(3))
    carried = step(wild, action[:, 0], torch.zeros(3))
    for row in range(3):
        same, other = (fresh, carried) if row in flagged else (carried, fresh)
        assert out.deter[row].equal(same.deter[row])
        assert out.stoch[row].equal(same.stoch[row])
        assert not out.deter[row].allclose(other.deter[row])


@pytest.mark.invariant(6)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_from_a_reset_on_a_window_equals_its_suffix_alone(rssm, k):
    embed, action, is_first = window(B=2, T=6)
    is_first[:, k] = 1
    torch.manual_seed(7)
    whole = rssm.observe(embed, action, is_first)
    torch.manual_seed(7)
    for _ in range(k):
        torch.rand(2, 3, 1)  # the noise of the rows before
    suffix = rssm.observe(embed[:, k:], action[:, k:], is_first[:, k:])
    assert whole.latent.stoch[:, k:].equal(suffix.latent.stoch)
    for long, short in (
        (whole.latent.deter, suffix.latent.deter),
        (whole.post, suffix.post),
        (whole.prior[0], suffix.prior[0]),
    ):
        torch.testing.assert_close(long[:, k:], short)


@pytest.mark.invariant(7)
def test_actions_are_scaled_down_to_one_and_never_up(rssm):
    state = rssm.initial(4)
    action = torch.tensor([[3.0, -0.5], [-7.0, 1.5], [0.1, 0.9], [-1.0, 1.0]])
    torch.manual_seed(3)
    after = rssm.img_step(state, action)
    torch.manual_seed(3)
    scaled = rssm.img_step(state, action / action.abs().clamp_min(1))
    assert after.deter.equal(scaled.deter)
    assert after.stoch.equal(scaled.stoch)
    plain = rssm.cell(state.deter, rssm.inputs(torch.cat([state.stoch.flatten(-2), action], -1)))
    assert after.deter[2:].equal(plain[2:]), "actions within one are taken as they are"
    assert not after.deter[:2].allclose(plain[:2])


@pytest.mark.invariant(8)
def test_prior_and_posterior_never_rule_a_class_out(rssm):
    posterior = rssm.observe(*window(B=4, T=5))
    for probs in (posterior.prior[0], posterior.post):
        assert UNIMIX / CLASSES - 1e-7 <= probs.min() < 1.5 * UNIMIX / CLASSES
        assert probs.max() > 0.9, "the distributions are sharp, so the floor is what is tested"
        torch.testing.assert_close(probs.sum(-1), torch.ones(4, 5, 3))
    stoch = posterior.latent.stoch
    assert ((stoch == 0) | (stoch == 1)).all()
    assert (stoch.sum(-1) == 1).all()


@pytest.mark.invariant(9)
def test_each_half_of_the_kl_moves_its_own_network(rssm):
    """One step with the recurrent state held still."""
    embed, *_ = window(B=4, T=1)
    deter = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    prior = rssm.prior(deter)
    post = rssm._probs(rssm.post_net(rssm.post_deter(deter) + rssm.post_embed(embed[:, 0])))
    dyn, rep, kl = kl_losses(post, prior, free_nats=1.0)
    assert (kl > 1).all(), "otherwise no half has a gradient"
    names = dict(rssm.named_parameters())

    def reached(loss: torch.Tensor) -> set[str]:
        grads = torch.autograd.grad(
            loss.sum(), list(names.values()), retain_graph=True, allow_unused=True
        )
        pairs = zip(names, grads, strict=True)
        return {name.split(".")[0] for name, grad in pairs if grad is not None and grad.any()}

    assert reached(dyn) == {"prior_net"}
    assert reached(rep) == {"post_net", "post_deter", "post_embed"}


@pytest.mark.invariant(9)
def test_small_kl_costs_one_nat_each_and_teaches_nothing():
    agent, batch = make_agent(), make_batch()
    model = agent.world_model
    for net in (model.rssm.prior_net, model.rssm.post_net):
        torch.nn.init.zeros_(net[-1].weight)  # both distributions are uniform
    _, losses, metrics = model.losses(batch)
    assert metrics["kl"].abs() < 1e-5
    torch.testing.assert_close(losses["dyn_loss"], torch.full((4, 8), 0.5))
    torch.testing.assert_close(losses["rep_loss"], torch.full((4, 8), 0.1))
    both = (losses["dyn_loss"] + losses["rep_loss"]).sum()
    grads = torch.autograd.grad(both, list(model.rssm.parameters()), allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)


@pytest.mark.invariant(12)
def test_the_loss_of_costs_from_one_on_counts_tenfold():
    agent, batch = make_agent(), make_batch()
    model = agent.world_model
    cost = torch.tensor([0.0, 0.5, 0.99, 1.0, 1.01, 4.0, 0.0, 1.0]).expand(4, 8)
    feat = torch.randn(4, 8, model.feat_size, generator=torch.Generator().manual_seed(3))
    weighted = model.head_losses(feat, batch._replace(cost=cost))["cost_loss"]
    plain = model.cost_head(feat).loss(cost)
    ratio = torch.tensor([1.0, 1, 1, 10, 10, 10, 1, 10]).expand(4, 8)
    torch.testing.assert_close(weighted / plain, ratio)
