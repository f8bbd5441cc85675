"""The plan of `experiments.comparison`: methods, settings, amounts of work, and jobs."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from dreamer.errors import UserError
from experiments.comparison import __main__ as comparison
from experiments.comparison import compare as learning_compare
from experiments.comparison.jobs import all_jobs
from experiments.comparison.methods import Method, read_methods, read_settings
from experiments.comparison.plan import (
    Parallelism,
    Plan,
    Request,
    RunEstimate,
    Speed,
    at_once,
    describe,
    evaluations,
    load_plan,
    make_plan,
    save_plan,
    side_by_side,
)

NAMES = ("fosp", "bc", "fosp-no_in_sample")
SPEED = Speed(
    start=8.0,
    first=dict.fromkeys(NAMES, 1.0),
    update={"fosp": 1.2, "bc": 0.6, "fosp-no_in_sample": 1.1},
    episode=2.5,
    length=250,
    cores=2,
)
REQUEST = Request(
    task="SafetyPointGoal1-v0",
    variant="clustered",
    size="cpu",
    recipe="quick",
    dataset="data.h5",
    recorded=True,
    budget_minutes=60,
    episodes=None,
    eval_episodes=None,
    updates=None,
    online_steps=None,
    settings={},
)


def methods(text: str, scale: tuple[str, str] = ("cpu", "quick"), **settings: str) -> list[Method]:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return read_methods(text, scale, dotted)


def plan(
    text: str = "fosp,bc",
    seeds: int = 1,
    speed: Speed = SPEED,
    parallel: Parallelism = Parallelism(),  # noqa: B008 (it is frozen)
    **request: object,
) -> Plan:
    return make_plan(dataclasses.replace(REQUEST, **request), methods(text), seeds, speed, parallel)


# Methods


def test_parts_that_only_the_online_phase_reads_share_the_offline_run():
    found = methods("fosp,fosp-no_policy_set,fosp-no_reachability-no_policy_set, bc,fosp")
    assert [(m.name, m.offline, m.expanded) for m in found] == [
        ("fosp", "fosp", True),
        ("fosp-no_policy_set", "fosp", False),
        ("fosp-no_reachability-no_policy_set", "fosp-no_reachability", False),
        ("bc", "bc", False),
    ]
    assert {(m.envs, m.ratio) for m in found} == {(2, 0.1)}  # of the cpu preset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fops", "no method 'fops'; did you mean 'fosp'"),
        ("fosp,", "no method ''"),
        ("fosp-no_polcy_set", "no part 'no_polcy_set'; did you mean 'no_policy_set'"),
        ("bc-no_reachability", "only fosp has parts"),
    ],
)
def test_unknown_methods(text, message):
    with pytest.raises(UserError, match=message):
        methods(text)


def test_settings_of_all_methods():
    assert read_settings(["online.ratio=0.3", "dataset.mix=safe=1", "online.ratio=0.2"]) == {
        "online.ratio": "0.2",
        "dataset.mix": "safe=1",
    }
    (found,) = methods("fosp", online__ratio="0.2", online__envs="3", policy_set__enabled="false")
    assert (found.ratio, found.envs, found.expanded) == (0.2, 3, False)
    assert methods("fosp,bc", dataset__holdout="0")[0].diagnosed is False
    assert [m.diagnosed for m in methods("fosp,fosp_release,bc,dreamerv3")] == [
        True,
        True,
        False,
        False,
    ]


# Planning


@pytest.mark.parametrize("budget", [10, 30, 60, 600])
@pytest.mark.parametrize(
    ("text", "seeds"), [("bc", 1), ("fosp,bc", 1), ("fosp,fosp-no_policy_set", 2)]
)
def test_the_estimate_fits_the_budget_and_uses_it(budget, text, seeds):
    found = plan(text, seeds, budget_minutes=budget)
    spent = sum(found.estimate.values())
    assert found.online_steps % 500 == 0  # whole episodes in both environments
    assert ("longer than --budget-minutes" in describe(found, methods(text), seeds)) == (
        spent > 60 * budget
    )
    if spent > 60 * budget:
        assert (budget, found.updates, found.online_steps) == (10, 20, 500)  # the least
    else:
        assert spent > 0.75 * 60 * budget
        assert found.updates > 20


def test_more_time_and_fewer_runs_give_more_learning():
    usual = plan(seeds=2)
    assert plan(seeds=1).updates > usual.updates
    assert plan(seeds=2, budget_minutes=120).updates > usual.updates
    assert plan("bc", seeds=2).updates > usual.updates
    slower = dataclasses.replace(SPEED, update=dict.fromkeys(NAMES, 3.0))
    assert plan(seeds=2, speed=slower).updates < usual.updates


def test_methods_that_share_an_offline_run_pay_for_it_once():
    both = plan("fosp,fosp-no_policy_set", updates=1000, online_steps=500)
    apart = plan("fosp,fosp-no_in_sample", updates=1000, online_steps=500)
    assert both.estimate["offline training"] == pytest.approx(1200)
    assert apart.estimate["offline training"] == pytest.approx(2300)


def test_a_model_that_several_methods_share_is_learned_once():
    speed, words = dataclasses.replace(SPEED, model=0.3), {"updates": 1000, "online_steps": 500}
    both, one = plan("fosp,bc", speed=speed, **words), plan("fosp", speed=speed, **words)
    assert (both.model_updates, one.model_updates) == (600, 0)  # 0.6 is that of the cpu preset
    assert both.estimate["offline training"] == pytest.approx(1200 + 600 - 300)
    assert one.estimate["offline training"] == pytest.approx(1200)
    assert "1000 updates each, the first 600 shared" in describe(both, methods("fosp,bc"), 1)
    two = plan("fosp,bc", seeds=2, speed=speed, **words)
    assert two.estimate["offline training"] == pytest.approx(2 * 1500)
    assert plan("fosp,bc", speed=speed).updates > plan("fosp,bc").updates


def test_a_diagnosis_plays_episodes():
    def reporting(text: str, episode: float) -> float:
        speed = dataclasses.replace(SPEED, episode=episode)
        return plan(text, speed=speed, online_steps=0).estimate["reporting"]

    assert reporting("fosp", 3.5) - reporting("fosp", 1.5) == pytest.approx(5 * 2)
    assert reporting("bc", 3.5) == reporting("bc", 1.5)


def test_with_little_time_there_are_fewer_episodes():
    usual, hurried = plan(budget_minutes=600), plan(budget_minutes=10)
    assert (usual.episodes, usual.eval_episodes, usual.eval_every > 0) == (200, 20, True)
    assert 10 <= hurried.episodes < 200
    assert 5 <= hurried.eval_episodes < 20
    assert hurried.eval_every == 0


def test_evaluations_on_the_way_begin_with_the_policy():
    """In the size cpu the world model is pretrained for 0.6 of the updates."""
    assert plan(updates=1000, budget_minutes=600).eval_every == 100


def test_jobs_share_the_work_not_the_dataset_and_the_report():
    runs = [
        RunEstimate("a", None, {"x": 3.0, "y": 1.0}),
        RunEstimate("a2", "a", {"x": 2.0}),
        RunEstimate("b", None, {"x": 1.0}),
        RunEstimate("b2", "b", {"x": 1.0}),
        RunEstimate("c", None, {"x": 1.0}),
    ]
    assert side_by_side(runs, 1) == 9
    assert side_by_side(runs, 2) == 6  # a, a2 in one; b, b2, c in the other
    assert side_by_side(runs, 9) == 6
    assert side_by_side([runs[0], runs[2], runs[1]], 1) == 7
    alone, both = plan(updates=1000), plan(updates=1000, parallel=Parallelism(2))
    assert alone.expected == pytest.approx(sum(alone.estimate.values()), abs=0.5)
    assert both.expected < sum(both.estimate.values())


@pytest.mark.parametrize(("text", "seeds"), [("fosp,bc", 1), ("fosp,bc", 2), ("fosp", 3)])
def test_two_jobs_use_the_time_of_both(text, seeds):
    alone, both = plan(text, seeds), plan(text, seeds, parallel=Parallelism(2, 1))
    assert 0.9 * 3600 < both.expected <= 3600
    assert both.updates > 1.2 * alone.updates
    assert (both.jobs, both.threads, alone.jobs, alone.threads) == (2, 1, 1, 0)
    lines = describe(both, methods(text), seeds).splitlines()
    assert lines[-1].split() == ["2", "side", "by", "side", f"{both.expected / 60:.1f}", "of", "60"]
    one_run = plan("bc", parallel=Parallelism(2)).updates  # has no use for a second job
    assert one_run == pytest.approx(plan("bc").updates, rel=0.05)


def test_number_of_parallel_jobs(monkeypatch):
    """One on a GPU; else one per core, as far as there are runs; the cores are shared."""
    monkeypatch.setattr(learning_compare, "cores", lambda: 8)

    def choose(runs: int, *words: str) -> tuple[int, int]:
        found = learning_compare.choose_parallelism(
            comparison.parse(["--budget-minutes", "1", *words]), runs
        )
        return found.jobs, found.threads

    monkeypatch.setattr(learning_compare, "choose_device", lambda _: torch.device("cpu"))
    assert [choose(runs) for runs in (1, 2, 3, 20)] == [(1, 0), (2, 4), (3, 2), (8, 1)]
    assert choose(4, "--jobs", "2") == (2, 4)
    assert choose(4, "--jobs", "1") == (1, 0)
    assert choose(4, "--jobs", "1", "--threads", "2") == (1, 2)
    assert choose(4, "--jobs", "16") == (16, 1)
    monkeypatch.setattr(learning_compare, "choose_device", lambda _: torch.device("cuda"))
    assert choose(4) == (1, 0)
    assert choose(4, "--jobs", "2") == (2, 4)
    two = methods("fosp,fosp-no_policy_set")
    assert (at_once(two, 3, online=True), at_once(two, 3, online=False)) == (6, 3)


def test_without_an_online_phase_all_time_is_for_the_offline_one():
    usual, bare = plan(), plan(online_steps=0)
    assert bare.online_steps == bare.estimate["online training"] == 0
    assert bare.updates > 1.3 * usual.updates
    assert 0.75 * 3600 < bare.expected <= 3600
    assert "  online         none" in describe(bare, methods("fosp,bc"), 1).splitlines()
    assert "in the task as it is" in describe(plan(variant="none"), methods("bc"), 1)


def test_what_is_asked_for_counts_whatever_time_it_takes():
    found = plan(budget_minutes=1, episodes=300, eval_episodes=7, updates=1234, online_steps=77)
    assert (found.episodes, found.eval_episodes) == (300, 7)
    assert (found.updates, found.online_steps) == (1234, 77)
    assert sum(found.estimate.values()) > 60
    assert plan(recorded=False).episodes == 0
    less = plan(online_steps=20_000)
    assert less.online_steps == 20_000
    assert less.updates < plan().updates


def test_evaluations_are_counted():
    assert evaluations(methods("fosp,bc"), "clustered") == 2 + 3 + 2 + 1
    assert evaluations(methods("fosp,fosp-no_policy_set"), "clustered") == 2 + 3 + 1
    assert evaluations(methods("bc"), "none") == 1 + 1
    assert evaluations(methods("fosp,bc"), "none", online=False) == 1 + 1


def test_a_plan_stays_and_another_request_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    assert load_plan(path, REQUEST) is None
    saved = plan()
    save_plan(saved, path)
    assert load_plan(path, REQUEST) == saved
    assert load_plan(path, dataclasses.replace(REQUEST, updates=saved.updates)) == saved
    changes = (
        {"task": "SafetyPointGoal2-v0"},
        {"variant": "belt"},
        {"updates": 1},
        {"online_steps": 0},
        {"settings": {"lagrange.penalty": "1e-8"}},
    )
    for change in changes:
        with pytest.raises(UserError, match="name another --out"):
            load_plan(path, dataclasses.replace(REQUEST, **change))
    older = json.loads(path.read_text())
    for name in ("settings", "jobs", "threads", "expected", "model_updates"):
        del older[name]
    path.write_text(json.dumps(older))
    assert "together" in describe(load_plan(path, REQUEST), methods("fosp,bc"), 1).splitlines()[-1]
    path.write_text("{}")
    with pytest.raises(UserError, match="is no plan"):
        load_plan(path, REQUEST)


# Steps


def test_the_jobs_of_two_methods_in_order(tmp_path):
    text = "fosp,fosp-no_policy_set"
    found = [job.name for job in all_jobs(plan(text), methods(text), 2, tmp_path)]
    one_seed = [
        "fosp-offline-seed0",
        "eval-fosp-offline-seed0",
        "eval-fosp-offline-seed0-clustered",
        "fosp-online-seed0",
        "eval-fosp-online-seed0-clustered",
        "eval-fosp-online-seed0-clustered-online",
        "eval-fosp-online-seed0-clustered-offline",
        "fosp-no_policy_set-online-seed0",
        "eval-fosp-no_policy_set-online-seed0-clustered",
    ]
    second = [name.replace("seed0", "seed1") for name in one_seed]
    asked = ["diagnose-fosp-offline-seed0", "diagnose-fosp-offline-seed1"]
    assert found == ["dataset", *one_seed, *second, *asked, "report"]
    taken = plan(recorded=False)
    assert "dataset" not in [s.name for s in all_jobs(taken, methods("bc"), 1, tmp_path)]
    bare = all_jobs(plan(online_steps=0, variant="none"), methods("fosp,bc"), 1, tmp_path)
    names = [job.name for job in bare if "offline" not in job.name]
    assert names == ["dataset", "model-seed0", "report"]
    assert len(bare) == 1 + 1 + 2 + 2 + 1 + 1  # dataset, model, runs, evaluations, diagnosis, ...


def test_the_jobs_of_methods_that_share_a_model(tmp_path):
    """DreamerV3 has a model of its own."""
    text = "fosp,bc,dreamerv3"
    shared = dataclasses.replace(plan(updates=1000), model_updates=600)
    jobs = {s.name: s for s in all_jobs(shared, methods(text), 2, tmp_path)}
    for seed in ("seed0", "seed1"):
        model, fosp = jobs[f"model-{seed}"].words, jobs[f"fosp-offline-{seed}"].words
        assert tuple(model[model.index(f"--run.{key}") + 1] for key in ("updates", "pretrain")) == (
            "600",
            "1",
        )
        folder = model[model.index("--logdir") + 1]
        assert folder == fosp[fosp.index("--from") + 1] == str(tmp_path / "model" / seed)
        assert jobs[f"bc-offline-{seed}"].needs == (f"model-{seed}",)
        assert jobs[f"model-{seed}"].needs == ("dataset",)
        assert jobs[f"dreamerv3-offline-{seed}"].needs == ("dataset",)
        assert "--from" not in jobs[f"dreamerv3-offline-{seed}"].words


def test_what_waits_for_what(tmp_path):
    """The dataset; a run, its evaluations, its online run, its evaluations; the report."""
    jobs = all_jobs(plan(), methods("fosp,fosp-no_policy_set,bc"), 1, tmp_path)
    needs = {job.name: job.needs for job in jobs}
    before = ("eval-fosp-offline-seed0-clustered",)
    assert needs["dataset"] == ()
    assert needs["model-seed0"] == ("dataset",)
    assert needs["fosp-offline-seed0"] == needs["bc-offline-seed0"] == ("model-seed0",)
    assert needs["eval-fosp-offline-seed0"] == ("fosp-offline-seed0",)
    assert needs[before[0]] == ("eval-fosp-offline-seed0",)
    assert needs["fosp-online-seed0"] == needs["fosp-no_policy_set-online-seed0"] == before
    assert needs["diagnose-fosp-offline-seed0"] == before
    assert needs["eval-fosp-online-seed0-clustered"] == ("fosp-online-seed0",)
    assert set(needs["report"]) == set(needs) - {"report"}
    places = {job.name: place for place, job in enumerate(jobs)}
    assert all(places[need] < places[name] for name in needs for need in needs[name])


def test_threads_and_settings_are_in_the_commands(tmp_path):
    changed = plan("fosp", settings={"lagrange.penalty": "1e-8"})
    plain = {s.name: s.words for s in all_jobs(plan("fosp"), methods("fosp"), 1, tmp_path)}
    found = {s.name: s.words for s in all_jobs(changed, methods("fosp"), 1, tmp_path, 3)}
    limit, setting = ("--threads", "3"), ("--lagrange.penalty", "1e-8")
    added = {name: words[len(plain[name]) :] for name, words in found.items()}
    assert added.pop("dataset") == ()  # it does not read it
    assert added.pop("report") == ()
    for name, words in added.items():
        trains = name.startswith("fosp")
        assert words == (limit + setting if trains else limit)
