"""The formulas, against numbers worked out by hand and against naive loops."""

import math

import pytest
import torch

from dreamer.distributions import TwoHot, symlog_bins
from dreamer.functional import (
    discount_weights,
    lambda_return,
    masked_mean,
    polyak_,
    rarity_weights,
    symexp,
    symlog,
    two_hot,
)
from dreamer.networks import TwoHotHead


@pytest.mark.invariant(1)
def test_symexp_inverts_symlog_and_both_are_odd():
    x = torch.cat([10.0 ** torch.arange(-6, 7), torch.zeros(1)]).double()
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-6, atol=0)
    torch.testing.assert_close(symlog(-x), -symlog(x))
    assert (symlog(x[:-1]).diff() > 0).all()


@pytest.mark.invariant(2)
def test_two_hot_by_hand():
    bins = torch.tensor([-1.0, 0.0, 2.0])
    code = two_hot(torch.tensor([0.5, -1.0, 0.0, 9.0, -9.0]), bins)
    expected = [[0, 0.75, 0.25], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    torch.testing.assert_close(code, torch.tensor(expected).float())


@pytest.mark.invariant(2)
def test_two_hot_round_trip():
    bins = symlog_bins().double()
    y = torch.linspace(-1e5, 1e5, 4001).double()
    code = two_hot(symlog(y), bins)
    torch.testing.assert_close(code.sum(-1), torch.ones_like(y))
    assert ((code > 0).sum(-1) <= 2).all()
    decoded = symexp((code * bins).sum(-1))
    torch.testing.assert_close(decoded, y, rtol=1e-5, atol=1e-5)
    assert two_hot(torch.zeros(1).double(), bins)[0, 127] == pytest.approx(1)


@pytest.mark.invariant(3)
def test_two_hot_loss_is_least_at_its_target_and_has_the_softmax_gradient():
    bins = symlog_bins()
    logits = torch.randn(3, 255, requires_grad=True, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0.0, 1.7, -30.0])
    target = two_hot(symlog(y), bins)
    (grad,) = torch.autograd.grad(TwoHot(logits, bins).loss(y).sum(), logits)
    torch.testing.assert_close(grad, logits.softmax(-1) - target, rtol=1e-4, atol=1e-6)
    entropy = -torch.xlogy(target, target).sum(-1)
    best = TwoHot((target + 1e-30).log(), bins).loss(y)
    torch.testing.assert_close(best, entropy, rtol=1e-4, atol=1e-5)
    assert (TwoHot(logits, bins).loss(y) > best).all()


@pytest.mark.invariant(4)
def test_zero_initialised_head_predicts_zero():
    head = TwoHotHead(8, layers=2, units=16, outscale=0.0)
    assert head(torch.randn(5, 8)).mean().abs().max() < 1e-6


def test_mass_above_counts_the_bins_from_the_threshold_on():
    logits = torch.full((1, 255), -1e9)
    logits[0, 130] = 0.0
    assert TwoHot(logits, symlog_bins()).mass_above(0.5) == 1.0
    logits[0, 129], logits[0, 130] = 0.0, -1e9
    assert TwoHot(logits, symlog_bins()).mass_above(0.5) == 0.0


def naive_lambda_return(reward, cont, value, gamma, lam):
    out = [0.0] * len(reward)
    last = value[-1]
    for h in reversed(range(len(reward))):
        last = reward[h] + gamma * cont[h] * ((1 - lam) * value[h + 1] + lam * last)
        out[h] = last
    return out


@pytest.mark.invariant(13)
def test_lambda_return_by_hand_on_three_steps():
    reward, cont = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    # h=2: 3 + 0.5*40 = 23; h=1: 2 (the episode ends); h=0: 1 + 0.5*(0.5*20 + 0.5*2) = 6.5
    out = lambda_return(reward, cont, value, gamma=0.5, lam=0.5)
    torch.testing.assert_close(out, torch.tensor([[6.5, 2.0, 23.0]]))


@pytest.mark.invariant(13)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_equals_the_naive_loop(lam):
    g = torch.Generator().manual_seed(1)
    reward, value = torch.randn(4, 6, generator=g), torch.randn(4, 7, generator=g)
    cont = (torch.rand(4, 6, generator=g) > 0.2).float()
    out = lambda_return(reward, cont, value, 0.9, lam)
    for n in range(4):
        expected = naive_lambda_return(
            reward[n].tolist(), cont[n].tolist(), value[n].tolist(), 0.9, lam
        )
        torch.testing.assert_close(out[n], torch.tensor(expected))


@pytest.mark.invariant(13)
def test_lambda_return_special_cases():
    reward, cont, value = torch.ones(1, 4), torch.ones(1, 4), torch.full((1, 5), 7.0)
    one_step = lambda_return(reward, cont, value, 0.9, 0.0)
    torch.testing.assert_close(one_step, torch.full((1, 4), 1 + 0.9 * 7))
    full = lambda_return(reward, cont, value, 0.9, 1.0)[0, 0]
    torch.testing.assert_close(full, torch.tensor(1 + 0.9 + 0.81 + 0.729 + 0.9**4 * 7))
    fixed = torch.full((1, 5), 1 / (1 - 0.9))
    torch.testing.assert_close(lambda_return(reward, cont, fixed, 0.9, 0.95), fixed[:, 1:])
    per_step = lambda_return(reward, cont, value, 0.9, torch.full((1, 4), 0.95))
    torch.testing.assert_close(per_step, lambda_return(reward, cont, value, 0.9, 0.95))


@pytest.mark.invariant(10)
def test_discount_weights():
    weights = discount_weights(
        torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0, 1], [1, 1, 1]]), 0.5
    )
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.5, 0.0], [0, 0, 0]]))


def test_masked_mean():
    x, mask = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 1.0, 0.0])
    assert masked_mean(x, mask) == 1.5
    assert masked_mean(x, torch.zeros(3)) == 0


def test_polyak_moves_by_the_rate():
    target, net = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(target.weight, 1.0)
    torch.nn.init.constant_(net.weight, 2.0)
    polyak_(target, net, 0.25)
    assert math.isclose(target.weight.item(), 1.25)
    assert net.weight.item() == 2.0


def test_rare_colours_weigh_more_and_the_mean_weight_is_one():
    """Twelve pixels of two cameras: one red, two nearly alike blue ones and nine black."""
    images = torch.zeros(2, 3, 6, dtype=torch.uint8)
    images[0, 0, 0] = 255  # red, first camera
    images[1, 1, 5], images[1, 2, 5] = 255, 252  # blue, second camera
    weights = rarity_weights(images, 0.5)
    assert weights.shape == images.shape
    assert weights.mean().item() == pytest.approx(1)
    black = weights[0, 1, 3].item()
    assert weights[0, 0, :3].tolist() == pytest.approx([3 * black] * 3)
    assert weights[1, 2, 3:].tolist() == pytest.approx([(9 / 2) ** 0.5 * black] * 3)
    assert weights[1, 2, :3].tolist() == pytest.approx([black] * 3)
    torch.testing.assert_close(rarity_weights(images, 0), torch.ones(images.shape))
