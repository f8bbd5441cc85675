"""Several prior heads on one GRU: what they are, what they learn, and where they disagree."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer.config import marks
from dreamer.distributions import categorical_kl, jensen_shannon, sample_one_hot
from dreamer.rssm import RSSM, PriorEnsemble, PriorHead, kl_losses, one_of
from dreamer.settings import BOTH, RSSMSettings
from tests.support.agents import make_agent, make_batch, make_config

M, D, HIDDEN, S, K = 4, 8, 12, 3, 5


def rssm(priors: int = M) -> RSSM:
    """A tiny model with one action."""
    torch.manual_seed(0)
    words = {"read": "sample", "imagine": "samples", "priors": priors}
    sizes = RSSMSettings(deter=D, hidden=HIDDEN, stoch=S, classes=K, unimix=0.01, **words)
    return RSSM(embed_size=6, action_size=1, settings=sizes)


def test_one_prior_has_the_parameters_of_before():
    """So older weights fit."""
    shapes = {name: tuple(value.shape) for name, value in rssm(1).prior_net.state_dict().items()}
    assert shapes == {
        "0.weight": (HIDDEN, D),
        "1.norm.weight": (HIDDEN,),
        "1.norm.bias": (HIDDEN,),
        "2.weight": (S * K, HIDDEN),
        "2.bias": (S * K,),
    }


def test_an_ensemble_is_so_many_separate_heads():
    """Its product is what each member would say alone, gradient included."""
    torch.manual_seed(0)
    heads, ensemble = (
        [PriorHead(D, HIDDEN, S * K) for _ in range(M)],
        PriorEnsemble(M, D, HIDDEN, S * K),
    )
    places = ("0.weight", "1.norm.weight", "1.norm.bias", "2.weight", "2.bias")
    for head in heads:
        for name in places[1:3]:
            torch.nn.init.normal_(head.get_parameter(name))
        torch.nn.init.normal_(head.get_parameter("2.bias"))
    stacked = [
        torch.stack([head.get_parameter(name).detach() for head in heads]) for name in places
    ]
    hidden, scale, shift, output, bias = stacked
    values = (hidden, scale, shift, output.transpose(1, 2), bias.unsqueeze(1))
    for parameter, value in zip(ensemble.parameters(), values, strict=True):
        parameter.data.copy_(value)
    deter = torch.randn(2, 7, D, requires_grad=True)
    together, alone = ensemble(deter), torch.cat([head(deter) for head in heads])
    assert together.shape == (M, 2, 7, S * K)
    torch.testing.assert_close(together, alone)
    weight = torch.randn_like(alone)
    grads = [torch.autograd.grad((x * weight).sum(), deter)[0] for x in (together, alone)]
    torch.testing.assert_close(*grads)


def test_members_begin_alike_in_spread_and_different_in_weights():
    torch.manual_seed(0)
    single, ensemble = PriorHead(256, 128, 256), PriorEnsemble(3, 256, 128, 256)
    for stacked, one in ((ensemble.hidden, single[0].weight), (ensemble.output, single[2].weight)):
        for member in stacked:
            torch.testing.assert_close(member.std(), one.std(), rtol=0.03, atol=0)
            torch.testing.assert_close(member.abs().max(), one.abs().max(), rtol=0.03, atol=0)
        assert (stacked[0] - stacked[1]).std() > stacked[0].std()


def test_disagreement_is_zero_for_equal_members_and_at_most_ln_m():
    equal = torch.rand(1, 6, S, K).softmax(-1).expand(M, -1, -1, -1)
    torch.testing.assert_close(jensen_shannon(equal), torch.zeros(6))
    certain = torch.eye(K)[:M].reshape(M, 1, 1, K).clamp_min(1e-12)  # each of another class
    torch.testing.assert_close(jensen_shannon(certain), torch.full((1,), math.log(M)))
    probs = torch.randn(M, 6, S, K).softmax(-1)
    mean_kl = categorical_kl(probs, probs.mean(0)).mean(0) / S
    torch.testing.assert_close(jensen_shannon(probs), mean_kl)


def test_each_member_has_its_own_free_nats():
    """The loss is the mean of theirs; what is near enough is not pulled, what is not still is."""
    post = torch.randn(2, 3, S, K).softmax(-1)
    far = torch.randn(2, 3, S, K, requires_grad=True)
    prior = torch.stack([post, (8 * far).softmax(-1)])
    dyn, rep, kl = kl_losses(post, prior, free_nats=1.0)
    beyond = categorical_kl(post, prior[1])
    assert (beyond > 1).all()
    torch.testing.assert_close(dyn, (1 + beyond) / 2)
    torch.testing.assert_close(rep, dyn)
    torch.testing.assert_close(kl, beyond.detach() / 2)
    (grad,) = torch.autograd.grad(dyn.sum(), far, retain_graph=True)
    (whole,) = torch.autograd.grad(beyond.sum(), far)
    torch.testing.assert_close(grad, whole / 2)


def test_members_agree_where_much_was_seen_and_disagree_elsewhere():
    """By the loss of the priors alone, on the states of two groups of which one is learned."""
    model = rssm()
    seen, unseen = (torch.randn(64, D) * 0.3 + shift for shift in (1.0, -1.0))
    post = (4 * torch.randn(S, K)).softmax(-1).expand(1, 64, S, K)
    adam = torch.optim.Adam(model.prior_net.parameters(), lr=1e-2)
    before = jensen_shannon(model.prior(seen)).mean()
    for _ in range(150):
        dyn, _, _ = kl_losses(post, model.prior(seen).unsqueeze(1), free_nats=0.0)
        adam.zero_grad()
        dyn.mean().backward()
        adam.step()
    known, unknown = (jensen_shannon(model.prior(x)).mean() for x in (seen, unseen))
    assert known < 0.1 * before
    assert unknown > 10 * known


def test_each_row_follows_one_member_drawn_evenly():
    members = torch.arange(float(M)).view(M, 1, 1, 1).expand(M, 4000, S, K)
    drawn = one_of(members)
    assert (drawn == drawn[:, :1, :1]).all(), "a row is all of one member"
    share = torch.bincount(drawn[:, 0, 0].long(), minlength=M) / 4000
    torch.testing.assert_close(share, torch.full((M,), 1 / M), atol=0.04, rtol=0)


def test_a_step_is_what_one_of_its_members_says():
    model = rssm()
    torch.nn.init.normal_(model.prior_net.output, std=3.0)
    with torch.no_grad():
        step = model.imagine_step(model.initial(50), torch.rand(50, 1))
    members = step.members()
    assert members.deter.equal(step.latent.deter.expand(M, 50, D))
    same = (members.stoch == step.latent.stoch).flatten(2).all(-1)  # (M, 50)
    assert same.any(0).all()
    assert not same.all(), "members differ somewhere"
    torch.manual_seed(5)
    probs = torch.rand(2, 3, S, K).softmax(-1)
    noise = torch.rand(3, S, 1)
    one, other = sample_one_hot(probs[:1].expand(2, -1, -1, -1), noise)
    assert one.equal(other), "the same probabilities and noise give the same sample"


def test_without_an_image_the_first_state_is_the_mode_of_the_priors_mean():
    model = rssm()
    state = model.initial(2)
    mean = model.prior(state.deter).mean(0)
    assert state.stoch.argmax(-1).equal(mean.argmax(-1))


@pytest.mark.parametrize("method", ["dreamerv3", "safedreamer", "fosp_offline", "bc"])
def test_every_method_learns_with_an_ensemble(method):
    agent, batch = make_agent(method, "debug", world_model__rssm__priors="3"), make_batch()
    before = [x.detach().clone() for x in agent.world_model.rssm.prior_net.parameters()]
    metrics = agent.update(batch)
    assert all(value.isfinite() for value in metrics.values())
    if method != "bc":
        assert 0 < metrics["imagination/disagreement"] < math.log(3)
    for old, new in zip(before, agent.world_model.rssm.prior_net.parameters(), strict=True):
        assert ((new - old).flatten(1).abs().amax(1) > 0).all(), "every member moves"
    images = agent.world_model.open_loop(batch, context=3)
    assert all(image.shape[:2] == (4, 8) for image in images.values())


def test_the_number_of_priors_belongs_to_what_a_run_takes_over():
    assert marks(type(make_config()), "must_match")["world_model.rssm.priors"] == BOTH
