"""What makes updates fast changes no number: each short cut against the plain way, and bfloat16."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, distributions

from dreamer.distributions import (
    Bernoulli,
    Normal,
    TwoHot,
    categorical_kl,
    sample_one_hot,
    unimix_probs,
)
from dreamer.functional import lambda_return
from dreamer.imagination import choose_starts, imagine
from dreamer.networks import ImageEncoder, StepLinear, centred
from dreamer.rssm import some_begin, state_or, within_bounds
from dreamer.types import Latent, Trajectory
from tests.support.agents import make_agent, make_batch


def randoms(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, module: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


@pytest.fixture
def rollout():
    """A FOSP agent whose zero heads have moved, recorded states and a rollout."""
    agent = make_agent(precision="float32")
    for k in range(2):
        agent.update(make_batch(seed=k))
    batch = make_batch()
    latent, _ = agent.world_model.update(batch)
    actor = agent.policy.actor
    traj = imagine(agent.world_model, actor, choose_starts(latent, batch, 0), 5, 0.99)
    return agent, traj


def test_the_posterior_in_two_layers_is_one_layer_on_both():
    rssm = make_agent().world_model.rssm
    deter, embed = randoms(3, 16), randoms(3, rssm.post_embed.in_features, seed=1)
    weight = torch.cat([rssm.post_deter.weight, rssm.post_embed.weight], 1)
    joined = torch.cat([deter, embed], 1) @ weight.T
    torch.testing.assert_close(rssm.post_deter(deter) + rssm.post_embed(embed), joined)


def test_the_entropy_of_a_rollout_is_that_of_its_policy(rollout):
    """Taken while imagining, in value and gradient, instead of asking the policy again."""
    agent, traj = rollout
    actor = agent.policy.actor
    again = actor(traj.feat[:, :-1].detach()).entropy()
    torch.testing.assert_close(traj.entropy, again, rtol=1e-6, atol=1e-6)
    ways = (gradients((traj.weight * x).mean(), actor) for x in (traj.entropy, again))
    for fast, plain in zip(*ways, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-7)


def test_image_losses_of_merged_cameras_are_those_of_each():
    """Both cameras in one tensor around zero, against each image from 0 to 1 by itself."""
    model, batch = make_agent(precision="float32").world_model, make_batch()
    feat = randoms(4, 8, model.feat_size)
    joined = model.image_losses(feat, model.encoder.stacked(batch.obs))
    decoded = model.decoder(feat)
    for name, images in batch.obs.items():
        apart = (decoded[name] - images.float() / 255).square().sum((-3, -2, -1))
        torch.testing.assert_close(joined[name], apart, rtol=1e-5, atol=1e-5)
        ways = (gradients(x.mean(), model.decoder) for x in (joined[name], apart))
        for fast, plain in zip(*ways, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
        decoded = model.decoder(feat)  # its graph is spent
        joined = model.image_losses(feat, model.encoder.stacked(batch.obs))


FAULTS = """
import resource, torch
from dreamer.utils import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(60)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept():
    """64 MiB again and again: thousands of fresh pages each time, or none in the end."""
    counts = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)]))
        for keep in (False, True)
    ]
    assert counts[1] < 100 < counts[0]


@pytest.mark.parametrize("preset", ["fosp_offline", "safedreamer", "bc", "dreamerv3"])
def test_no_update_copies_a_number_to_the_device(preset, monkeypatch):
    """A GPU would have to be waited for."""
    agent, batch = make_agent(preset, "debug"), make_batch()

    def guarded(make):
        def call(*args, **kwargs):
            device = kwargs.get("device")  # Adam says "cpu", whatever it is used on
            assert not isinstance(device, torch.device), f"{make.__name__}{args}"
            return make(*args, **kwargs)

        return call

    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, guarded(getattr(torch, name)))
    agent.update(batch)


def plain_imagined_losses(critic, traj: Trajectory, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses with a pass of its own for every number that is needed."""
    feat, action, im = traj.feat[:, :-1], traj.action, critic.imagination
    with torch.no_grad():
        values = [critic.value(traj.feat[:, h]) for h in range(traj.feat.shape[1])]
        returns = lambda_return(signal, traj.cont, torch.stack(values, 1), im.gamma, im.lam)
        target_q = critic.target_q(feat, action)
        error = critic.sign * (target_q - critic.value(feat))
    tau = critic.settings.imagined_expectile
    weight = torch.where(error < 0, 1 - tau, tau)
    v_loss = (traj.weight * weight * critic.value_net(feat).loss(target_q)).mean()
    inputs = torch.cat([feat, action], -1)
    q_loss = critic.q_net(inputs).loss(returns)
    q_loss = q_loss + critic.settings.target_weight * critic.q_net(inputs).loss(target_q)
    return v_loss, (traj.weight * q_loss).mean()


@pytest.mark.parametrize("name", ["reward", "cost"])
def test_one_pass_of_each_critic_is_enough(rollout, name):
    agent, traj = rollout
    critic, traj = getattr(agent.policy, f"{name}_critic"), traj.detach()
    found = critic.imagined_losses(traj, getattr(traj, name))
    expected = plain_imagined_losses(critic, traj, getattr(traj, name))
    for loss, plain in zip((found["v_loss"], found["q_loss"]), expected, strict=True):
        torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-7)
    learning = torch.nn.ModuleList([critic.value_net, critic.q_net])
    ways = (
        gradients(sum(losses), learning)
        for losses in ((found["v_loss"], found["q_loss"]), expected)
    )
    for fast, plain in zip(*ways, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-7)


def test_the_order_of_channels_in_memory_decides_nothing():
    torch.manual_seed(0)
    encoder = ImageEncoder({"vision": (64, 64, 3)}, 4)
    plain = copy.deepcopy(encoder).to(memory_format=torch.contiguous_format)
    obs = {"vision": make_batch().obs["vision"]}
    torch.testing.assert_close(encoder(obs), plain(obs), rtol=1e-5, atol=1e-5)


def test_plain_tensors_say_what_distributions_of_torch_say():
    mean, std, x = randoms(5, 2), randoms(5, 2, seed=1).exp(), randoms(5, 2, seed=2)
    theirs = distributions.Independent(distributions.Normal(mean, std), 1)
    torch.testing.assert_close(Normal(mean, std).log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(Normal(mean, std).entropy(), theirs.entropy())
    logit, seen = randoms(6), (randoms(6, seed=1) > 0).float()
    theirs = distributions.Bernoulli(logits=logit)
    torch.testing.assert_close(Bernoulli(logit).loss(seen), -theirs.log_prob(seen))
    left, right = (unimix_probs(randoms(4, 3, 7, seed=k), 0.01) for k in (0, 1))
    pair = [distributions.Independent(distributions.Categorical(p), 1) for p in (left, right)]
    expected = distributions.kl_divergence(*pair)
    torch.testing.assert_close(categorical_kl(left, right), expected)
    bins = torch.arange(7.0)
    dist = distributions.Categorical(logits=randoms(4, 7))
    own = TwoHot(randoms(4, 7), bins).cross_entropy(torch.eye(7)[[0, 3, 6, 2]])
    torch.testing.assert_close(own, -dist.log_prob(torch.tensor([0, 3, 6, 2])))


def learn(precision: str, updates: int, last: int) -> dict[str, float]:
    """Mean losses of the last of so many updates on four batches in turn."""
    sizes = {"world_model__rssm__deter": "32", "world_model__cnn_depth": "4"}
    faster = {"world_model__optimizer__lr": "1e-3", "critic__optimizer__lr": "1e-3"}
    agent = make_agent("fosp_offline", "debug", precision=precision, **sizes, **faster)
    batches = [make_batch(seed=k) for k in range(4)]
    torch.manual_seed(1)
    lines = [agent.update(batches[k % 4]) for k in range(updates)]
    return {name: sum(float(line[name]) for line in lines[-last:]) / last for name in lines[0]}


def test_bfloat16_learns_what_float32_learns():
    """Draws differ where probabilities differ in the last bits, so means of a few updates agree."""
    plain, fast = (learn(precision, 40, 8) for precision in ("float32", "bfloat16"))
    start = learn("float32", 1, 1)
    compared = {
        "wm/loss": 0.02,
        "wm/image_loss/vision": 0.02,
        "wm/reward_loss": 0.05,
        "wm/cost_loss": 0.05,
        "reward_critic/loss": 0.05,
        "cost_critic/loss": 0.05,
        "reach/loss": 0.05,
    }
    for name, tolerance in compared.items():
        assert fast[name] == pytest.approx(plain[name], rel=tolerance), name
    assert plain["wm/loss"] < 0.8 * start["wm/loss"], "it learned something"


def plain_draw(probs: Tensor, noise: Tensor) -> Tensor:
    """One-hot of the first class whose cumulative probability reaches the noise."""
    index = (probs.cumsum(-1) < noise).sum(-1).clamp_max(probs.shape[-1] - 1)
    return torch.nn.functional.one_hot(index, probs.shape[-1]).float()


def test_draws_are_those_of_the_cumulative_probabilities_and_pass_the_gradient():
    noise = torch.rand(5, 1, 3, 1, generator=torch.Generator().manual_seed(0))
    noise[0, 0, :, 0] = torch.tensor([0.0, 0.5, 1.0])  # 1 never comes, but sums may end below it
    probs = unimix_probs(randoms(5, 4, 3, 6), 0.01).requires_grad_()
    drawn = sample_one_hot(probs, noise)  # the noise of one column serves all four
    torch.testing.assert_close(drawn, plain_draw(probs, noise))
    grad = randoms(5, 4, 3, 6, seed=1)
    torch.testing.assert_close(torch.autograd.grad(drawn, probs, grad)[0], grad)


def test_mixed_probabilities_are_those_of_the_formula():
    logits = randoms(5, 3, 7)
    expected = 0.9 * logits.softmax(-1) + 0.1 / 7
    torch.testing.assert_close(unimix_probs(logits, 0.1), expected)


def test_features_come_in_the_type_of_matrix_products():
    """So that they are lowered once, not by each network that reads them."""
    latent = Latent(randoms(4, 8), randoms(4, 2, 3))
    assert latent.feat().dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        lowered = latent.feat()
    assert lowered.dtype == torch.bfloat16
    torch.testing.assert_close(lowered, latent.feat().bfloat16(), rtol=0, atol=0)


def test_images_are_lowered_without_a_copy_in_float32():
    """All 256 values, as exactly as their type can say them."""
    images = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(centred(images), images.float() / 255 - 0.5)
    lowered = centred(images, torch.bfloat16)
    torch.testing.assert_close(lowered, centred(images).bfloat16(), rtol=0, atol=0)


def test_windows_that_begin_together_are_followed_as_any_other():
    """Rows where no episode begins are passed over on a CPU, and only there."""
    rssm, batch = make_agent(precision="float32").world_model.rssm, make_batch()
    is_first = torch.zeros_like(batch.is_first)
    is_first[:, 0] = is_first[1, 5] = 1
    assert some_begin(is_first) == [t in (0, 5) for t in range(8)]
    assert some_begin(torch.zeros(2, 3, device="meta")) == [True] * 3
    embed = randoms(4, 8, rssm.post_embed.in_features)
    torch.manual_seed(0)
    found = rssm.observe(embed, batch.action, is_first)
    torch.manual_seed(0)
    noise = torch.rand(8, 4, rssm.stoch, 1)
    state, lowered = rssm.initial(4), rssm.post_embed(embed)
    for t in range(8):
        before = batch.action[:, t - 1] if t else torch.zeros_like(batch.action[:, 0])
        state = state_or(rssm.initial(4), is_first[:, t], state)
        action = within_bounds(before * (1 - is_first[:, t, None]))
        state, post = rssm._follow(state, action, lowered[:, t], noise[t])
        torch.testing.assert_close(found.latent.deter[:, t], state.deter)
        torch.testing.assert_close(found.post[:, t], post)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_of_a_loop_gets_the_gradient_of_all_its_steps(bias):
    """Also where a step counts for nothing, and where the graph is asked twice."""
    torch.manual_seed(0)
    layer = StepLinear(3, 3, bias)

    def loss(steps: int = 4) -> Tensor:
        x, total = inputs, torch.zeros(())
        for k in range(steps):
            x = torch.tanh(layer(x))
            total = total + (k + 1) * x.square().sum()
        layer(x)  # the last one is not used
        return total

    inputs = randoms(5, 3).requires_grad_()
    wanted = [inputs, *layer.parameters()]
    plain = torch.autograd.grad(loss(), wanted)
    with layer.repeated():
        joined = loss()
        assert joined == loss()
    for _ in range(2):
        found = torch.autograd.grad(joined, wanted, retain_graph=True)
        for fast, slow in zip(found, plain, strict=True):
            torch.testing.assert_close(fast, slow)
    (alone,) = torch.autograd.grad(joined, [inputs], retain_graph=True)
    torch.testing.assert_close(alone, plain[0])
    found = torch.autograd.grad(joined, wanted)
    torch.testing.assert_close(found[1], plain[1])
    with layer.repeated(), torch.no_grad():
        torch.testing.assert_close(layer(inputs), torch.nn.functional.linear(inputs, *wanted[1:]))
