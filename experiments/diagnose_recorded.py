"""The part of `experiments.diagnose` that reads recorded episodes of any policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.data.store import RowStore
from dreamer.functional import violates
from dreamer.training.diagnostics import CONTEXT, fixed_randomness
from dreamer.types import Batch, Latent
from fosp_ext.critics import InSampleCritic
from fosp_ext.policy_set import PolicySet
from fosp_ext.report.calibration import auroc, brier
from fosp_ext.run.warnings import LOOKAHEAD, follows
from fosp_ext.world_model import SafeWorldModel

HORIZON = 15  # steps of an open-loop prediction
STEPS_AHEAD = (1, 5, 10, 15)  # at which predicted violations are evaluated
EVERY = 4  # rows between the starts of such predictions
WINDOW = 64  # agent steps over which recorded returns are added up
IMAGES, AT_ONCE = 96, 16  # open-loop windows, and how many together


@dataclass(frozen=True)
class EpisodeView:
    """One episode of T rows as the agent sees it; arrays are (T,)."""

    reward: np.ndarray
    cost: np.ndarray
    estimates: dict[str, np.ndarray]  # of the row's state, by name


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two arrays (n,); ties share their mean rank. NaN if one is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Places (n,) from small to large, from 1 on; equal values share their mean place."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def to_come(signal: np.ndarray, gamma: float, window: int) -> np.ndarray:
    """Discounted sums of what the next `window` rows bring: (T,) -> (T - window,), or (0,).

    Entry t is signal[t+1] + gamma signal[t+2] + ..., for a row's reward came with it.
    """
    if len(signal) <= window:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(signal[1:], window)
    return windows @ gamma ** np.arange(window)


def episode_bounds(store: RowStore) -> list[tuple[int, int]]:
    """First row and row after the last of each episode."""
    firsts = np.flatnonzero(store.small("is_first"))
    return [(int(a), int(b)) for a, b in itertools.pairwise([*firsts, len(store)])]


def start_rows(rows: int, steps: int, device: torch.device) -> Tensor:
    """Every EVERY-th of the rows of an episode that have `steps` more behind them, (N,)."""
    return torch.arange(0, max(0, rows - steps), EVERY, device=device)


@torch.no_grad()
def view_episode(
    agent: Agent, store: RowStore, bounds: tuple[int, int], device: torch.device
) -> EpisodeView:
    """Value estimates at each row, with the model run from the first row of the episode on."""
    begin, end = bounds
    batch = store.windows([begin], end - begin).to(device)
    model = agent.world_model
    with fixed_randomness(device), agent.autocast(device):
        feat = model.follow(batch).feat()
        estimates = agent.policy.estimates(feat) | _further(agent, feat, batch.action)
    seen = {name: x[0].float().cpu().numpy() for name, x in estimates.items()}
    small = {name: store.small(name)[begin:end] for name in ("reward", "cost")}
    return EpisodeView(**small, estimates=seen)


def _further(agent: Agent, feat: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Further estimates beside those of the policy, where the agent has them."""
    found = {}
    if isinstance(agent.world_model, SafeWorldModel):
        found["cost"] = agent.world_model.cost_head(feat).mean()
    policy = agent.policy
    learner = policy.learner if isinstance(policy, PolicySet) else policy
    for name, part in (("", "reward_critic"), ("cost_", "cost_critic")):
        critic = getattr(learner, part, None)
        if isinstance(critic, InSampleCritic):
            found[f"{name}in_sample_value"] = critic.in_sample_value(feat)
            found[f"{name}in_sample_q"] = critic.in_sample_target_q(feat, action)
            found[f"{name}q"] = critic.q(feat, action)
    return found


def cost_head(views: Sequence[EpisodeView], violation: float) -> dict[str, float]:
    """Recall and precision of the cost head; a row violates from the cost `violation` on.

    Empty where there is no cost head.
    """
    if "cost" not in views[0].estimates:
        return {}
    guess = np.concatenate([view.estimates["cost"][1:] for view in views])  # no cost in a first row
    truth = violates(np.concatenate([view.cost[1:] for view in views]), violation)
    warning = violates(guess, violation)
    hits = float((warning & truth).sum())
    return {
        "rows": float(len(truth)),
        "rows that violate": float(truth.sum()),
        "recall": hits / truth.sum() if truth.any() else float("nan"),
        "precision": hits / warning.sum() if warning.any() else float("nan"),
        "AUROC": auroc(guess, truth),
    }


@torch.no_grad()
def forecast(agent: Agent, store: RowStore, device: torch.device) -> dict[str, float]:
    """AUROC of predicted violations some steps ahead.

    Empty where the model has no cost head, or no episode is long enough.
    """
    model = agent.world_model
    if not isinstance(model, SafeWorldModel):
        return {}
    guesses, truths = ({k: [] for k in STEPS_AHEAD} for _ in range(2))
    for begin, end in episode_bounds(store):
        batch = store.windows([begin], end - begin).to(device)
        rows = start_rows(end - begin, max(STEPS_AHEAD), device)
        rows = rows[~violates(batch.cost[0, rows], model.violation)]
        if not len(rows):
            continue
        with fixed_randomness(device), agent.autocast(device):
            state = Latent(*(x[0, rows] for x in model.follow(batch)))
            for k in range(1, max(STEPS_AHEAD) + 1):
                state = model.rssm.img_step(state, batch.action[0, rows + k - 1])
                if k in STEPS_AHEAD:
                    guesses[k].append(model.predict(state.feat()).violation.float().cpu().numpy())
                    violating = violates(batch.cost[0, rows + k], model.violation)
                    truths[k].append(violating.cpu().numpy())
    if not all(guesses.values()):
        return {}
    merged = {k: (np.concatenate(guesses[k]), np.concatenate(truths[k])) for k in STEPS_AHEAD}
    return {f"AUROC {k} steps ahead": auroc(*pair) for k, pair in merged.items()}


def critics(views: Sequence[EpisodeView], gamma: float) -> dict[str, float]:
    """Spearman of each value with the recorded discounted return, or cost, of the next rows."""
    found = {}
    names = [name for name in views[0].estimates if name.endswith(("value", "q"))]
    for name in names:
        kind = "cost" if name.startswith("cost_") else "reward"
        sums = [to_come(getattr(view, kind), gamma, WINDOW) for view in views]
        values = [v.estimates[name][: len(own)] for v, own in zip(views, sums, strict=True)]
        found[name] = spearman(np.concatenate(values), np.concatenate(sums))
    return found


def reachability(views: Sequence[EpisodeView], violation: float) -> dict[str, float]:
    """Ranking of rows by p against what follows; empty where p is not estimated."""
    if "violation_probability" not in views[0].estimates:
        return {}
    estimates, outcomes = [], []
    for view in views:
        following, known = follows(violates(view.cost, violation), LOOKAHEAD)
        estimates.append(view.estimates["violation_probability"][known])
        outcomes.append(following[known])
    estimate, outcome = np.concatenate(estimates), np.concatenate(outcomes)
    return {
        "violation follows": float(outcome.mean()),
        "mean violation probability": float(estimate.mean()),
        "AUROC": auroc(estimate, outcome),
        "Brier score": brier(estimate, outcome),
    }


@torch.no_grad()
def images(agent: Agent, store: RowStore, device: torch.device) -> dict[str, float]:
    """Mean squared error per pixel value in [0, 1], HORIZON rows after the last one seen."""
    length = CONTEXT + HORIZON
    starts = [
        row
        for begin, end in episode_bounds(store)
        for row in range(begin, end - length + 1, length)
    ]
    if not starts:
        return {}
    picks = np.linspace(0, len(starts) - 1, min(IMAGES, len(starts))).astype(int)
    chosen = np.array(starts)[picks]
    ours, copied = [], []
    for part in range(0, len(chosen), AT_ONCE):
        batch = store.windows(chosen[part : part + AT_ONCE], length).to(device)
        with fixed_randomness(device), agent.autocast(device):
            predicted = agent.world_model.open_loop(batch, CONTEXT)
        ours.append(_errors(batch, lambda name, p=predicted: p[name][:, -1].float()))
        copied.append(
            _errors(batch, lambda name, b=batch: b.obs[name][:, CONTEXT - 1].float() / 255)
        )
    model, copy = float(np.concatenate(ours).mean()), float(np.concatenate(copied).mean())
    return {
        "windows": float(len(chosen)),
        "error of the model": model,
        "error of the last image": copy,
        "ratio": model / copy if copy else float("nan"),
    }


def _errors(batch: Batch, guess: Callable[[str], Tensor]) -> np.ndarray:
    """Of guesses of the last row's images, camera -> (B, H, W, C): (B,)."""
    errors = [
        (guess(name) - truth[:, -1].float() / 255).square().mean((1, 2, 3))
        for name, truth in batch.obs.items()
    ]
    return torch.stack(errors).mean(0).cpu().numpy()
