"""The trained agent in the repository: small, safe to load, and still what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamer.training.checkpoint import Checkpoint
from dreamer.training.evaluation import run_episode
from fosp_ext.envs import make_run_env
from fosp_ext.run.run_folder import load_run

FILE = Path(__file__).parents[3] / "agents" / "point_goal1.pt"
SEEDS = range(1005, 1008)


def test_it_is_small_and_says_where_it_comes_from():
    assert FILE.stat().st_size < 12e6
    made = Checkpoint.load(FILE)["provenance"]  # with weights_only=True
    assert made["updates"] == 1001
    (start,) = made["training"]
    assert start["commit"] == "35663758fc7c"


@pytest.mark.sim
def test_it_reaches_goals_and_keeps_clear_of_hazards():
    """These episodes earned 18.6 in the mean and cost nothing; random actions earn 0 or less."""
    run = load_run(FILE, torch.device("cpu"))
    env = make_run_env(run.info, run.config.env.variant)
    results = [run_episode(run.agent, env, seed, torch.device("cpu")) for seed in SEEDS]
    env.close()
    assert sum(result.score for result in results) / len(results) > 10
    assert sum(result.cost for result in results) / len(results) < 10
