"""`python -m experiments.field_of_view`: its rows by hand, and all of it on a small run."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamer.data.episode import Episode
from dreamer.types import Latent
from experiments import field_of_view as field_of_view
from experiments.field_of_view import Step
from tests.support.worlds import world

BOTH = ("vision", "vision_back")


def test_the_nearest_hazard_counts():
    behind_the_shoulder, ahead = [-1.0, 0.5], [0.5, 0.0]
    state = world(hazards=np.array([ahead, behind_the_shoulder]))
    assert field_of_view.views(state, BOTH) == {"goal": True, "hazard": False}
    assert field_of_view.views(world(goal_pos=np.full(2, np.nan)), BOTH) == {}


def test_rows_are_means_without_reached_goals():
    def step(goal: bool, reward: float, promised: float) -> Step:
        return Step({"goal": goal}, {"reward": promised, "cost": 9}, {"reward": reward, "cost": 9})

    steps = [step(True, 0.1, 0.2), step(True, 0.3, 0.4), step(True, 1.1, 9), step(False, 0, 0.5)]
    seen, unseen = field_of_view.compare(steps)
    assert (seen["thing"], seen["in view"], unseen["in view"]) == ("goal", True, False)
    assert seen["share"] == pytest.approx(2 / 3)
    assert (seen["predicted"], seen["real"]) == (pytest.approx(0.3), pytest.approx(0.2))
    assert (unseen["predicted"], unseen["real"]) == (0.5, 0)


def test_the_result_of_an_action_is_predicted_from_its_row():
    """The model of this test predicts the count of a row, and the action taken in it."""
    rssm = SimpleNamespace(
        img_step=lambda latent, action: Latent(latent.deter + action, latent.stoch)
    )
    model = SimpleNamespace(
        rssm=rssm,
        predict=lambda feat: SimpleNamespace(reward=feat[:, 0], cost=feat[:, 1]),
        follow=lambda batch: rows,
    )
    rows = Latent(torch.tensor([[[1.0, 2], [3, 4], [5, 6]]]), torch.zeros(1, 3, 1, 2))
    agent = SimpleNamespace(world_model=model, autocast=lambda device: nullcontext())
    episode = Episode(
        images={"vision": np.zeros((3, 4, 4, 3), np.uint8)},
        action=np.array([[0.5, 0.25], [-0.5, -0.25]], np.float32),
        reward=np.zeros(2, np.float32),
        cost=np.zeros(2, np.float32),
        terminated=False,
        policy="agent",
        seed=0,
    )
    told = field_of_view.predict(agent, episode, torch.device("cpu"))
    np.testing.assert_allclose(told["reward"], [1.5, 2.5])
    np.testing.assert_allclose(told["cost"], [2.25, 3.75])


@pytest.mark.sim
def test_a_run_is_measured(place, brief_run, capsys):
    words = [str(brief_run), "--device", "cpu", "--episodes", "1"]
    assert field_of_view.main([*words, "--json", "numbers.json"]) == 0
    assert "| goal" in capsys.readouterr().out
    rows = json.loads((place / "numbers.json").read_text())["rows"]
    assert {row["thing"] for row in rows} <= {"goal", "hazard"}
    shares = [row["share"] for row in rows if row["thing"] == "goal"]
    assert sum(shares) == pytest.approx(1)
    assert field_of_view.main([*words, "--json", "again.json"]) == 0
    assert json.loads((place / "again.json").read_text())["rows"] == rows


def test_what_cannot_be_measured(refuse, toy_run):
    assert "nowhere does not exist" in refuse(["nowhere"], field_of_view.main)
    words = [str(toy_run), "--episodes", "0"]
    assert "--episodes must be at least 1" in refuse(words, field_of_view.main)
