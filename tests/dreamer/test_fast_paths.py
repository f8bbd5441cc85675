"""What makes updates fast changes no number: each short cut against the plain way, and bfloat16."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, distributions

from dreamer.distributions import Bernoulli, Normal, TwoHot, categorical_kl, unimix_probs
from dreamer.functional import lambda_return
from dreamer.imagination import choose_starts, imagine
from dreamer.networks import ImageEncoder
from dreamer.types import Trajectory
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
    joined = model.image_losses(feat, model.encoder.pixels(batch.obs))
    decoded = model.decoder(feat)
    for name, images in batch.obs.items():
        apart = (decoded[name] - images.float() / 255).square().sum((-3, -2, -1))
        torch.testing.assert_close(joined[name], apart, rtol=1e-5, atol=1e-5)
        ways = (gradients(x.mean(), model.decoder) for x in (joined[name], apart))
        for fast, plain in zip(*ways, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
        decoded = model.decoder(feat)  # its graph is spent
        joined = model.image_losses(feat, model.encoder.pixels(batch.obs))


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
