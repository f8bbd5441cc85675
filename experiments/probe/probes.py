"""Small networks that read frozen features: how well do they tell what a policy must know?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.functional import violates
from experiments.probe.truth import Truth
from fosp_ext.report.calibration import auroc
from fosp_ext.run.warnings import follows

UNITS, DROPOUT, EPOCHS, BATCH = 256, 0.2, 15, 512
LEARNING_RATE, DECAY = 1e-3, 0.1
NEAR = 0.6  # metres within which a hazard counts whether it is in view or not
WITHIN = (5, 10)  # agent steps within which a violation is to be foretold


class Split(NamedTuple):
    """Features (E, R, F) of episodes, and the truth about them."""

    features: Tensor
    truth: Truth


def probe_all(teach: Split, test: Split, violation: float) -> dict[str, float]:
    """What probes taught on one split say about the other; a row violates from `violation` on."""
    mean, std = teach.features.mean((0, 1)), teach.features.std((0, 1)) + 1e-2
    teach, test = (
        split._replace(features=(split.features - mean) / std) for split in (teach, test)
    )
    return {
        **_positions(teach, test),
        **_violations(teach, test, violation),
        **_next_action(teach, test),
    }


def _positions(teach: Split, test: Split) -> dict[str, float]:
    """Median errors in metres of the nearest hazard and of the goal."""
    found = {}
    for name in ("hazard", "goal"):
        seen = f"{name}_seen"
        asked: np.ndarray = getattr(teach.truth, seen)
        if name == "hazard":
            asked = np.logical_or(asked, np.linalg.norm(teach.truth.hazard, axis=-1) < NEAR)
        guess = fit(teach, getattr(teach.truth, name), asked, _distance)
        error = np.linalg.norm(guess(test.features) - getattr(test.truth, name), axis=-1)
        found[f"{name} in view, m"] = float(np.median(error[getattr(test.truth, seen)]))
        if name == "hazard":
            close = np.linalg.norm(test.truth.hazard, axis=-1) < NEAR
            found[f"hazard within {NEAR} m, m"] = float(np.median(error[close]))
    return found


def _violations(teach: Split, test: Split, violation: float) -> dict[str, float]:
    """AUROC of a violation within the next steps."""
    taught, judged = (_to_follow(split.truth, violation) for split in (teach, test))
    guess = fit(teach, taught[0], taught[1].all(-1), _cross_entropy)(test.features)
    found = {}
    for place, steps in enumerate(WITHIN):
        known = judged[1][..., place]
        score = auroc(guess[..., place][known], judged[0][..., place][known])
        found[f"violation within {steps}, AUROC"] = float(score)
    return found


def _next_action(teach: Split, test: Split) -> dict[str, float]:
    """Share of the variance of the safe policy's next action that is explained, per component.

    Empty where it acted in no episode.
    """
    asked, judged = (_safe_rows(split.truth) for split in (teach, test))
    if not asked.any() or not judged.any():
        return {}
    guess = fit(teach, teach.truth.action, asked, _squared)(test.features)[judged]
    truth = test.truth.action[judged]  # (n, A)
    explained = 1 - np.square(guess - truth).mean(0) / truth.var(0)
    return {f"safe action {k}, R2": float(x) for k, x in enumerate(explained)}


def fit(
    teach: Split, target: np.ndarray, asked: np.ndarray, loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], np.ndarray]:
    """A probe of targets (E, R, K), taught at the rows that are `asked` (E, R) for.

    Returns the function from features (..., F) to its guesses (..., K).
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x = teach.features[torch.from_numpy(asked)]  # (n, F)
        y = torch.from_numpy(target[asked]).float()
        net = _network(x.shape[-1], y.shape[-1])
        optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=DECAY)
        steps = EPOCHS * max(1, len(x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()

    @torch.no_grad()
    def guess(features: Tensor) -> np.ndarray:
        return net(features).numpy()

    return guess


def _network(inputs: int, outputs: int) -> nn.Sequential:
    hidden = [
        part
        for size in (inputs, UNITS)
        for part in (nn.Linear(size, UNITS), nn.LayerNorm(UNITS), nn.SiLU(), nn.Dropout(DROPOUT))
    ]
    return nn.Sequential(*hidden, nn.Linear(UNITS, outputs))


def _to_follow(truth: Truth, violation: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether a violation follows within each of WITHIN steps, and whether that is known."""
    events = violates(truth.cost, violation)  # (E, R)
    pairs = [[follows(row, steps) for steps in WITHIN] for row in events]
    following = np.array([[each[0] for each in row] for row in pairs])  # (E, len(WITHIN), R)
    known = np.array([[each[1] for each in row] for row in pairs])
    return following.transpose(0, 2, 1), known.transpose(0, 2, 1)


def _safe_rows(truth: Truth) -> np.ndarray:
    """Rows (E, R) at which the safe policy chose an action."""
    rows = np.zeros(truth.cost.shape, bool)
    rows[truth.policy == "safe", :-1] = True
    return rows


def _distance(guess: Tensor, truth: Tensor) -> Tensor:
    return (guess - truth).norm(dim=-1).mean()  # its minimiser is the median


def _cross_entropy(guess: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(guess, truth)


def _squared(guess: Tensor, truth: Tensor) -> Tensor:
    return F.mse_loss(guess, truth)
