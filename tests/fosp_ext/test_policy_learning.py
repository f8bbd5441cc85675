"""Which loss moves what: critics, reachability and actor.

See docs/concepts/algorithm.md 3 to 5.
"""

import pytest
import torch

from dreamer.distributions import Normal
from dreamer.imagination import choose_starts, imagine
from fosp_ext.actor_critic import violation_labels
from fosp_ext.transitions import real_transitions
from tests.support.agents import make_agent, make_batch


@pytest.fixture
def parts():
    """An agent after three updates, with one batch, its transitions and a rollout."""
    agent, batch = make_agent(), make_batch()
    torch.manual_seed(1)
    for _ in range(3):
        agent.update(batch)
    latent, _ = agent.world_model.update(batch)
    starts = choose_starts(latent, batch, 0)
    traj = imagine(agent.world_model, agent.policy.actor, starts, horizon=5, gamma=0.99)
    return agent, batch, real_transitions(latent, batch), starts, traj


def moved(module, action):
    """Names of parameters that `action` changes."""
    before = {name: p.clone() for name, p in module.named_parameters()}
    action()
    return {name for name, p in module.named_parameters() if not p.equal(before[name])}


@pytest.mark.invariant(25)
def test_actor_loss_moves_only_the_actor(parts):
    agent, _, real, _, traj = parts
    policy = agent.policy
    names = moved(agent, lambda: policy.update_actor(traj, policy.rollout_values(traj), real))
    assert names
    assert all(name.startswith("policy.actor.") for name in names)


def test_critic_losses_move_only_their_critic(parts):
    agent, _, real, _, traj = parts
    critic, traj = agent.policy.cost_critic, traj.detach()
    names = moved(agent, lambda: critic.update(traj, traj.cost, real, real.cost))
    assert names
    assert all(name.startswith("policy.cost_critic.") for name in names)


def test_reachability_loss_moves_only_the_reachability(parts):
    agent, _, real, starts, traj = parts
    labels = violation_labels(traj.detach(), starts, 0.5)
    names = moved(agent, lambda: agent.policy.reachability.update(traj.detach(), labels, real))
    assert names
    assert all(name.startswith("policy.reachability.") for name in names)


def test_world_model_loss_moves_only_the_world_model(parts):
    agent, batch, *_ = parts
    names = moved(agent, lambda: agent.world_model.update(batch))
    assert names
    assert all(name.startswith("world_model.") for name in names)


def test_reward_and_cost_critics_share_nothing(parts):
    agent = parts[0]
    reward = {p.data_ptr() for p in agent.policy.reward_critic.parameters()}
    cost = {p.data_ptr() for p in agent.policy.cost_critic.parameters()}
    assert not reward & cost


@pytest.mark.invariant(14)
def test_real_transitions_pair_a_row_with_its_successor(parts):
    _, batch, real, *_ = parts
    assert real.reward.equal(batch.reward[:, 1:])
    assert real.action.equal(batch.action[:, :-1])
    assert real.feat_next[:, :-1].equal(real.feat[:, 1:])
    assert real.mask[1, 3] == 0  # row 3 is an episode's last
    assert real.mask.sum() == real.mask.numel() - 2
    assert real.cont[2, 4] == 0  # a true end
    assert real.cont[1, 2] == 1  # a time limit
    assert real.start_cost.equal(batch.cost[:, :-1])


@pytest.mark.invariant(14)
def test_real_target_reads_the_next_reward_and_bootstraps(parts):
    agent, _, real, *_ = parts
    critic = agent.policy.reward_critic
    target = critic.real_target(real, real.reward)
    value = critic.in_sample_value(real.feat_next)
    torch.testing.assert_close(target, real.reward + 0.996997 * real.cont * value)


def test_values_lean_to_the_good_side(parts):
    """The best-value fit of equal high and low Q is above the middle for reward, below for cost."""
    agent, _, _, _, _ = parts
    value, q = torch.tensor([5.0, 5.0]), torch.tensor([0.0, 10.0])

    class Flat:
        def loss(self, target):
            return torch.ones_like(target)

    reward = agent.policy.reward_critic._expectile_loss(Flat(), value, q, 0.8)
    cost = agent.policy.cost_critic._expectile_loss(Flat(), value, q, 0.8)
    torch.testing.assert_close(reward, torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(cost, torch.tensor([0.8, 0.2]))


def test_one_v_and_one_q_when_not_split():
    policy = make_agent(critic__split_value="false").policy
    for critic, shared in ((policy.reward_critic, True), (policy.cost_critic, False)):
        assert (critic.in_sample_net is critic.value_net) == shared
        assert (critic.in_sample_q_net is critic.q_net) == shared
        assert (critic.in_sample_target_q_net is critic.target_q_net) == shared


def test_target_networks_follow_by_tau(parts):
    agent, batch, *_ = parts
    policy = agent.policy
    critics = (policy.reward_critic, policy.cost_critic)
    pairs = [(critic.target_q_net, critic.q_net) for critic in critics]
    pairs += [(critic.in_sample_target_q_net, critic.in_sample_q_net) for critic in critics]
    pairs.append((policy.reachability.target_net, policy.reachability.net))
    before = [target.mlp[-1].weight.clone() for target, _ in pairs]
    agent.update(batch)
    for (target, net), weight in zip(pairs, before, strict=True):
        assert not net.mlp[-1].weight.equal(weight)
        torch.testing.assert_close(target.mlp[-1].weight, weight.lerp(net.mlp[-1].weight, 0.02))


@pytest.mark.invariant(25)
def test_in_sample_gradient_is_that_of_weighted_cloning(parts):
    agent, _, real, *_ = parts
    policy = agent.policy
    weight, _ = policy.data_weights(real)
    loss, _ = policy.in_sample_loss(real)
    dist: Normal = policy.actor(real.feat)
    expected = -(weight * real.mask * dist.log_prob(real.action)).sum() / real.mask.sum()
    parameters = list(policy.actor.parameters())
    for left, right in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.invariant(23)
def test_violation_labels_begin_with_the_record(parts):
    agent, batch, _, starts, traj = parts
    labels = violation_labels(traj, starts, 0.5)
    arrived = agent.world_model.predict(traj.feat[:, 1:-1])
    assert labels.shape == traj.cost.shape
    assert labels[:, 0].equal((batch.cost.flatten() >= 0.5).float())
    torch.testing.assert_close(labels[:, 1:], arrived.violation)
    assert ((labels >= 0) & (labels <= 1)).all()
    assert not labels.requires_grad


@pytest.mark.invariant(31)
def test_infeasible_states_do_not_enter_the_constraint(parts):
    agent, _, real, _, traj = parts
    policy = agent.policy
    values = policy.rollout_values(traj)
    hopeless = values._replace(feasibility=torch.zeros_like(values.feasibility))
    assert policy.update_actor(traj, hopeless, real)["constraint"] == 0


def test_plain_dreamer_is_blind_to_cost():
    batch = make_batch()
    agents = [make_agent("dreamerv3", "debug") for _ in range(2)]
    for agent, seen in zip(agents, (batch, batch._replace(cost=batch.cost * 0)), strict=True):
        torch.manual_seed(2)
        metrics = agent.update(seen)
    left, right = (agent.state_dict() for agent in agents)
    assert not any("cost" in name for name in metrics)
    tensors = [name for name, value in left.items() if isinstance(value, torch.Tensor)]
    assert all(left[name].equal(right[name]) for name in tensors)


@pytest.mark.invariant(39)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["fosp_offline", "dreamerv3"])
def test_an_update_is_finite_in_both_precisions(method, precision):
    agent, batch = make_agent(method, "debug", precision=precision), make_batch()
    for _ in range(2):
        metrics = agent.update(batch)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert all(value.ndim == 0 for value in metrics.values())
    assert all(not value.requires_grad for value in metrics.values())


def test_recorded_outcomes_come_from_the_rows_that_follow(parts):
    """To the window's end, or the episode's, and then the value of the best supported action."""
    agent, _, real, _, _ = parts
    policy = make_agent(actor__recorded_advantage="lambda", imagination__lam="1").policy
    policy.load_state_dict(agent.policy.state_dict())
    gamma, critic = policy.imagination.gamma, policy.reward_critic
    ends = torch.zeros_like(real.mask)
    ends[:, 2] = 1  # row 3 is an episode's last
    real = real._replace(last_next=ends, cont=torch.ones_like(ends))
    with torch.no_grad():
        found = policy._recorded_action_value(critic, real, real.reward)
        for t in range(real.reward.shape[1]):
            end = 2 if t <= 2 else real.reward.shape[1] - 1
            rewards = [gamma**k * real.reward[:, t + k] for k in range(end - t + 1)]
            expected = sum(rewards) + gamma ** (end - t + 1) * critic.in_sample_value(
                real.feat_next[:, end]
            )
            torch.testing.assert_close(found[:, t], expected, rtol=1e-4, atol=1e-5)


def test_actions_are_weighed_by_what_followed(parts):
    """More reward afterwards, more weight; a violation afterwards shuts the gate."""
    _, _, real, _, _ = parts
    settings = {"actor__gate": "advantage", "actor__cost_tolerance": "0.5"}
    policy = make_agent(actor__recorded_advantage="lambda", **settings).policy
    none = torch.zeros_like(real.reward)
    calm = real._replace(reward=none, cost=none, last_next=none, cont=none + 1)
    plain, is_open = policy.data_weights(calm)
    better, _ = policy.data_weights(calm._replace(reward=none + 0.1))
    shut = none.clone()
    shut[:, 3] = 4
    weight, gate = policy.data_weights(calm._replace(cost=shut))
    assert (better > plain).all()
    assert is_open.all()
    assert not gate[:, 3].any()
    assert gate[:, 4:].all()
    assert (weight[:, 3] < plain[:, 3]).all()


@pytest.mark.parametrize(("gate", "open_share"), [("value", 0.0), ("advantage", 1.0)])
def test_gate_judges_value_or_advantage(gate, open_share):
    """Where every action costs the same, none is safe by value and all are by advantage."""
    agent, batch = make_agent(actor__gate=gate), make_batch()
    critic = agent.policy.cost_critic
    for net in (critic.in_sample_net, critic.in_sample_target_q_net):
        net.mlp[-1].bias.data[160] = 50.0  # all of them say the same cost, well above the tolerance
    latent, _ = agent.world_model.update(batch)
    _, is_open = agent.policy.data_weights(real_transitions(latent, batch))
    assert is_open.mean() == open_share
