"""The world model: sizes of docs/concepts/algorithm.md 2.1, losses, cost weighting, imagination."""

import copy
from dataclasses import replace

import pytest
import torch

from dreamer.functional import rarity_weights
from dreamer.imagination import choose_starts, imagine
from dreamer.networks import centred
from dreamer.world_model import ALL_ROWS
from fosp_ext.world_model import cost_weights, unweighted_probability
from tests.support.agents import make_agent, make_batch


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.invariant(11)
def test_parameter_counts_of_the_full_size():
    agent = make_agent("fosp_offline", "full")
    model, policy = agent.world_model, agent.policy
    counts = {
        "encoder": (model.encoder, 692_160),
        "rssm": (model.rssm, 7_745_536),
        "decoder": (model.decoder, 12_230_086),
        "reward": (model.reward_head, 1_836_799),
        "cost": (model.cost_head, 1_836_799),
        "cont": (model.cont_head, 1_706_497),
        "world model": (model, 26_047_877),
        "actor": (policy.actor, 1_708_036),
        "q": (policy.cost_critic.q_net, 1_837_823),
        "v": (policy.cost_critic.value_net, 1_836_799),
        "reachability": (policy.reachability.net, 1_706_497),
    }
    assert {name: parameters(module) for name, (module, _) in counts.items()} == {
        name: count for name, (_, count) in counts.items()
    }


def test_the_context_of_a_window_leads_the_state_and_is_not_learned_from():
    agent = make_agent(world_model__context="3")
    model, batch = agent.world_model, make_batch()
    before, rest = model.warm_up(batch)
    assert before is not None
    assert not before.latent.deter.requires_grad
    assert rest.reward.equal(batch.reward[:, 3:])
    assert before.action.equal(batch.action[:, 2])
    alone = model.losses(rest)[0].latent.deter[:, 0]
    led = model.losses(rest, before=before)[0].latent.deter[:, 0]
    assert not led.allclose(alone)
    assert model.update(rest, before)[0].deter.shape[1] == batch.reward.shape[1] - 3


def test_without_context_windows_are_whole():
    before, rest = make_agent().world_model.warm_up(batch := make_batch())
    assert before is None
    assert rest is batch


def test_a_frozen_world_model_stays_and_the_policy_learns():
    agent = make_agent()
    before = copy.deepcopy(agent.state_dict())
    metrics = agent.update(make_batch(), update_model=False)
    moved = {
        name.split(".")[0] for name, x in agent.named_parameters() if not x.equal(before[name])
    }
    assert moved == {"policy"}
    assert not any(name.startswith("wm/") for name in metrics)


def test_overfits_one_batch():
    sizes = {"world_model__cnn_depth": "8", "world_model__rssm__deter": "64"}
    agent = make_agent(**sizes, world_model__optimizer__lr="3e-3")
    batch = make_batch()
    losses = [agent.world_model.update(batch)[1] for _ in range(50)]
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    for name in ("reward_loss", "cost_loss", "cont_loss"):
        assert losses[-1][name] < 0.7 * losses[0][name], name


@pytest.mark.invariant(12)
def test_cost_weight_counts_from_one():
    weights = cost_weights(torch.tensor([0.0, 0.99, 1.0, 4.0]), 10.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 10.0, 10.0]))


def test_class_weight_is_undone():
    q = torch.linspace(0, 1, 11)
    fitted = 10 * q / (1 + 9 * q)
    torch.testing.assert_close(unweighted_probability(fitted, 10.0), q)


def test_scale_weighs_the_cost_beside_other_losses():
    plain, scaled = make_agent(), make_agent(cost_head__scale="30")
    batch, found = make_batch(), []
    for agent in (plain, scaled):
        torch.manual_seed(0)
        found.append(agent.world_model.losses(batch)[1])
    for name, loss in found[0].items():
        torch.testing.assert_close(found[1][name], (30 if name == "cost_loss" else 1) * loss)


def test_pixels_weigh_by_the_rarity_of_their_colour():
    model, batch = make_agent().world_model, make_batch()
    images = model.encoder.stacked(batch.obs)
    feat = torch.zeros(4, 8, model.feat_size)
    model.settings = replace(model.settings, colour_rarity=0.5)
    error = (model.decoder.pixels(feat) - centred(images)) ** 2 * rarity_weights(images, 0.5)
    wanted = model.decoder.by_camera(error.sum((-3, -2)))
    for camera, loss in model.image_losses(feat, images).items():
        torch.testing.assert_close(loss, wanted[camera].sum(-1))


def test_overshooting_follows_recorded_actions_within_an_episode():
    """The losses are those of the heads along `img_step`, and reach the dynamics alone."""
    model = make_agent(world_model__overshoot__steps="3", world_model__overshoot__every="2")
    model, batch = model.world_model, make_batch()
    posterior = model.losses(batch)[0]
    seen = []
    model.rssm.img_step = lambda state, action: seen.append(action) or state
    torch.manual_seed(0)
    losses = model.overshoot_losses(posterior.latent, batch)
    torch.manual_seed(0)
    rows = torch.arange(int(torch.randint(2, ())), 5, 2)
    assert len(seen) == 3
    for k, action in enumerate(seen):
        torch.testing.assert_close(action, batch.action[:, rows + k].flatten(0, 1))
    feat, total, count = posterior.latent.feat(), torch.zeros(()), 0
    for b in range(4):
        for row in rows.tolist():
            for k in range(1, 4):
                if batch.is_first[b, row + 1 : row + k + 1].any():
                    break
                total += model.cost_loss(feat[b, row], batch.cost[b, row + k])
                count += 1
    assert count < 4 * 3 * len(rows)  # two episodes end within the batch
    torch.testing.assert_close(losses["overshoot/cost_loss"], total / count)


def test_overshooting_teaches_the_dynamics():
    agent, batch = make_agent(world_model__overshoot__steps="3"), make_batch()
    model = agent.world_model
    losses = model.losses(batch)[1]
    loss = losses["overshoot/reward_loss"] + losses["overshoot/cost_loss"]
    prior = model.rssm.prior_net[0].weight
    (grad,) = torch.autograd.grad(loss, prior)
    assert grad.abs().sum() > 0
    assert not any("overshoot" in name for name in make_agent().world_model.losses(batch)[1])


def test_some_rows_are_drawn_and_all_are_learned():
    agent, batch = make_agent(world_model__recon_every="4"), make_batch()
    model, losses = agent.world_model, []
    for drawn in (ALL_ROWS, slice(3, None, 4)):
        torch.manual_seed(0)
        losses.append(model.losses(batch, drawn)[1])
    for name, loss in losses[0].items():
        rows = loss[:, 3::4] if name.startswith("image_loss") else loss
        torch.testing.assert_close(losses[1][name], rows)
    assert {model.recon_rows(8).start for _ in range(100)} == {0, 1, 2, 3}
    assert {model.recon_rows(2).start for _ in range(100)} == {0, 1}


def test_the_model_can_be_pretrained():
    agent = make_agent()
    before = copy.deepcopy(agent.state_dict())
    metrics = agent.update(make_batch(), update_policy=False)
    assert all(name.startswith("wm/") for name in metrics)
    moved = {
        name.split(".")[0]
        for name, value in agent.state_dict().items()
        if isinstance(value, torch.Tensor) and not value.equal(before[name])
    }
    assert moved == {"world_model"}


@pytest.mark.invariant(10)
def test_imagination_shapes_weights_and_alignment():
    agent, batch = make_agent(), make_batch()
    torch.nn.init.normal_(agent.world_model.reward_head.mlp[-1].weight)  # it starts at zero
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, 0)
    torch.manual_seed(3)
    traj = imagine(agent.world_model, agent.policy.actor, starts, horizon=5, gamma=0.9)
    N, F = 4 * 8, agent.world_model.feat_size
    assert traj.feat.shape == (N, 6, F)
    assert traj.action.shape == (N, 5, 2)
    assert traj.reward.shape == traj.cost.shape == traj.cont.shape == traj.weight.shape == (N, 5)
    assert traj.feat[:, 0].equal(starts.latent.feat())
    assert (traj.action.abs() <= 1).all()
    assert traj.weight[:, 0].equal(starts.cont)
    assert (traj.weight.diff(dim=1) <= 0).all()
    assert (traj.weight[2 * 8 + 5] == 0).all()  # it starts on a terminal row
    # reward[:, h] is what the head says on arriving at feat[:, h+1]
    arrived = agent.world_model.reward_head(traj.feat[:, 3]).mean()
    torch.testing.assert_close(traj.reward[:, 2], arrived)


@pytest.mark.invariant(10)
def test_imagination_repeats_single_steps():
    agent, batch = make_agent(), make_batch()
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, 0)
    torch.manual_seed(3)
    traj = imagine(agent.world_model, agent.policy.actor, starts, horizon=3, gamma=0.9)
    torch.manual_seed(3)
    state = starts.latent
    for h in range(3):
        action = agent.policy.actor(state.feat()).sample().clamp(-1, 1)
        torch.testing.assert_close(action, traj.action[:, h])
        state = agent.world_model.rssm.img_step(state, action)
        torch.testing.assert_close(state.feat(), traj.feat[:, h + 1])


@pytest.mark.parametrize("count", [0, 7, 32, 99])
def test_starts_are_rows_of_the_batch(count):
    agent, batch = make_agent(), make_batch()
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, count)
    assert len(starts.cont) == (count if 0 < count < 32 else 32)
    rows = latent.deter.flatten(0, 1)
    assert all((row == rows).all(1).any() for row in starts.latent.deter)


def test_open_loop_keeps_the_seen_rows_and_ignores_later_images():
    agent, batch = make_agent(), make_batch()
    torch.manual_seed(0)
    videos = agent.world_model.open_loop(batch, context=3)
    assert {name: video.shape for name, video in videos.items()} == {
        name: image.shape for name, image in batch.obs.items()
    }
    later = {name: image.clone() for name, image in batch.obs.items()}
    for image in later.values():
        image[:, 3:] = 0
    torch.manual_seed(0)
    again = agent.world_model.open_loop(batch._replace(obs=later), context=3)
    assert all(again[name].equal(videos[name]) for name in videos)
