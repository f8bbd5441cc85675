"""Baselines, ablations and presets of the release: which part each has, learns and leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch

import train
from dreamer.agent import Agent
from dreamer.config import load_presets
from dreamer.envs.counting import CountingEnv
from dreamer.imagination import choose_starts, imagine
from dreamer.training.evaluation import VideoRecorder, run_episode
from dreamer.types import Batch, Trajectory
from fosp_ext.config import RECIPES, SIZES
from fosp_ext.lagrange import NoConstraint
from fosp_ext.reachability import AlwaysFeasible
from fosp_ext.run.run_folder import load_run
from fosp_ext.transitions import RealTransitions, real_transitions
from tests.support.agents import INFO, ROOT, make_agent, make_batch, make_config
from tests.support.commands import metrics, saved

CPU = torch.device("cpu")
FOSP = ("fosp_offline", "debug")
# no offline runs of their own
OTHERS = ("defaults", "no_policy_set", *SIZES, *RECIPES, "SafeReach-v0")
WHAT = [name for name in load_presets(ROOT / "configs.yaml") if name not in OTHERS]
RUNS = {  # every offline preset: the words after --configs; one that removes a part follows FOSP
    name: ("fosp_offline", name) if name.startswith("no_") else (name,)
    for name in WHAT
    if make_config(name).mode == "offline"
}


def look(agent: Agent, batch: Batch) -> tuple[RealTransitions, Trajectory]:
    """The recorded transitions of a batch and a rollout from it, without learning."""
    torch.manual_seed(5)
    posterior, _, _ = agent.world_model.losses(batch)
    latent = posterior.latent.detach()
    starts = choose_starts(latent, batch, 0)
    traj = imagine(agent.world_model, agent.policy.actor, starts, 5, 0.99)
    return real_transitions(latent, batch), traj


def moved(agent: Agent, batch: Batch) -> set[str]:
    """Parts of the policy that one update changes."""
    before = {name: p.clone() for name, p in agent.policy.named_parameters()}
    agent.update(batch)
    after = agent.policy.named_parameters()
    return {name.split(".")[0] for name, p in after if not p.equal(before[name])}


def actor_gradient(agent: Agent, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    parameters = list(agent.policy.actor.parameters())
    return torch.autograd.grad(loss, parameters, retain_graph=True)


# Whole runs


@pytest.mark.parametrize("name", RUNS)
def test_every_preset_trains_goes_on_and_plays(name, toy_dataset, tmp_path):
    """Twenty updates in two starts; then the newest checkpoint plays an episode for a video."""
    words = ["--configs", *RUNS[name], "debug", "--dataset.path", str(toy_dataset)]
    words += ["--logdir", str(tmp_path), "--device", "cpu", "--run.heldout_every", "0"]
    assert train.main([*words, "--run.updates", "10"]) == 0
    assert train.main(words) == 0
    assert saved(tmp_path)["step"] == 20
    assert [line["step"] for line in metrics(tmp_path)] == [5, 10, 15, 20]
    agent = load_run(tmp_path, CPU).agent
    assert all(torch.isfinite(p).all() for p in agent.parameters())
    video = VideoRecorder()
    result = run_episode(agent, CountingEnv(5, None, INFO.cameras, INFO.size, 2), 0, CPU, video)
    assert result.length == len(video.frames) == 5


@pytest.mark.parametrize("name", ["safedreamer", "bc"])
def test_baselines_continue_bit_equal(name):
    """Parameters, Adam, scales and multiplier are all in the state."""
    one, other = make_agent(name, "debug"), make_agent(name, "debug", seed="7")
    for k in range(3):
        one.update(make_batch(seed=k))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    torch.manual_seed(11)
    first = one.update(make_batch(seed=9))
    torch.manual_seed(11)
    second = other.update(make_batch(seed=9))
    assert first == second
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in RUNS if name != "fosp_offline"])
def test_updates_are_finite_in_both_precisions(name, precision):
    agent = make_agent(*RUNS[name], "debug", precision=precision)
    result = [agent.update(make_batch(seed=k)) for k in range(2)][-1]
    assert all(torch.isfinite(value) and value.ndim == 0 for value in result.values())
    assert not any(value.requires_grad for value in result.values())


def test_world_models_of_all_safe_methods_learn_the_same():
    """Comparisons are about the policy: the model's losses of the first update are equal."""
    losses = set()
    for name in RUNS.keys() - {"dreamerv3"}:  # which has no cost decoder
        agent = make_agent(*RUNS[name], "debug")
        torch.manual_seed(3)
        losses.add(float(agent.update(make_batch())["wm/loss"]))
    assert len(losses) == 1


# Behaviour cloning


def test_cloning_moves_the_policy_alone():
    agent = make_agent("bc", "debug")
    assert moved(agent, make_batch()) == {"actor"}
    assert {name.split(".")[0] for name, _ in agent.policy.named_parameters()} == {"actor"}
    assert agent.policy.estimates(torch.zeros(2, agent.world_model.feat_size)) == {}


def test_cloning_makes_the_recorded_actions_likelier():
    agent, batch = make_agent("bc", "debug", actor__optimizer__lr="3e-3"), make_batch()
    real, _ = look(agent, batch)
    weights = [p.clone() for p in agent.world_model.parameters()]
    likelihood = [float(agent.policy.update_actor(real)["data_log_prob"]) for _ in range(150)]
    assert likelihood[-1] > likelihood[0] + 0.5
    assert all(p.equal(q) for p, q in zip(agent.world_model.parameters(), weights, strict=True))


def test_cloning_reads_neither_reward_nor_cost_nor_the_row_behind_an_episode():
    agents = [make_agent("bc", "debug") for _ in range(2)]
    real, _ = look(agents[0], make_batch())
    action = torch.where(real.mask.unsqueeze(-1) > 0, real.action, -real.action)
    other = real._replace(reward=real.reward + 3, cost=real.cost + 3, action=action)
    agents[0].policy.update_actor(real)
    agents[1].policy.update_actor(other)
    first, second = (list(agent.policy.parameters()) for agent in agents)
    assert all(p.equal(q) for p, q in zip(first, second, strict=True))


# SafeDreamer


def test_safedreamer_moves_policy_and_both_critics():
    agent = make_agent("safedreamer", "debug")
    agent.update(make_batch())
    assert moved(agent, make_batch(seed=1)) == {"actor", "reward_critic", "cost_critic"}
    names = agent.policy.estimates(torch.zeros(2, agent.world_model.feat_size)).keys()
    assert names == {"value", "cost_value"}


def test_safedreamer_reads_no_recorded_action():
    """Other actions in the batch, same latents: the policy learns the same, bit for bit."""
    agents, batch = [make_agent("safedreamer", "debug") for _ in range(2)], make_batch()
    posterior, _, _ = agents[0].world_model.losses(batch)
    latent = posterior.latent.detach()
    for agent, action in zip(agents, (batch.action, -batch.action), strict=True):
        torch.manual_seed(4)
        agent.policy.update(agent.world_model, latent, batch._replace(action=action))
    first, second = (list(agent.policy.parameters()) for agent in agents)
    assert all(p.equal(q) for p, q in zip(first, second, strict=True))


@pytest.mark.invariant(41)
@pytest.mark.parametrize("method", ["safedreamer", "dreamerv3"])
def test_critics_of_the_baselines_take_no_action(method):
    """Invariant 41, second half: V(s) has the width of a state and refuses an action beside it."""
    agent = make_agent(method, "debug")
    policy, feat = agent.policy, torch.zeros(3, agent.world_model.feat_size)
    critics = (
        [policy.critic] if method == "dreamerv3" else [policy.reward_critic, policy.cost_critic]
    )
    for critic in critics:
        assert critic.value(feat).shape == (3,)
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            critic.value(torch.cat([feat, torch.zeros(3, 2)], -1))


@pytest.mark.invariant(41)
def test_free_safedreamer_is_dreamer():
    """Invariant 41: without a cost weight, policy and reward value learn what DreamerV3's do."""
    safe = make_agent("safedreamer", "debug", lagrange__multiplier="0", lagrange__penalty="1e-30")
    plain = make_agent("dreamerv3", "debug")
    plain.policy.actor.load_state_dict(safe.policy.actor.state_dict())
    plain.policy.critic.load_state_dict(safe.policy.reward_critic.state_dict())
    posterior, _, _ = safe.world_model.losses(make_batch())
    latent = posterior.latent.detach()
    for _ in range(3):
        for agent in (safe, plain):
            torch.manual_seed(6)
            agent.policy.update(safe.world_model, latent, make_batch())
    pairs = zip(
        [*safe.policy.actor.parameters(), *safe.policy.reward_critic.parameters()],
        [*plain.policy.actor.parameters(), *plain.policy.critic.parameters()],
        strict=True,
    )
    assert all(p.equal(q) for p, q in pairs)


def test_safedreamer_pays_for_cost():
    """The gradient of its penalty is that of the summed cost returns times the cost weight."""
    agent = make_agent("safedreamer", "debug", lagrange__multiplier="2", lagrange__penalty="0.1")
    policy = agent.policy
    _, traj = look(agent, make_batch())
    returns, value = policy.reward_critic.returns(traj, traj.reward)
    cost_returns, _ = policy.cost_critic.returns(traj, traj.cost)
    constraint = cost_returns.sum(1).mean()
    penalty, weight = policy.lagrangian.step_(constraint)
    assert weight > 1
    plain = actor_gradient(agent, constraint)
    paid = actor_gradient(agent, penalty)
    for left, right in zip(paid, plain, strict=True):
        torch.testing.assert_close(left, weight * right)
    assert any(grad.abs().max() > 0 for grad in paid)
    result = policy.update_actor(traj, returns, value.detach(), cost_returns)
    assert result["penalty"] != 0
    torch.testing.assert_close(result["loss"], result["imagined_loss"] + result["penalty"])


# Ablations: exactly one part is gone


def test_ablations_change_only_their_part():
    """The parameters left, and what the first update reports, are those of FOSP."""
    full = make_agent(*FOSP)
    reported = set(full.update(make_batch()))
    gone = {
        "no_in_sample": ("reward_critic/real_", "cost_critic/real_"),
        "no_reachability": ("reach/",),
        "no_lagrangian": ("lagrange/",),
    }
    for name, prefixes in gone.items():
        agent = make_agent(*FOSP, name)
        left = {tag for tag in reported if not tag.startswith(prefixes)}
        assert set(agent.update(make_batch())) == left, name
        parts = {part for part, _ in agent.policy.named_children()}
        assert parts == {part for part, _ in full.policy.named_children()}, name


def test_without_reachability_every_state_is_feasible():
    agent = make_agent(*FOSP, "no_reachability")
    assert isinstance(agent.policy.reachability, AlwaysFeasible)
    _, traj = look(agent, make_batch())
    assert (agent.policy.rollout_values(traj).feasibility == 1).all()
    result = agent.update(make_batch())
    assert result["actor/feasibility"] == 1
    assert result["lagrange/multiplier"] > 0  # the Lagrangian is still there
    shown = agent.policy.estimates(traj.feat[:, 0])
    assert shown.keys() == {"value", "cost_value"}


def test_without_lagrangian_the_constraint_has_no_gradient():
    agent = make_agent(*FOSP, "no_lagrangian")
    assert isinstance(agent.policy.lagrangian, NoConstraint)
    cost = torch.tensor(5.0, requires_grad=True)
    penalty, weight = agent.policy.lagrangian.step_(cost)
    assert (float(penalty), penalty.requires_grad, float(weight)) == (0, False, 0)
    result = agent.update(make_batch())
    assert (result["actor/penalty"], result["actor/cost_weight"]) == (0, 0)
    assert result["actor/feasibility"] < 1  # the reachability estimate is still there


def test_without_in_sample_critics_recorded_rewards_move_nothing():
    """Other recorded signals change what FOSP's critics learn, and nothing without this part."""
    for words, same in ((FOSP, False), ((*FOSP, "no_in_sample"), True)):
        states = []
        for offset in (0.0, 2.0):
            agent = make_agent(*words)
            real, traj = look(agent, make_batch())
            for critic, signal in (
                (agent.policy.reward_critic, real.reward),
                (agent.policy.cost_critic, real.cost),
            ):
                critic.update(traj.detach(), traj.detach().reward, real, signal + offset)
            states.append(
                [
                    *agent.policy.reward_critic.parameters(),
                    *agent.policy.cost_critic.parameters(),
                ]
            )
        assert all(p.equal(q) for p, q in zip(*states, strict=True)) == same


def test_without_in_sample_critics_there_is_one_v_and_one_q():
    agent = make_agent(*FOSP, "no_in_sample")
    for critic in (agent.policy.reward_critic, agent.policy.cost_critic):
        assert critic.in_sample_net is critic.value_net
        assert critic.in_sample_q_net is critic.q_net


# The two presets of the published program


@pytest.mark.invariant(40)
def test_release_loss_by_hand():
    """Invariant 40: -w A_r - w eta H + Psi, and nothing from recorded actions."""
    agent, batch = make_agent("fosp_release", "debug"), make_batch()
    policy = agent.policy
    for k in range(3):
        agent.update(make_batch(seed=k))
    real, traj = look(agent, batch)
    values = policy.rollout_values(traj)
    critic, feat = policy.reward_critic, traj.feat[:, :-1].detach()
    advantage = (critic.q(feat, traj.action) - critic.value(feat)) / critic.moments.scale()
    entropy = policy.actor(feat).entropy()
    plain = -(traj.weight * advantage).mean() - (traj.weight * 3e-4 * entropy).mean()
    g = values.cost_return.sum(1).mean()  # cost_limit is 0
    multiplier, penalty = policy.lagrangian.multiplier, policy.lagrangian.penalty
    psi = multiplier * g + penalty / 2 * g**2
    assert multiplier + penalty * g > 0
    expected = float((plain + psi).detach())
    result = policy.update_actor(traj, values, real)
    assert float(result["loss"]) == pytest.approx(expected, rel=1e-5)
    assert (result["in_sample_loss"], result["weight_max"]) == (0, 0)


def test_release_values_lean_to_the_lower_q():
    policy = make_agent("fosp_release", "debug").policy
    value, q = torch.tensor([5.0, 5.0]), torch.tensor([0.0, 10.0])

    class Flat:
        def loss(self, target: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(target)

    for critic in (policy.reward_critic, policy.cost_critic):
        tau = critic.settings.imagined_expectile
        weight = critic._expectile_loss(Flat(), value, q, tau)
        torch.testing.assert_close(weight, torch.tensor([0.8, 0.2]))
        assert critic.in_sample_net is critic.value_net


def test_theory_only_imitates():
    """No gradient of its loss comes through the rollout."""
    agent, batch = make_agent("fosp_theory", "debug"), make_batch()
    policy = agent.policy
    agent.update(batch)
    real, traj = look(agent, batch)
    expected = policy.settings.in_sample_weight * policy.in_sample_loss(real)[0]
    step = policy.update_actor(traj, policy.rollout_values(traj), real)
    torch.testing.assert_close(step["loss"], expected.detach(), rtol=1e-3, atol=1e-4)
    assert step["weight"] > 0
