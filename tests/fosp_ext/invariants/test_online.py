"""Invariants of the online phase: its clock, and what its updates read.

See docs/concepts/algorithm.md 7.
"""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

import fosp_ext.envs
import train
from dreamer.agent import Agent
from dreamer.envs.parallel import ParallelEnvs
from dreamer.training.loops import Budget, Every, Hooks, online_loop
from dreamer.types import Batch, Metrics
from tests.support.agents import make_agent, make_batch, make_config
from tests.support.commands import NO_LOG, NUMBERS, assert_same, offline, saved
from tests.support.policy_sets import expanded

PARTS = ("actor", "reward_critic", "cost_critic", "reachability")


# 37: the clock


@pytest.mark.invariant(37)
@pytest.mark.parametrize(
    "ratio", ["0", "0.1", "0.29", "0.07", "0.3333", "0.5", "1", "1.1", "2.5", "1e-3"]
)
def test_updates_due_are_exact(ratio):
    """As in school: 0.29 * 100 is 29, though the product of the two floats is below it."""
    budget, exact = Budget(1, float(ratio)), Fraction(ratio)
    for steps in (*range(1001), 187_500, 10**7):
        due = 1 + exact.numerator * steps // exact.denominator
        assert budget.updates(steps) == due


@pytest.mark.invariant(37)
def test_the_default_is_half_an_update_per_step():
    """Offline those of 250 000 agent steps; online three quarters of them, and the first."""
    config = make_config("fosp_online", "full")
    assert config.online.ratio == 0.5
    updates = make_config("fosp_offline", "full").run.updates
    assert updates == 125_000 == config.online.ratio * 250_000
    assert Budget(config.online.steps, config.online.ratio).updates(config.online.steps) == 93_751


class FakeCollector:
    """Takes as many steps at once as it is told, and notes the updates done before each."""

    def __init__(self, updates: list[int], rounds: list[int]) -> None:
        self.agent_steps, self.seen = 0, []
        self._updates, self._rounds = updates, iter(rounds)

    def step(self) -> list:
        self.seen.append((self.agent_steps, len(self._updates)))
        self.agent_steps += next(self._rounds)
        return []


@pytest.mark.invariant(37)
@pytest.mark.parametrize("ratio", [0.0, 0.29, 0.5, 2.0])
def test_what_is_due_is_learned_before_the_next_action(ratio):
    """Whether all environments step or some died; and again after a stop in between."""
    updates, checkpoints = [], []
    rounds = [2, 2, 1, 2, 2, 0, 2, 1, 2]  # 0: all died in this round
    collector = FakeCollector(updates, rounds)
    agent = SimpleNamespace(update=lambda index: updates.append(index) or {})
    hooks = Hooks(None, None, checkpoints.append, lambda _: None, lambda _: nullcontext())
    every = Every(log=1, heldout=0, evaluate=0, save=0)
    for steps in (7, 14):
        budget = Budget(steps, ratio)
        done = len(updates)
        parts = (agent, collector, NUMBERS, torch.device("cpu"), None)
        assert online_loop(*parts, done, budget, every, NO_LOG, hooks) == 0
        assert len(updates) == budget.updates(collector.agent_steps)
    assert collector.agent_steps == sum(rounds) == 14
    due = [1 + int(Fraction(str(ratio)) * steps) for steps, _ in collector.seen]
    assert [done for _, done in collector.seen] == due
    assert updates == list(range(1, len(updates) + 1))
    assert checkpoints == [budget.updates(7), budget.updates(14)]


@pytest.mark.invariant(37)
def test_the_offline_phase_steps_no_environment(toy_dataset, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an environment")

    monkeypatch.setattr(fosp_ext.envs, "make_env", refuse)
    monkeypatch.setattr(ParallelEnvs, "__init__", refuse)
    words = ("--run.updates", "2", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, tmp_path, *words)) == 0
    assert saved(tmp_path)["step"] == 2
    assert "online" not in saved(tmp_path)


# 38: recorded terms


def learn(agent: Agent, batch: Batch) -> tuple[dict[str, list[torch.Tensor]], Metrics]:
    """The policy's parts after an update on these rows, with the states of the usual batch."""
    torch.manual_seed(5)
    latent = agent.world_model.losses(make_batch())[0].latent.detach()
    torch.manual_seed(6)  # the same imagined trajectory
    metrics = agent.policy.update(agent.world_model, latent, batch)
    learner = getattr(agent.policy, "learner", agent.policy)
    return {name: list(getattr(learner, name).parameters()) for name in PARTS}, metrics


def differing(one: dict[str, list], other: dict[str, list]) -> set[str]:
    """Parts with a parameter that is not equal to the last bit."""
    pairs = {name: zip(one[name], other[name], strict=True) for name in PARTS}
    return {name for name in PARTS if not all(torch.equal(a, b) for a, b in pairs[name])}


OTHER = {  # other recorded numbers; a cost stays one: violations are the reachability estimate's
    "rewards": {"reward": make_batch(seed=1).reward},
    "costs": {"cost": make_batch().cost * 3},
    "actions": {"action": make_batch(seed=1).action},
}


@pytest.mark.invariant(38)
@pytest.mark.parametrize("what", OTHER)
@pytest.mark.parametrize(
    "names", [(), ("no_policy_set",), ("no_reachability",)], ids=lambda names: "".join(names)
)
def test_recorded_rows_teach_online_critics_nothing(what, names):
    """Given the same imagined trajectory; and neither do they teach the policy."""
    names = ("fosp_online", *names, "debug")
    one, metrics = learn(expanded(*names), make_batch())
    other, same = learn(expanded(*names), make_batch()._replace(**OTHER[what]))
    assert not differing(one, other)
    assert_same(metrics, same)
    assert not any("critic/real_" in name or "in_sample" in name for name in metrics)


@pytest.mark.invariant(38)
def test_recorded_violations_teach_reachability_alone():
    one, metrics = learn(expanded(), make_batch())
    other, _ = learn(expanded(), make_batch()._replace(cost=make_batch(seed=1).cost))
    assert differing(one, other) == {"reachability"}
    assert "reach/real_loss" in metrics


@pytest.mark.invariant(38)
@pytest.mark.parametrize(
    "names", [("fosp_offline",), ("fosp_theory_online",), ("fosp_online", "weights")]
)
@pytest.mark.parametrize(
    ("what", "touched"),
    [
        ("rewards", {"reward_critic"}),
        ("costs", {"cost_critic"}),
        ("actions", {"actor", "reward_critic", "cost_critic"}),
    ],
)
def test_with_their_weights_recorded_terms_teach(names, what, touched):
    """The offline phase, its derivation online, and settings that ask for it."""
    settings = {}
    if "weights" in names:
        names = names[:1]
        settings = {
            "critic__real_weight": "1",
            "cost_critic__real_weight": "1",
            "actor__in_sample_weight": "0.1",
        }
    one, metrics = learn(make_agent(*names, "debug", **settings), make_batch())
    other, _ = learn(make_agent(*names, "debug", **settings), make_batch()._replace(**OTHER[what]))
    assert differing(one, other) == touched
    for critic in ("reward_critic", "cost_critic"):
        assert {f"{critic}/real_q_loss", f"{critic}/real_v_loss"} <= metrics.keys()
    assert "actor/in_sample_loss" in metrics
