"""`python -m benchmarks.sight`: its rows by hand, and all of it on a small run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import sight
from benchmarks.sight import Step
from dreamer.agent import AgentState
from dreamer.types import Latent
from tests.worlds import world

BOTH = ("vision", "vision_back")


@pytest.mark.parametrize(
    ("degrees", "front", "both"),
    [
        (0, True, True),
        (44, True, True),
        (-46, False, False),
        (100, False, False),
        (140, False, True),
    ],
)
@pytest.mark.parametrize("heading", [0.0, 3.0, -2.0])
def test_what_is_in_view(degrees, front, both, heading):
    at = np.radians(degrees) + heading
    state = world(agent_heading=heading)
    place = state.agent_pos + 2 * np.array([np.cos(at), np.sin(at)])
    assert sight.in_view(state, place, ("vision",)) is front
    assert sight.in_view(state, place, BOTH) is both


def test_the_nearest_hazard_counts():
    behind_the_shoulder, ahead = [-1.0, 0.5], [0.5, 0.0]
    state = world(hazards=np.array([ahead, behind_the_shoulder]))
    assert sight.views(state, BOTH) == {"goal": True, "hazard": False}
    assert sight.views(world(goal_pos=np.full(2, np.nan)), BOTH) == {}


def test_rows_are_means_without_reached_goals():
    def step(goal: bool, reward: float, promised: float) -> Step:
        return Step({"goal": goal}, {"reward": promised, "cost": 9}, {"reward": reward, "cost": 9})

    steps = [step(True, 0.1, 0.2), step(True, 0.3, 0.4), step(True, 1.1, 9), step(False, 0, 0.5)]
    seen, unseen = sight.compare(steps)
    assert (seen["thing"], seen["in view"], unseen["in view"]) == ("goal", True, False)
    assert seen["share"] == pytest.approx(2 / 3)
    assert (seen["predicted"], seen["real"]) == (pytest.approx(0.3), pytest.approx(0.2))
    assert (unseen["predicted"], unseen["real"]) == (0.5, 0)


def test_the_coming_action_is_foreseen():
    """The model of this test promises what the action says."""
    rssm = SimpleNamespace(
        img_step=lambda latent, action: Latent(latent.deter + action, latent.stoch)
    )
    model = SimpleNamespace(
        rssm=rssm,
        predict=lambda feat: SimpleNamespace(reward=feat[:, 0], cost=feat[:, 1]),
    )
    latent = Latent(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1, 2))
    state = AgentState(latent, torch.tensor([[0.5, 0.25]]))
    assert sight.expected(model, state) == {"reward": 1.5, "cost": 2.25}


@pytest.mark.sim
def test_a_run_is_asked(place, brief_run, capsys):
    words = [str(brief_run), "--device", "cpu", "--episodes", "1"]
    assert sight.main([*words, "--json", "numbers.json"]) == 0
    assert "| goal" in capsys.readouterr().out
    rows = json.loads((place / "numbers.json").read_text())["rows"]
    assert {row["thing"] for row in rows} <= {"goal", "hazard"}
    shares = [row["share"] for row in rows if row["thing"] == "goal"]
    assert sum(shares) == pytest.approx(1)
    assert sight.main([*words, "--json", "again.json"]) == 0
    assert json.loads((place / "again.json").read_text())["rows"] == rows


def test_what_cannot_be_asked(refuse, toy_run):
    assert "nowhere does not exist" in refuse(["nowhere"], sight.main)
    words = [str(toy_run), "--episodes", "0"]
    assert "--episodes must be at least 1" in refuse(words, sight.main)
