"""Invariants of sampling, schedule and checkpoints, as far as training from a dataset goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.training.checkpoint import Checkpoint
from tests.support.agents import make_agent, make_batch, make_config


@pytest.mark.invariant(36)
def test_every_start_is_as_likely_as_every_other(toy_dataset):
    """Chi-square against the uniform distribution, on 200 draws per place."""
    store = RowStore.open(toy_dataset, "disk", holdout=0)[0]
    stream = WindowStream(store, batch_size=500, length=8, seed=0)
    places = len(store) - 8 + 1
    starts = np.concatenate([stream._starts(index) for index in range(200 * places // 500)])
    drawn = np.bincount(starts, minlength=places)
    expected = len(starts) / places
    chi_square = ((drawn - expected) ** 2 / expected).sum()
    freedom = places - 1
    assert len(drawn) == places
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.invariant(36)
def test_every_sample_begins_like_an_episode(toy_dataset):
    store = RowStore.open(toy_dataset, "disk", holdout=0)[0]
    for index in range(5):
        batch = WindowStream(store, batch_size=30, length=12, seed=1).batch(index)
        assert (batch.is_first[:, 0] == 1).all()
        assert batch.is_first[:, 1:].equal(batch.is_last[:, :-1]), "rows follow their episode's"


@pytest.mark.invariant(37)
def test_the_full_length_is_half_an_update_per_agent_step():
    """One million simulator steps in the time of the offline phase."""
    config = make_config("fosp_offline", "full")
    agent_steps = 1_000_000 / config.env.action_repeat
    assert config.run.updates == 0.5 * agent_steps


@pytest.mark.invariant(34)
@pytest.mark.parametrize("method", ["fosp_offline", "safedreamer", "dreamerv3"])
def test_a_checkpoint_holds_everything_that_learning_moves(tmp_path: Path, method: str):
    """Weights, target networks, multiplier and penalty, running scales and Adam's averages."""
    agent = make_agent(method, "debug")
    for k in range(3):
        agent.update(make_batch(seed=k))
    path = Checkpoint(tmp_path, keep_last=1).save(3, {"agent": agent.state_dict()})
    price = {} if method == "dreamerv3" else {"lagrange__multiplier": "5"}
    other = make_agent(method, "debug", **price)
    with torch.no_grad():
        for value in other.state_dict().values():
            if isinstance(value, torch.Tensor):
                value.add_(0.5)
    other.load_state_dict(Checkpoint.load(path)["agent"])
    for k in range(2):
        metrics = []
        for one in (agent, other):
            torch.manual_seed(k)
            metrics.append(one.update(make_batch(seed=9)))
        assert metrics[0].keys() == metrics[1].keys()
        assert all(metrics[0][name].equal(metrics[1][name]) for name in metrics[0])
    pairs = zip(
        [*agent.parameters(), *agent.buffers()],
        [*other.parameters(), *other.buffers()],
        strict=True,
    )
    assert all(left.equal(right) for left, right in pairs)
