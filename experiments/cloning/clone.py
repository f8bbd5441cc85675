"""Behaviour cloning by least squares: from the last rows of an input to the recorded action."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.training.progress import Progress

PER_ROW, UNITS, DROPOUT = 128, 256, 0.1
BATCH, SEGMENT = 256, 16  # targets in an update, and how many of them follow one another
LEARNING_RATE, DECAY = 1e-3, 0.1
CHECKS = 20  # of the held-out loss, evenly over the updates


class Rows(NamedTuple):
    """T rows of each of E episodes at which actions were chosen."""

    inputs: Tensor  # (E, T, F)
    targets: Tensor  # (E, T, A)


@dataclass(frozen=True)
class Cloned:
    """The clone with the least held-out loss, and how well it predicts."""

    net: Clone
    updates: int  # after which the held-out loss was least
    loss: float  # mean squared error on as many teaching episodes as are held out
    heldout: float  # mean squared error on held-out episodes
    explained: list[float]  # there, share of the variance of each component of the targets


class Clone(nn.Module):
    """Predicts the mean action from the last `window` rows of an input."""

    mean: Tensor
    std: Tensor

    def __init__(self, teach: Rows, window: int):
        super().__init__()
        self.window = window
        # features that hardly vary are not blown up
        self.register_buffer("mean", teach.inputs.mean((0, 1)))
        self.register_buffer("std", teach.inputs.std((0, 1)) + 1e-2)
        self.row = _layer(teach.inputs.shape[-1], PER_ROW)
        self.head = nn.Sequential(
            _layer(window * PER_ROW, UNITS),
            _layer(UNITS, UNITS),
            nn.Linear(UNITS, teach.targets.shape[-1]),
        )

    def forward(self, inputs: Tensor) -> Tensor:  # (B, window - 1 + T, F) -> (B, T, A)
        rows = self.row((inputs - self.mean) / self.std)
        return self.head(rows.unfold(1, self.window, 1).flatten(2))


def fit(teach: Rows, test: Rows, window: int, updates: int, progress: Progress) -> Cloned:
    """Learn from `teach`; of the nets on the way, the one that is best on `test` is kept."""
    generator = torch.Generator().manual_seed(0)
    checks = {round(updates * k / CHECKS) for k in range(1, CHECKS + 1)}
    inputs, tested = lead_in(teach.inputs, window), lead_in(test.inputs, window)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net, best = Clone(teach, window), (float("inf"), 0)
        kept = copy.deepcopy(net)
        optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, updates)
        for update in range(1, updates + 1):
            episode, place = _draw(teach.targets, window, generator)
            optimizer.zero_grad()
            seen = inputs[episode, place[:, :1] + torch.arange(window - 1 + place.shape[1])]
            F.mse_loss(net(seen), teach.targets[episode, place]).backward()
            optimizer.step()
            schedule.step()
            if update in checks:
                loss = float(F.mse_loss(_predict(net, tested), test.targets))
                if loss < best[0]:
                    best, kept = (loss, update), copy.deepcopy(net)
            progress.advance()
    kept.eval()
    some = slice(len(test.targets))
    error = (_predict(kept, tested) - test.targets).square().mean((0, 1))
    return Cloned(
        net=kept,
        updates=best[1],
        loss=float(F.mse_loss(_predict(kept, inputs[some]), teach.targets[some])),
        heldout=best[0],
        explained=(1 - error / test.targets.var((0, 1), correction=0)).tolist(),
    )


def lead_in(inputs: Tensor, window: int) -> Tensor:
    """Inputs (E, T, F) behind window - 1 copies of their first row: every row gets an action."""
    return torch.cat([inputs[:, :1].expand(-1, window - 1, -1), inputs], 1)


def _draw(targets: Tensor, window: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Episodes (B, 1) and rows (B, n) of them, as many as an update learns from.

    Windows of rows that follow one another share most of their rows, so they are drawn together.
    """
    episodes, rows = targets.shape[:2]
    length = min(SEGMENT, rows) if window > 1 else 1
    count = BATCH // length
    episode = torch.randint(episodes, (count, 1), generator=generator)
    first = torch.randint(rows - length + 1, (count, 1), generator=generator)
    return episode, first + torch.arange(length)


@torch.no_grad()
def _predict(net: Clone, inputs: Tensor) -> Tensor:
    net.eval()
    predicted = net(inputs)
    net.train()
    return predicted


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.SiLU(), nn.Dropout(DROPOUT)
    )
