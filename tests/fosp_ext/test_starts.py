"""Starts of imagined rollouts near violations: which rows those are, how often they are drawn."""

from __future__ import annotations

import pytest
import torch

from dreamer.imagination import choose_starts
from dreamer.types import Batch, Latent
from fosp_ext.starts import choose_safe_starts, start_odds, violation_near
from tests.support.agents import make_config


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


def test_odds_are_shared_between_near_and_calm_rows():
    batch = rows([[0.0] * 19 + [1.0]])
    odds = start_odds(batch, 0.5, 0.5)
    near = violation_near(batch, 0.5, 8)
    assert odds.sum().item() == pytest.approx(1)
    torch.testing.assert_close(odds[near], torch.full((9,), 0.5 / 9))
    torch.testing.assert_close(odds[~near], torch.full((11,), 0.5 / 11))
    for risky in (0.25, 1):
        calm = start_odds(rows([[0.0] * 4]), risky, 0.5)
        assert calm.tolist() == [[0.25] * 4]  # no violation in the batch: all rows alike


def test_draws_follow_the_odds_and_repeat_no_row():
    torch.manual_seed(0)
    batch = rows([[0.0] * 90 + [1.0] + [0.0] * 9] * 10)  # 90 of 1000 rows are near
    settings = make_config(imagination__starts="40", imagination__risky="0.5").imagination
    near = violation_near(batch, 0.5, 8).flatten()
    shares = []
    for _ in range(50):
        index = choose_safe_starts(numbered(batch), batch, settings, 0.5).latent.deter[:, 0].long()
        assert len(index.unique()) == 40
        shares.append(near[index].float().mean().item())
    assert sum(shares) / 50 == pytest.approx(0.47, abs=0.04)  # a little less: they run out
    assert max(shares) < 1


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
