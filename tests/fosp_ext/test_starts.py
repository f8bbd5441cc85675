"""Starts of imagined rollouts near violations: which rows those are, how many begin there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamer.imagination import choose_starts
from dreamer.types import Batch, Latent
from fosp_ext.starts import NEAR, choose_safe_starts, violation_near
from tests.support.agents import make_config

SETTINGS = make_config().imagination


def rows(cost: list[list[float]], is_first: list[list[int]] | None = None) -> Batch:
    """A batch without images; by default each window is from one episode."""
    c = torch.tensor(cost)
    first = torch.zeros_like(c) if is_first is None else torch.tensor(is_first).float()
    first[:, 0] = 1
    zeros = torch.zeros_like(c)
    return Batch({}, torch.zeros(*c.shape, 2), zeros, c, first, zeros, zeros)


def numbered(batch: Batch) -> Latent:
    """States that say which row of the batch they are."""
    number = torch.arange(batch.cost.numel()).float().reshape(*batch.cost.shape, 1)
    return Latent(number, number.unsqueeze(-1))


def test_rows_before_a_violation_of_their_episode_are_near():
    batch = rows([[0, 0, 0, 0.4, 2, 0], [0, 0, 0, 0, 0, 1]], [[0] * 6, [0, 0, 0, 0, 1, 0]])
    assert violation_near(batch, 0.5, 2).int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert violation_near(batch, 0.5, 0).int().tolist() == [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert violation_near(batch, 0.5, 99)[0].int().tolist() == [1, 1, 1, 1, 1, 0]


def begun(batch: Batch, starts: int, risky: float) -> torch.Tensor:
    """The rows that rollouts start from, (starts,)."""
    settings = replace(SETTINGS, starts=starts, risky=risky)
    return choose_safe_starts(numbered(batch), batch, settings, 0.5).latent.deter[:, 0].long()


def violating(windows: int, length: int, *places: int) -> Batch:
    """A batch of one episode per window, with violations in these of its rows."""
    cost = torch.zeros(windows * length)
    cost[list(places)] = 1
    return rows(cost.reshape(windows, length).tolist())


@pytest.mark.parametrize(
    ("batch", "starts", "risky", "near_starts"),
    [
        (violating(8, 32, 40), 128, 0.5, 64),  # the size `cpu`, 9 near rows
        (violating(8, 32, 32), 128, 0.5, 64),  # 1 near row
        (violating(8, 32, *range(8, 250, 9)), 128, 0.5, 64),  # few calm rows
        (violating(8, 32, 40), 128, 0.1, 13),
        (violating(16, 64, 40, 900), 128, 0.5, 64),
        (violating(2, 32, 20), 7, 0.25, 2),
        (violating(2, 32, 20), 500, 0.5, 32),  # more than there are rows: as many as those
        (violating(2, 32, 20), 20, 1, 20),
    ],
)
def test_the_share_that_is_asked_for_comes(batch, starts, risky, near_starts):
    torch.manual_seed(0)
    near = violation_near(batch, 0.5, NEAR).flatten()
    assert 0 < near.sum() < len(near)
    for _ in range(5):
        chosen = begun(batch, starts, risky)
        assert len(chosen) == min(starts, len(near))
        assert near[chosen].sum() == near_starts


@pytest.mark.parametrize("places", [(), range(7, 64, 8)])
def test_a_batch_with_one_kind_of_rows_begins_there(places):
    batch = violating(2, 32, *places)
    near = violation_near(batch, 0.5, NEAR)
    assert near.all() if places else not near.any()
    torch.manual_seed(0)
    chosen = torch.cat([begun(batch, 20, 0.5) for _ in range(40)])
    assert len(chosen) == 800
    assert len(chosen.unique()) == 64, "any of them"


def test_rows_of_a_kind_come_equally_often_and_by_chance():
    torch.manual_seed(0)
    batch = violating(8, 32, 40)
    near = violation_near(batch, 0.5, NEAR).flatten()
    total = torch.zeros(256)
    for _ in range(200):
        counts = begun(batch, 128, 0.5).bincount(minlength=256)
        assert counts[near].tolist().count(8) == 1  # 64 of 9 rows: seven of each, and one more
        assert counts[near].sum() == 64
        assert counts[near].min() == 7
        assert counts[~near].max() == 1, "a row repeats only where there are too few"
        total += counts
    assert (total[near] / 200 - 64 / 9).abs().max() < 0.1
    assert (total[~near] / 200 - 64 / 247).abs().max() < 0.15


@pytest.mark.parametrize(("starts", "risky"), [("0", "0.5"), ("7", "0")])
def test_without_a_count_or_a_share_starts_are_the_usual_ones(starts, risky):
    batch = rows([[0.0, 0, 1, 0, 0]] * 4)
    settings = make_config(imagination__starts=starts, imagination__risky=risky).imagination
    torch.manual_seed(3)
    ours = choose_safe_starts(numbered(batch), batch, settings, 0.5)
    torch.manual_seed(3)
    usual = choose_starts(numbered(batch), batch, int(starts))
    assert torch.equal(ours.latent.deter, usual.latent.deter)
    assert torch.equal(ours.cost, usual.cost)
