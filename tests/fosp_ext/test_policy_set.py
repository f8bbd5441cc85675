"""The policy set: how often each policy acts, its settings, and evaluations of one policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import eval as evaluation_command
import fosp_ext.run.evaluate
from dreamer.errors import UserError
from dreamer.training.diagnostics import heldout_estimates
from dreamer.training.evaluation import Moment, run_episode
from fosp_ext.policy_set import PolicySet, single_policy
from fosp_ext.run.evaluate import default_folder
from tests.support.agents import (
    INFO,
    counting_env,
    make_agent,
    make_batch,
    make_config,
    written_run,
)
from tests.support.policy_sets import act, disagreeing, features

N = 64
CPU = torch.device("cpu")


def judged_by_hand(**settings: str):
    """An agent whose Q_r is an action's first number and whose Q_c is ten times its second."""
    agent = disagreeing(**settings)
    learner = agent.policy.learner
    learner.reward_critic.q = lambda feat, action: action[:, 0]
    learner.cost_critic.q = lambda feat, action: 10 * action[:, 1]
    return agent


# The choice


def test_how_often_each_policy_acts_follows_the_probabilities():
    agent = judged_by_hand(policy_set__alpha="1")
    _, chosen = act(agent, features(agent, 1).expand(10_000, -1), explore=True)
    online, p = chosen["online"], chosen["p_online"]
    assert set(online.tolist()) == {0.0, 1.0}
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 1)):
        among = (p > low) & (p <= high)
        error = (p * (1 - p))[among].sum().sqrt() / among.sum()  # of the mean
        assert among.sum() > 300
        assert abs(online[among].mean() - p[among].mean()) < 4 * error


@pytest.mark.parametrize(("kappa", "alpha"), [(0.1, 5.0), (0.0, 5.0), (0.1, 0.0), (3.0, 0.5)])
def test_kappa_and_alpha(kappa, alpha):
    agent = judged_by_hand(policy_set__kappa=str(kappa), policy_set__alpha=str(alpha))
    policy_set, feat = agent.policy, features(agent, N)
    action, chosen = act(agent, feat, explore=False)
    old, new = policy_set.offline(feat).mean, policy_set.actor(feat).mean
    gain = (new[:, 0] - old[:, 0]) - kappa * 10 * (new[:, 1] - old[:, 1])
    torch.testing.assert_close(chosen["p_online"], torch.sigmoid(alpha * gain))
    assert torch.equal(chosen["online"], (gain > 0).float()), "the better one, whatever alpha"
    assert torch.equal(action, torch.where((gain > 0).unsqueeze(1), new, old))


@pytest.mark.parametrize("ablation", [(), ("no_reachability",)])
def test_its_estimates_are_the_learners_and_its_choice(ablation):
    agent = disagreeing("fosp_online", *ablation, "debug")
    feat = features(agent, N)
    _, told = act(agent, feat, explore=True)
    known = {"value", "cost_value"} | (set() if ablation else {"violation_probability"})
    assert told.keys() == known | {"online", "p_online"}
    estimates = agent.policy.learner.estimates(feat)
    assert all(torch.equal(told[name], estimates[name]) for name in known)
    assert all(values.shape == (N,) for values in told.values())


# How it begins


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("fosp_online",), True),
        (("fosp_online", "no_lagrangian"), True),
        (("fosp_online", "no_policy_set"), False),
        (("fosp_offline",), False),
        (("safedreamer_online",), False),
        (("bc_online",), False),
        (("dreamerv3_online",), False),
    ],
)
def test_who_has_a_policy_set(names, expected):
    assert isinstance(make_agent(*names, "debug").policy, PolicySet) == expected


def test_the_learning_policy_begins_as_a_copy():
    settings = make_config("fosp_online", "debug").policy_set
    agent = make_agent()
    agent.update(make_batch())
    learner = agent.policy
    before = [parameter.clone() for parameter in learner.actor.parameters()]
    policy_set = PolicySet(learner, settings)
    assert all(map(torch.equal, policy_set.offline.parameters(), before))
    assert all(map(torch.equal, policy_set.actor.parameters(), before))
    moments = learner.optimizer.get_extra_state()["state"]
    assert len(moments) == len(before)
    agent.policy = policy_set
    agent.update(make_batch(seed=1))
    after = policy_set.actor.parameters()
    assert not any(map(torch.equal, after, before)), "the optimiser goes on"
    assert all(map(torch.equal, policy_set.offline.parameters(), before))


# One policy alone


def test_one_policy_acts_alone_and_shares_everything():
    agent = disagreeing()
    feat, policy_set = features(agent, N), agent.policy
    for name, actor in (("online", policy_set.actor), ("offline", policy_set.offline)):
        alone = single_policy(agent, name)
        action, told = act(alone, feat, explore=False)
        assert torch.equal(action, actor(feat).mean)
        assert told.keys() == {"value", "cost_value", "violation_probability"}
        own = {parameter.data_ptr() for parameter in agent.parameters()}
        assert {parameter.data_ptr() for parameter in alone.parameters()} <= own
    assert policy_set.actor is policy_set.learner.actor
    with pytest.raises(UserError, match="'offline' cannot be chosen: this run has no set"):
        single_policy(make_agent(), "offline")


def test_spectators_and_held_out_metrics_see_the_choice():
    agent, moments = disagreeing(), list[Moment]()
    run_episode(agent, counting_env(), 0, CPU, lambda _, moment: moments.append(moment))
    assert all(moment.estimates["online"] in (0.0, 1.0) for moment in moments)
    assert all(0 <= moment.estimates["p_online"] <= 1 for moment in moments)

    class OneBatch:
        def batch(self, index: int):
            return make_batch()

    shown = heldout_estimates(agent, OneBatch(), CPU)
    assert {name: tuple(x.shape) for name, x in shown.items()} == {
        "action": (32, INFO.action_size),
        **dict.fromkeys(
            ("value", "cost_value", "violation_probability", "online", "p_online"), (32,)
        ),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An online run with a checkpoint after 7 updates."""
    return written_run(tmp_path / "run", disagreeing(), "fosp_online", "debug")


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_evaluating_the_set_or_one_policy(run, monkeypatch, capsys):
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    for words, name, policy in (
        ((), "000000007", "set"),
        (("--policy", "set"), "000000007-2", "set"),
        (("--policy", "online"), "000000007-online", "online"),
        (("--policy", "offline"), "000000007-offline", "offline"),
        (("--policy", "offline", "--variant", "night"), "000000007-night-offline", "offline"),
    ):
        argv = ["--logdir", str(run), "--episodes", "1", "--videos", "0", *words]
        assert evaluation_command.main(argv) == 0
        assert summary(run / "eval" / name)["policy"] == policy
        assert f"1 episodes, policy: {policy}\n" in capsys.readouterr().out


def test_a_run_with_one_policy_has_none_to_choose(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    run = written_run(tmp_path / "run", make_agent(), "fosp_offline", "debug")
    play = ["--logdir", str(run), "--episodes", "1", "--videos", "0"]
    for policy in ("set", "online", "offline"):
        assert evaluation_command.main([*play, "--policy", policy]) == 2
        error = f"error: policy '{policy}' cannot be chosen: this run has no set, one policy acts\n"
        assert capsys.readouterr().err == error
    assert not (run / "eval").exists()
    assert evaluation_command.main(play) == 0
    assert "policy" not in summary(run / "eval" / "000000007")


def test_where_evaluations_of_one_policy_go(tmp_path):
    assert default_folder(tmp_path, 7, "none", "set").name == "000000007"
    assert default_folder(tmp_path, 7, "none", "online").name == "000000007-online"
    assert default_folder(tmp_path, 7, "night", "offline").name == "000000007-night-offline"
