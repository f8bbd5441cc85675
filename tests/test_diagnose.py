"""`python -m benchmarks.diagnose`: its numbers by hand, and all of it on a small run."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import diagnose
from benchmarks.diagnose import EpisodeView, critics, spearman, to_come
from benchmarks.diagnose import cost_head as judge_cost_head
from benchmarks.diagnose import danger as judge_danger
from dreamer.types import Latent


def view(reward: np.ndarray, cost: np.ndarray, /, **estimates: np.ndarray) -> EpisodeView:
    return EpisodeView(np.asarray(reward, float), np.asarray(cost, float), estimates)


def test_what_is_to_come_by_hand():
    signal = np.array([9.0, 1, 2, 4, 8])  # row 0 brought 9, which is past
    np.testing.assert_allclose(to_come(signal, 0.5, 2), [1 + 1, 2 + 2, 4 + 4])
    assert to_come(signal, 0.5, 4) == pytest.approx([1 + 1 + 1 + 1])
    assert len(to_come(signal, 0.5, 5)) == 0


def test_rank_correlation():
    a = np.array([3.0, 1, 2, 10])
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    tied = np.array([1.0, 1, 2, 2])  # places 1.5, 1.5, 3.5, 3.5 beside 3, 1, 2, 4
    assert spearman(a, tied) == pytest.approx(2 / 20**0.5)
    assert np.isnan(spearman(a, np.ones(4)))


def test_critics_are_ranked_within_episodes(monkeypatch):
    """A value that knows the future has 1; windows never run from one episode into the next."""
    monkeypatch.setattr(diagnose, "WINDOW", 5)
    rng = np.random.default_rng(0)
    views = []
    for T in (30, 20, 5):  # the last one is too short for a window
        reward, cost = rng.normal(size=T), rng.random(T)
        knows = [np.append(to_come(x, 0.9, 5), np.zeros(min(T, 5))) for x in (reward, cost)]
        views.append(view(reward, cost, value=knows[0], cost_value=-knows[1], danger=cost))
    found = critics(views, 0.9)
    assert found.keys() == {"value", "cost_value"}
    assert (found["value"], found["cost_value"]) == (pytest.approx(1), pytest.approx(-1))


def test_the_cost_head_is_counted():
    """The first row, which has no cost, does not count."""
    cost, guess = np.array([0.0, 1, 0, 1, 1, 0]), np.array([9.0, 1, 1, 0, 1, 0.2])
    found = judge_cost_head([view(cost, cost, cost=guess)])
    assert (found["rows"], found["rows that violate"]) == (5, 3)
    assert found["recall"] == found["precision"] == pytest.approx(2 / 3)
    assert judge_cost_head([view(cost, cost, value=guess)]) == {}


def test_danger_is_judged_by_what_follows():
    cost = np.zeros(60)
    cost[40] = 1
    following = (np.arange(60) >= 15) & (np.arange(60) < 40)
    found = judge_danger([view(cost, cost, danger=following.astype(float))])
    assert (found["AUROC"], found["Brier score"]) == (1, 0)
    found = judge_danger([view(cost, cost, danger=1.0 - following)])
    assert (found["AUROC"], found["Brier score"]) == (0, 1)
    assert judge_danger([view(cost, cost, value=cost)]) == {}


@pytest.fixture
def run(place, toy_run, monkeypatch):
    """A copy of a finished offline run; its episodes have 40 steps."""
    monkeypatch.setattr(diagnose, "WINDOW", 8)
    shutil.copytree(toy_run, place / "run")
    return place / "run"


def test_a_run_has_a_number_behind_each_point(run, capsys):
    code = diagnose.main([str(run), "--device", "cpu", "--json", "numbers.json"])
    out = capsys.readouterr().out
    assert code in (0, 1)  # it has hardly learned anything
    whole = json.loads((run.parent / "numbers.json").read_text())
    found = whole["points"]
    assert list(found) == [
        "pictures", "cost head", "foresight", "critics", "danger", "policy", "multiplier",
    ]  # fmt: skip
    assert all(found.values())
    assert found["pictures"]["windows"] == 2
    assert 0 < found["pictures"]["error of the last picture"] < 1
    assert found["critics"].keys() == {
        "value", "cost_value", "best_value", "q", "cost_best_value", "cost_q",
    }  # fmt: skip
    assert found["multiplier"]["cap"] == 10
    for line in ("| danger | AUROC |", "targets", "multiplier: last"):
        assert line in out


def test_the_error_of_the_model_is_that_of_its_pictures(run, monkeypatch):
    """A model that always shows the last picture seen is as bad as that picture."""
    loaded = diagnose.load_run(run, torch.device("cpu"))
    store = diagnose.open_heldout(diagnose.read_run(run), loaded)

    def stay(batch, context):
        return {
            name: torch.cat(
                [x[:, :context], x[:, context - 1 : context].expand_as(x[:, context:])], 1
            )
            / 255
            for name, x in ((name, x.float()) for name, x in batch.obs.items())
        }

    monkeypatch.setattr(loaded.agent.world_model, "open_loop", stay)
    found = diagnose.pictures(loaded.agent, store, torch.device("cpu"))
    assert found["ratio"] == pytest.approx(1)


@pytest.mark.parametrize(("right", "expected"), [(True, 1), (False, 0)])
def test_foresight_compares_the_row_that_was_predicted(run, monkeypatch, right, expected):
    """A model whose state counts rows, and that knows, or denies, which of them violate."""
    loaded = diagnose.load_run(run, torch.device("cpu"))
    store = diagnose.open_heldout(diagnose.read_run(run), loaded)
    monkeypatch.setattr(diagnose, "STEPS_AHEAD", (1, 3))
    cost = torch.zeros(len(store))
    cost[2::5] = 1  # rows of the one episode that is looked at
    begin, end = diagnose.episode_bounds(store)[0]
    monkeypatch.setattr(diagnose, "episode_bounds", lambda _: [(begin, end)])
    monkeypatch.setitem(store._small, "cost", cost.numpy())
    model = loaded.agent.world_model

    def observe(embed, action, is_first):
        rows = torch.arange(action.shape[1]).reshape(1, -1, 1).float()
        return SimpleNamespace(latent=Latent(rows, rows.unsqueeze(-1)))

    monkeypatch.setattr(model.rssm, "observe", observe)
    monkeypatch.setattr(model.rssm, "img_step", lambda state, _: Latent(*(x + 1 for x in state)))
    known = cost if right else 1 - cost
    monkeypatch.setattr(model, "violation", lambda feat: known[begin + feat[..., 0].long()])
    found = diagnose.foresight(loaded.agent, store, torch.device("cpu"))
    assert found == {f"AUROC {k} steps ahead": expected for k in (1, 3)}


def test_what_cannot_be_diagnosed(refuse, place, run):
    assert "nowhere is no run folder" in refuse(["nowhere"], diagnose.main)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet" in refuse(["run"], diagnose.main)
