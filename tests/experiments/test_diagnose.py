"""`python -m experiments.diagnose`: its numbers by hand, and all of it on a small run."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamer.envs.counting import CountingEnv
from dreamer.training.evaluation import run_episode
from dreamer.types import Latent
from dreamer.world_model import Prediction
from experiments import diagnose, diagnose_own, diagnose_recorded
from experiments.diagnose_recorded import EpisodeView, critics, reachability, spearman, to_come
from experiments.diagnose_recorded import cost_head as measure_cost_head
from fosp_ext.build import build_agent
from tests.support.agents import make_config

CPU = torch.device("cpu")


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
    monkeypatch.setattr(diagnose_recorded, "WINDOW", 5)
    rng = np.random.default_rng(0)
    views = []
    for T in (30, 20, 5):  # the last one is too short for a window
        reward, cost = rng.normal(size=T), rng.random(T)
        knows = [np.append(to_come(x, 0.9, 5), np.zeros(min(T, 5))) for x in (reward, cost)]
        views.append(
            view(reward, cost, value=knows[0], cost_value=-knows[1], violation_probability=cost)
        )
    found = critics(views, 0.9)
    assert found.keys() == {"value", "cost_value"}
    assert (found["value"], found["cost_value"]) == (pytest.approx(1), pytest.approx(-1))


def test_the_cost_head_is_counted():
    """The first row, which has no cost, does not count."""
    cost, guess = np.array([0.0, 1, 0, 1, 1, 0]), np.array([9.0, 1, 1, 0, 1, 0.2])
    found = measure_cost_head([view(cost, cost, cost=guess)], 0.5)
    assert (found["rows"], found["rows that violate"]) == (5, 3)
    assert found["recall"] == found["precision"] == pytest.approx(2 / 3)
    assert measure_cost_head([view(cost, cost, value=guess)], 0.5) == {}


def test_violation_probability_is_compared_with_what_follows():
    cost = np.zeros(60)
    cost[40] = 1
    following = (np.arange(60) >= 15) & (np.arange(60) < 40)
    found = reachability([view(cost, cost, violation_probability=following.astype(float))], 0.5)
    assert (found["AUROC"], found["Brier score"]) == (1, 0)
    found = reachability([view(cost, cost, violation_probability=1.0 - following)], 0.5)
    assert (found["AUROC"], found["Brier score"]) == (0, 1)
    assert reachability([view(cost, cost, value=cost)], 0.5) == {}


@pytest.fixture
def run(place, toy_run, monkeypatch):
    """A copy of a finished offline run; its episodes have 40 steps."""
    monkeypatch.setattr(diagnose_recorded, "WINDOW", 8)
    shutil.copytree(toy_run, place / "run")
    return place / "run"


def test_a_run_has_a_number_behind_each_point(run, capsys):
    words = ("--device", "cpu", "--episodes", "0", "--json", "numbers.json")
    code = diagnose.main([str(run), *words])
    out = capsys.readouterr().out
    assert code in (0, 1)  # it has hardly learned anything
    whole = json.loads((run.parent / "numbers.json").read_text())
    found = whole["points"]
    assert list(found) == [
        "images", "cost head", "forecast", "critics", "reachability", "policy",
        "multiplier",
    ]  # fmt: skip
    assert all(found.values())
    assert found["images"]["windows"] == 2
    assert 0 < found["images"]["error of the last image"] < 1
    assert found["critics"].keys() == {
        "value", "in_sample_value", "in_sample_q", "q",
        "cost_value", "cost_in_sample_value", "cost_in_sample_q", "cost_q",
    }  # fmt: skip
    assert found["multiplier"]["cap"] == 10
    for line in ("| reachability | AUROC |", "targets", "multiplier: last"):
        assert line in out


def test_the_error_of_the_model_is_that_of_its_images(run, monkeypatch):
    """A model that always shows the last image seen is as bad as that image."""
    loaded = diagnose.load_run(run, CPU)
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
    found = diagnose_recorded.images(loaded.agent, store, CPU)
    assert found["ratio"] == pytest.approx(1)


@pytest.mark.parametrize(("right", "expected"), [(True, 1), (False, 0)])
def test_forecast_compares_the_row_that_was_predicted(run, monkeypatch, right, expected):
    """A model whose state counts rows, and that knows, or denies, which of them violate."""
    loaded = diagnose.load_run(run, CPU)
    store = diagnose.open_heldout(diagnose.read_run(run), loaded)
    monkeypatch.setattr(diagnose_recorded, "STEPS_AHEAD", (1, 3))
    cost = torch.zeros(len(store))
    cost[2::5] = 1  # rows of the one episode that is looked at
    begin, end = diagnose_recorded.episode_bounds(store)[0]
    monkeypatch.setattr(diagnose_recorded, "episode_bounds", lambda _: [(begin, end)])
    monkeypatch.setitem(store._small, "cost", cost.numpy())
    model = loaded.agent.world_model

    def observe(embed, action, is_first, before):
        rows = torch.arange(action.shape[1]).reshape(1, -1, 1).float()
        state = Latent(rows, rows.unsqueeze(-1))
        return SimpleNamespace(latent=state, post=state.stoch)

    monkeypatch.setattr(model.rssm, "observe", observe)
    monkeypatch.setattr(model.rssm, "img_step", lambda state, _: Latent(*(x + 1 for x in state)))
    known = cost if right else 1 - cost

    def predict(feat):
        return Prediction(None, None, known[begin + feat[..., 0].long()], None)

    monkeypatch.setattr(model, "predict", predict)
    found = diagnose_recorded.forecast(loaded.agent, store, CPU)
    assert found == {f"AUROC {k} steps ahead": expected for k in (1, 3)}


def test_what_cannot_be_diagnosed(refuse, place, run):
    assert "nowhere is no run folder" in refuse(["nowhere"], diagnose.main)
    assert "--episodes must be at least 0" in refuse(["run", "--episodes", "-1"], diagnose.main)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet" in refuse(["run"], diagnose.main)


# Own episodes


@pytest.fixture
def played(toy_run, monkeypatch):
    """A trained agent, and episodes of 20 steps that it played where every number counts steps."""
    seeds = []

    class Seeded(CountingEnv):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return super().reset(seed=seed, options=options)

    monkeypatch.setattr(diagnose_own, "make_run_env", lambda *_: Seeded(20, end=20))
    loaded = diagnose.load_run(toy_run, CPU)
    episodes = diagnose_own.play_own(loaded, "none", 2, CPU)
    assert seeds == [3000, 3001]
    return loaded, episodes


def test_own_episodes_are_rows_like_recorded_ones(played):
    """Row t has the reward and cost that came with image t, and the action taken at it."""
    loaded, episodes = played
    store = diagnose_own.join(episodes)
    assert diagnose_recorded.episode_bounds(store) == [(0, 21), (21, 42)]
    batch = store.windows([0, 21], 21)
    count = torch.arange(21.0).expand(2, 21)
    assert torch.equal(batch.reward, count)
    assert torch.equal(batch.cost, ((count % 3 == 0) & (count > 0)).float())
    for index, name in enumerate(("vision", "vision_back")):
        pixels = (count + 100 * index).to(torch.uint8)
        assert torch.equal(batch.obs[name], pixels[..., None, None, None].expand(2, 21, 64, 64, 3))
    assert batch.is_terminal.sum(1).tolist() == batch.is_terminal[:, -1].tolist() == [1, 1]
    assert batch.action[:, -1].abs().max() == 0
    with torch.random.fork_rng():  # as `run_episode` draws it
        torch.manual_seed(3001)
        images = {name: x[1, :1] for name, x in batch.obs.items()}
        first, _, _ = loaded.agent.act(images, torch.ones(1), loaded.agent.initial(1), False)
    torch.testing.assert_close(batch.action[1, 0], first[0])


@pytest.mark.parametrize("late", [0, 1])
def test_imagined_steps_stand_beside_those_that_followed(played, monkeypatch, late):
    """A model whose state counts rows and whose rewards are right, or come a step too late."""
    loaded, episodes = played
    model, policy = loaded.agent.world_model, loaded.agent.policy

    def observe(embed, action, is_first, before):
        rows = torch.arange(action.shape[1]).reshape(1, -1, 1).float()
        state = Latent(rows, rows.unsqueeze(-1))
        return SimpleNamespace(latent=state, post=state.stoch)

    def act(world_model, latent, explore):
        assert not explore
        return latent.feat() / 100, {}  # the action says in which state it was taken, (N, 2)

    def img_step(state, action):
        assert torch.equal(action, state.feat() / 100)
        return Latent(*(x + 1 for x in state))

    monkeypatch.setattr(model.rssm, "observe", observe)
    monkeypatch.setattr(model.rssm, "img_step", img_step)
    monkeypatch.setattr(policy, "act", act)
    monkeypatch.setattr(
        model,
        "predict",
        lambda feat: Prediction(feat[:, 0] - late, 0.5 + 0 * feat[:, 0], None, None),
    )
    found = diagnose_own.imagination(loaded.agent, diagnose_own.join(episodes), CPU)
    assert found == pytest.approx(
        {  # of rows 1 to 15 and 5 to 19, for rows 0 and 4 have 15 more behind them
            "imagined cost per step": 0.5,
            "real cost per step": (5 + 5) / 30,
            "imagined reward per step": (8 + 12) / 2 - late,
            "real reward per step": (8 + 12) / 2,
        }
    )


def test_predicted_costs_stand_beside_recorded_ones():
    """The first row, which has no cost, does not count."""
    cost, guess = np.array([0.0, 1, 0, 2]), np.array([9.0, 0.5, 0, 1])
    found = diagnose_own.seen_costs([view(cost, cost, cost=guess)])
    assert found == {"cost per step": 1, "predicted cost per step": 0.5}
    assert diagnose_own.seen_costs([view(cost, cost, value=guess)]) == {}


def test_own_episodes_of_an_agent_without_a_cost_head(played):
    loaded, episodes = played
    config = make_config("dreamerv3", "debug")
    agent = build_agent(config, loaded.info, CPU)
    found = diagnose_own.own_episodes(agent, episodes, 0.5, CPU)
    assert found.keys() == {
        "episodes", "return", "cost", "imagined reward per step", "real reward per step",
    }  # fmt: skip
    assert (found["return"], found["cost"]) == (210, 6)  # 1 + ... + 20; 3, 6, ..., 18


@pytest.mark.sim
def test_own_episodes_in_the_real_simulator(place, brief_run, monkeypatch, capsys):
    """They are those that an evaluation plays with the same seeds, and nothing is written."""
    monkeypatch.setattr(diagnose_recorded, "WINDOW", 8)
    words = ("--device", "cpu", "--episodes", "2", "--json", "numbers.json")
    assert diagnose.main([str(brief_run), *words]) in (0, 1)
    assert "| own episodes | imagined cost per step |" in capsys.readouterr().out
    found = json.loads((place / "numbers.json").read_text())["points"]["own episodes"]
    assert list(found) == [
        "episodes", "return", "cost",
        "rows", "rows that violate", "recall", "precision", "AUROC",
        "cost per step", "predicted cost per step",
        *(f"AUROC {k} steps ahead" for k in (1, 5, 10, 15)),
        "imagined cost per step", "real cost per step",
        "imagined reward per step", "real reward per step",
    ]  # fmt: skip
    loaded = diagnose.load_run(brief_run, CPU)
    env = diagnose_own.make_run_env(loaded.info, "none")
    results = [run_episode(loaded.agent, env, seed, CPU) for seed in (3000, 3001)]
    env.close()
    assert found["return"] == pytest.approx(sum(each.score for each in results) / 2, rel=1e-5)
    assert found["cost"] == sum(each.cost for each in results) / 2
    assert found["cost per step"] == pytest.approx(found["cost"] / 50)
    assert found["rows"] == 2 * 50
    assert found["rows that violate"] == sum(each.violations for each in results)
