"""The policy set: how often each policy acts, its settings, and evaluations of one policy."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

import eval as evaluation_command
import fosp_ext.run.evaluate
from dreamer.distributions import Normal
from dreamer.errors import UserError
from dreamer.training.diagnostics import heldout_estimates
from dreamer.training.evaluation import Moment, run_episode
from fosp_ext.choice import Spread, preference
from fosp_ext.policy_set import PolicySet, choosing_policy, single_policy
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
    agent = judged_by_hand(policy_set__alpha="1", policy_set__scaled="false")
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
    policy_set.choice.spread.total, policy_set.choice.spread.weight = torch.tensor([0.2, 0.1])
    action, chosen = act(agent, feat, explore=False)
    old, new = policy_set.offline(feat).mean, policy_set.actor(feat).mean
    gain = (new[:, 0] - old[:, 0]) - kappa * 10 * (new[:, 1] - old[:, 1])
    torch.testing.assert_close(chosen["p_online"], torch.sigmoid(alpha * gain / 2))
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


def told(scale: float, kappa: float, explore: bool = True, **settings: str) -> list[torch.Tensor]:
    """`p_online` of 300 steps of two environments, with rewards and costs in other units."""
    agent = judged_by_hand(policy_set__kappa=str(kappa), **settings)
    learner = agent.policy.learner
    learner.reward_critic.q = lambda feat, action: scale * action[:, 0]
    learner.cost_critic.q = lambda feat, action: scale * action[:, 1]
    rows = features(agent, 2 * 300).split(2)
    return [act(agent, feat, explore, seed)[1]["p_online"] for seed, feat in enumerate(rows)]


def test_small_gaps_decide():
    """Issue 18, fact 5: with gaps near 0.01 the better action was drawn in 51 of 100 steps."""
    before = torch.cat(told(0.01, 0.1, policy_set__scaled="false"))
    assert ((before - 0.5).abs() < 0.06).all(), "a coin"
    now = torch.cat(told(0.01, 0.1)[10:])
    better = torch.maximum(now, 1 - now)
    assert better.median() > 0.95
    assert 0.85 < better.mean() < 0.999, "and where there is next to no gap, both may act"


def test_units_change_nothing():
    one, hundred = (torch.cat(told(scale, 0.1)) for scale in (1.0, 100.0))
    torch.testing.assert_close(one, hundred, rtol=1e-4, atol=1e-6)


def test_a_usual_gap_gives_one_to_alpha():
    """All gaps alike: the odds are exp(alpha), however large they are and from the second step."""
    agent = judged_by_hand(policy_set__alpha="3")
    critic = agent.policy.learner.reward_critic
    feat, calls = features(agent, 4), iter(range(1000))
    critic.q = lambda feat, action: 1e-4 * (next(calls) % 2) * torch.ones(len(feat))
    agent.policy.learner.cost_critic.q = lambda feat, action: torch.zeros(len(feat))
    first, *later = (act(agent, feat, explore=True, seed=k)[1]["p_online"] for k in range(9))
    assert (first == 0.5).all(), "nobody knows yet what much is"
    for p in later:
        torch.testing.assert_close(p, torch.full((4,), 3.0).sigmoid())


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("score", ["q", "rollout"])
def test_equal_copies_toss_a_coin_and_nothing_is_nan(explore, score):
    agent = make_agent("fosp_online", "debug", policy_set__score=score)
    agent.policy.actor.forward = agent.policy.offline.forward = still
    for step in range(3):
        _, chosen = act(agent, features(agent, N), explore, seed=step)
        assert (chosen["p_online"] == 0.5).all()


def still(feat: torch.Tensor) -> Normal:
    """A policy that knows one action."""
    return Normal(torch.full((*feat.shape[:-1], 2), 0.3), torch.zeros(*feat.shape[:-1], 2))


def test_only_exploring_moves_the_spread():
    agent = disagreeing()
    spread, feat = agent.policy.choice.spread, features(agent, N)
    act(agent, feat, explore=True)
    kept = spread.scale().clone()
    assert 0 < kept < torch.inf
    act(agent, features(agent, N, seed=1), explore=False)
    assert torch.equal(spread.scale(), kept)
    act(agent, features(agent, N, seed=1), explore=True)
    assert not torch.equal(spread.scale(), kept)


def test_the_spread_is_the_mean_difference_of_two_proposals():
    spread = Spread(decay=0.5)
    assert spread.scale() == torch.inf
    spread.update_(torch.tensor([[1.0, 4.0], [3.0, 2.0]]))
    torch.testing.assert_close(spread.scale(), torch.tensor((3 + 1) / 2))
    spread.update_(torch.tensor([[0.0, 0.0, 3.0]]))  # pairs: 0, 3, 3
    torch.testing.assert_close(spread.scale(), torch.tensor((2 * 0.25 + 2 * 0.5) / 0.75))
    for _ in range(60):
        spread.update_(torch.zeros(2, 2))
    assert spread.scale() == torch.inf, "without differences nothing is decided"


# Several proposals


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("score", ["q", "rollout"])
def test_several_proposals(explore, score):
    agent = disagreeing(policy_set__proposals="3", policy_set__score=score)
    feat, seen, choice = features(agent, N), [], agent.policy.choice
    judge = choice.score

    def note(*arguments):
        values = judge(*arguments)
        seen.append((arguments[2], preference(*values, choice.settings.kappa)))
        return values

    choice.score = note
    for step in range(2):
        action, chosen = act(agent, feat, explore, seed=step)
    actions, scores = seen[-1]
    assert actions.shape == (N, 6, INFO.action_size)
    for first, actor in ((0, agent.policy.offline), (3, agent.policy.actor)):
        assert torch.equal(actions[:, first], actor(feat).mean) != explore
        assert not torch.equal(actions[:, first + 1], actions[:, first + 2])
    taken = (actions == action.unsqueeze(1)).all(2)  # (N, 6)
    clear = taken.sum(1) == 1  # clipped proposals may be equal
    assert taken.any(1).all()
    assert clear.float().mean() > 0.9
    assert torch.equal(chosen["online"][clear], taken[clear][:, 3:].any(1).float())
    if explore:
        scale = mean_difference(seen[0][1])
        p = (5 * scores / scale).softmax(1)
        torch.testing.assert_close(chosen["p_online"], p[:, 3:].sum(1), rtol=1e-4, atol=1e-5)
    else:
        assert taken[torch.arange(N), scores.argmax(1)].all()


def mean_difference(scores: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two different entries of a row (N, P)."""
    pairs = list(combinations(range(scores.shape[1]), 2))
    return torch.stack([(scores[:, i] - scores[:, j]).abs() for i, j in pairs]).mean()


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


def test_policies_of_a_set_play_at_the_same_time(run, monkeypatch, capsys):
    """In two processes: each in its own folder, its episodes in the order of their seeds."""
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    argv = ["--logdir", str(run), "--episodes", "3", "--videos", "1", "--workers", "2"]
    assert evaluation_command.main([*argv, "--policy", "set,offline", "--seed", "5"]) == 0
    for name, policy in (("000000007", "set"), ("000000007-offline", "offline")):
        folder = run / "eval" / name
        rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
        assert [row["seed"] for row in rows] == [5, 6, 7]
        assert all(row["length"] == 6 for row in rows)
        assert [path.name for path in (folder / "videos").iterdir()] == ["ep_000.mp4"]
        assert (summary(folder)["policy"], summary(folder)["workers"]) == (policy, 2)
    assert capsys.readouterr().out.count("3 episodes, policy: ") == 2
    with pytest.raises(SystemExit):
        evaluation_command.main([*argv, "--policy", "set,onlin"])
    assert "'onlin' is none of set, online" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fosp_offline", ("--policy_set.proposals", "3")),
        ("fosp_offline", ("--policy_set.proposals=2", "--policy_set.score=rollout")),
        ("safedreamer", ("--policy_set.proposals=2", "--policy_set.score=rollout")),
        ("fosp_online", ("--policy_set.proposals=2", "--policy_set.score=rollout")),
    ],
)
def test_one_policy_with_several_proposals(tmp_path, monkeypatch, capsys, method, words):
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    run = written_run(tmp_path / "run", make_agent(method, "debug"), method, "debug", "quick")
    play = ["--logdir", str(run), "--episodes", "1", "--videos", "0", "--policy", "proposals"]
    assert evaluation_command.main([*play, *words]) == 0, capsys.readouterr().err
    told = summary(run / "eval" / "000000007-proposals")
    assert told["policy"] == "proposals"
    assert told["policy_set"]["kappa"] == 5, "of the run's recipe"
    assert told["policy_set"]["proposals"] == (2 if "=" in words[0] else 3)


def test_a_choice_among_the_proposals_of_one_policy():
    agent = judged_by_hand()
    settings = replace(agent.policy.choice.settings, proposals=4, kappa=0.0)
    alone = choosing_policy(agent, settings)
    feat = features(agent, N)
    action, told = act(alone, feat, explore=False)
    assert told.keys() == {"value", "cost_value", "violation_probability"}
    assert (action[:, 0] >= agent.policy.actor(feat).mean[:, 0]).all()
    assert (action[:, 0] > agent.policy.actor(feat).mean[:, 0]).float().mean() > 0.5
    own = {parameter.data_ptr() for parameter in agent.parameters()}
    assert {parameter.data_ptr() for parameter in alone.parameters()} <= own


@pytest.mark.parametrize(
    ("method", "words", "error"),
    [
        ("fosp_offline", "--policy proposals", "one proposal leaves no choice"),
        ("bc", "--policy proposals --policy_set.proposals 2", "does not judge costs"),
        ("dreamerv3", "--policy proposals --policy_set.proposals 2", "does not judge costs"),
        ("safedreamer", "--policy proposals --policy_set.proposals 2", "this agent has no Q"),
        ("fosp_offline", "--policy_set.score rollout", "is for a policy set, or for --policy"),
        ("fosp_offline", "--policy proposals --policy_set.kapa 2", "did you mean"),
    ],
)
def test_choices_that_cannot_be_made(tmp_path, monkeypatch, capsys, method, words, error):
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    run = written_run(tmp_path / "run", make_agent(method, "debug"), method, "debug")
    assert evaluation_command.main(["--logdir", str(run), *words.split()]) == 2
    assert error in capsys.readouterr().err


def test_the_set_with_other_settings(run, monkeypatch, capsys):
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    argv = ["--logdir", str(run), "--episodes", "1", "--videos", "0", "--policy_set.score"]
    assert evaluation_command.main([*argv, "rollout", "--policy_set.draws", "2"]) == 0
    told = summary(run / "eval" / "000000007")
    assert told["policy"] == "set"
    assert told["policy_set"] == {
        "enabled": True, "kappa": 0.1, "alpha": 5.0, "scaled": True, "proposals": 1,
        "score": "rollout", "horizon": 5, "draws": 2, "draw_cost": "mean",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        evaluation_command.main([*argv, "q", "--run.updates", "3"])


def test_where_evaluations_of_one_policy_go(tmp_path):
    assert default_folder(tmp_path, 7, "none", "set").name == "000000007"
    assert default_folder(tmp_path, 7, "none", "online").name == "000000007-online"
    assert default_folder(tmp_path, 7, "night", "offline").name == "000000007-night-offline"
