"""The recurrent model: resets, steps, probabilities and KL.

See docs/concepts/algorithm.md 2.1, 2.3.
"""

from dataclasses import replace

import pytest
import torch

from dreamer.distributions import categorical_kl, sample_one_hot, unimix_probs
from dreamer.rssm import RSSM, Before, kl_losses
from dreamer.settings import RSSMSettings
from dreamer.types import Latent

SIZES = RSSMSettings(
    deter=8, hidden=12, stoch=3, classes=5, unimix=0.01, read="sample", imagine="samples", priors=1
)


@pytest.fixture
def rssm():
    torch.manual_seed(0)
    model = RSSM(embed_size=10, action_size=2, settings=SIZES)
    torch.nn.init.normal_(model.initial_deter)
    return model


def window(B=3, T=6):
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(B, T, 10, generator=g),
        torch.rand(B, T, 2, generator=g) * 2 - 1,
        torch.zeros(B, T),
    )


@pytest.mark.invariant(5)
def test_first_step_forgets_state_and_action(rssm):
    embed, action, _ = window()
    state = Latent(torch.randn(3, 8), sample_one_hot(torch.full((3, 3, 5), 0.2)))
    first = torch.tensor([1.0, 0.0, 1.0])
    torch.manual_seed(5)
    mixed = rssm.obs_step(state, action[:, 0], embed[:, 0], first)
    torch.manual_seed(5)
    fresh = rssm.obs_step(rssm.initial(3), torch.zeros(3, 2), embed[:, 0], torch.zeros(3))
    torch.manual_seed(5)
    carried = rssm.obs_step(state, action[:, 0], embed[:, 0], torch.zeros(3))
    for row, same in enumerate((fresh, carried, fresh)):
        assert mixed.deter[row].equal(same.deter[row])
        assert mixed.stoch[row].equal(same.stoch[row])


def test_a_window_goes_on_from_the_row_before_it(rssm):
    embed, action, is_first = window()
    is_first[:, 0] = is_first[1, 4] = 1
    torch.manual_seed(7)
    whole = rssm.observe(embed, action, is_first)
    torch.manual_seed(7)
    seen = rssm.observe(embed[:, :2], action[:, :2], is_first[:, :2]).latent
    before = Before(Latent(*(x[:, -1] for x in seen)), action[:, 1])
    rest = rssm.observe(embed[:, 2:], action[:, 2:], is_first[:, 2:], before)
    assert rest.latent.deter.equal(whole.latent.deter[:, 2:])
    assert rest.post.equal(whole.post[:, 2:])


def test_observe_equals_step_by_step(rssm):
    embed, action, is_first = window()
    is_first[:, 0] = 1
    is_first[1, 3] = 1
    torch.manual_seed(7)
    whole = rssm.observe(embed, action, is_first).latent
    torch.manual_seed(7)
    state, before = rssm.initial(3), torch.zeros(3, 2)
    for t in range(6):
        state = rssm.obs_step(state, before, embed[:, t], is_first[:, t])
        before = action[:, t]
        torch.testing.assert_close(state.deter, whole.deter[:, t])
        assert state.stoch.equal(whole.stoch[:, t])


@pytest.mark.invariant(6)
def test_a_reset_in_the_middle_is_a_fresh_start(rssm):
    embed, action, is_first = window(B=1)
    is_first[0, 0] = is_first[0, 3] = 1
    posterior = rssm.observe(embed, action, is_first)
    other_past = torch.cat([torch.randn(1, 3, 10), embed[:, 3:]], 1)
    again = rssm.observe(other_past, action, is_first)
    torch.testing.assert_close(posterior.post[:, 3], again.post[:, 3])
    assert not posterior.post[:, 2].allclose(again.post[:, 2])


def test_the_action_before_leads_to_the_row(rssm):
    embed, action, is_first = window(B=1)
    changed = action.clone()
    changed[0, 2] += 0.5
    torch.manual_seed(0)
    base = rssm.observe(embed, action, is_first).latent.deter
    torch.manual_seed(0)
    moved = rssm.observe(embed, changed, is_first).latent.deter
    assert moved[:, :3].equal(base[:, :3])
    assert not moved[:, 3].allclose(base[:, 3])


@pytest.mark.invariant(7)
def test_actions_beyond_one_count_as_one(rssm):
    state = rssm.initial(1)
    big, unit = torch.tensor([[3.0, -0.5]]), torch.tensor([[1.0, -0.5]])
    torch.testing.assert_close(rssm.prior_step(state, big), rssm.prior_step(state, unit))


@pytest.mark.invariant(8)
def test_probabilities_and_straight_through_gradient():
    logits = (20 * torch.randn(100, 3, 5)).requires_grad_()
    probs = unimix_probs(logits, 0.01)
    assert probs.min() >= 0.01 / 5 - 1e-7
    torch.testing.assert_close(probs.sum(-1), torch.ones(100, 3))
    sample = sample_one_hot(probs)
    assert ((sample == 0) | (sample == 1)).all()
    assert (sample.sum(-1) == 1).all()
    weight = torch.randn_like(sample)
    (grad,) = torch.autograd.grad((sample * weight).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((probs * weight).sum(), logits)
    torch.testing.assert_close(grad, expected)


def test_samples_follow_their_probabilities():
    torch.manual_seed(0)
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    share = sample_one_hot(probs.expand(20000, 1, 4)).mean((0, 1))
    torch.testing.assert_close(share, probs, atol=0.02, rtol=0)


@pytest.mark.invariant(9)
def test_kl_is_zero_for_equal_dists_and_trains_one_side_each():
    a = torch.randn(2, 4, 3, 5, requires_grad=True)
    b = torch.randn(2, 4, 3, 5, requires_grad=True)
    post, prior = unimix_probs(a, 0.01), unimix_probs(b, 0.01)
    assert categorical_kl(post, post).abs().max() < 1e-6
    assert (categorical_kl(post, prior) >= 0).all()
    dyn, rep, _ = kl_losses(post, prior.unsqueeze(0), free_nats=0.0)
    assert torch.autograd.grad(dyn.sum(), (a, b), allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(rep.sum(), (a, b), allow_unused=True, retain_graph=True)[1] is None
    dyn, rep, kl = kl_losses(post, prior.unsqueeze(0), free_nats=1e3)
    assert (dyn == 1e3).all()
    assert (kl < 1e3).all()
    (grad,) = torch.autograd.grad(dyn.sum(), b)
    assert (grad == 0).all()


def test_what_is_read_is_the_posterior_without_chance():
    """Acting, two runs of the same images agree whatever is drawn elsewhere."""
    rssm = RSSM(10, 2, replace(SIZES, read="probabilities"))
    embed, action = torch.randn(3, 1, 10), torch.randn(3, 2)
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = rssm.initial(3)
        for first in (1.0, 0.0):
            state = rssm.obs_step(state, action, embed[:, 0], torch.full((3,), first))
        runs.append(state)
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    torch.testing.assert_close(runs[0].stoch.sum(-1), torch.ones(3, 3))
    assert 0 < runs[0].stoch.amax() < 1
    posterior = rssm.observe(embed, action.unsqueeze(1), torch.ones(3, 1))
    read = rssm.readable(posterior.latent, posterior.post)
    assert read.stoch is posterior.post
    assert set(posterior.latent.stoch.unique().tolist()) <= {0.0, 1.0}


def test_imagined_probabilities_are_followed_without_chance():
    rssm = RSSM(10, 2, replace(SIZES, imagine="probabilities", priors=2))
    state, action = rssm.initial(3), torch.randn(3, 2)
    torch.manual_seed(0)
    ahead = rssm.imagine_step(state, action)
    assert ahead.members().stoch is ahead.prior
    one_row = torch.stack([ahead.prior[:, n] for n in range(3)])  # (N, M, S, K)
    assert all(
        any(z.equal(x) for x in row) for z, row in zip(ahead.latent.stoch, one_row, strict=True)
    )
    single = RSSM(10, 2, replace(SIZES, imagine="probabilities"))
    twice = [single.img_step(single.initial(3), action).stoch for _ in range(2)]
    assert twice[0].equal(twice[1])
    assert 0 < twice[0].max() < 1
