"""Does each part of a trained agent work on its own? `python -m benchmarks.diagnose RUN`.

The newest checkpoint of a run is asked about the held-out episodes of its dataset, which were not
trained on; no simulator takes part. Every point has a number, and where a bound is known the last
lines say whether it holds:

  pictures    error of open-loop predictions 15 steps ahead, beside that of the last picture seen
  cost head   which recorded violations it finds, and which of its alarms are true
  foresight   does the model, rolled forward with the recorded actions from rows without cost, tell
              which row k steps ahead violates? (AUROC)
  critics     do their values rank held-out rows as the recorded returns and costs do? (Spearman)
  danger      does the reachability estimate rank rows by whether a violation follows? (AUROC)
  policy      the newest evaluation, beside the better half of the dataset's episodes
  multiplier  over the training: neither zero at the end, nor at its cap
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.targets import Target, conclude
from dreamer.agent import Agent
from dreamer.data.hdf5 import fingerprint
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.report import CONTEXT, fixed_randomness
from dreamer.types import VIOLATION, Batch, Latent
from dreamer.utils import choose_device
from fosp_ext.critics import InSampleCritic
from fosp_ext.dataset.summary import summarise
from fosp_ext.dataset.training import dataset_path
from fosp_ext.foresight import AHEAD, follows
from fosp_ext.policy_set import PolicySet
from fosp_ext.progress import Progress
from fosp_ext.report.calibration import auroc, brier
from fosp_ext.report.runs import Run, points, read_run
from fosp_ext.run_folder import LoadedRun, load_run, provenance
from fosp_ext.world_model import SafeWorldModel

HORIZON = 15  # steps of an open-loop prediction
STEPS_AHEAD = (1, 5, 10, 15)  # at which predicted violations are looked at
EVERY = 4  # rows between the starts of such predictions
WINDOW = 64  # agent steps over which recorded returns are added up
PICTURES, AT_ONCE = 96, 16  # open-loop windows, and how many together
LEAST_SPEARMAN, LEAST_AUROC = 0.5, 0.8
LEAST_MULTIPLIER = 1e-3


@dataclass(frozen=True)
class EpisodeView:
    """One held-out episode of T rows as the agent sees it; arrays are (T,)."""

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


def open_heldout(run: Run, loaded: LoadedRun) -> RowStore:
    """The held-out episodes of the dataset that the run was trained on."""
    path = dataset_path(run.config)
    if not path.exists():
        raise UserError(f"the dataset {path} of {run.path} is not there")
    if fingerprint(path) != loaded.dataset:
        raise UserError(f"{path} is not the dataset that {run.path} was trained on")
    _, heldout = RowStore.open(path, "disk", run.config.dataset.holdout)
    if heldout is None:
        raise UserError(f"dataset.holdout of {run.path} is 0: no episode is held out")
    return heldout


def episode_bounds(store: RowStore) -> list[tuple[int, int]]:
    """First row and row after the last of each episode."""
    firsts = np.flatnonzero(store.small("is_first"))
    return [(int(a), int(b)) for a, b in itertools.pairwise([*firsts, len(store)])]


@torch.no_grad()
def view_episode(
    agent: Agent, store: RowStore, bounds: tuple[int, int], device: torch.device
) -> EpisodeView:
    """What the agent thinks at each row, having seen the episode from its first row on."""
    begin, end = bounds
    batch = store.windows([begin], end - begin).to(device)
    model = agent.world_model
    with fixed_randomness(device), agent.autocast(device):
        latent = model.rssm.observe(model.encoder(batch.obs), batch.action, batch.is_first).latent
        feat = latent.feat()
        estimates = agent.behavior.estimates(feat) | _further(agent, feat, batch.action)
    seen = {name: x[0].float().cpu().numpy() for name, x in estimates.items()}
    small = {name: store.small(name)[begin:end] for name in ("reward", "cost")}
    return EpisodeView(**small, estimates=seen)


def _further(agent: Agent, feat: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Read-outs that the behaviour's own `estimates` leave out, where the agent has them."""
    found = {}
    if isinstance(agent.world_model, SafeWorldModel):
        found["cost"] = agent.world_model.cost_head(feat).mean()
    behavior = agent.behavior
    learner = behavior.learner if isinstance(behavior, PolicySet) else behavior
    for name, part in (("", "reward_critic"), ("cost_", "cost_critic")):
        critic = getattr(learner, part, None)
        if isinstance(critic, InSampleCritic):
            found[f"{name}best_value"] = critic.best(feat)
            found[f"{name}q"] = critic.q(feat, action)
    return found


def cost_head(views: Sequence[EpisodeView]) -> dict[str, float]:
    """How well the cost head tells rows that violate; nothing where there is none."""
    if "cost" not in views[0].estimates:
        return {}
    guess = np.concatenate([view.estimates["cost"][1:] for view in views])  # no cost in a first row
    truth = np.concatenate([view.cost[1:] for view in views]) >= VIOLATION
    alarm = guess >= VIOLATION
    hits = float((alarm & truth).sum())
    return {
        "rows": float(len(truth)),
        "rows that violate": float(truth.sum()),
        "recall": hits / truth.sum() if truth.any() else float("nan"),
        "precision": hits / alarm.sum() if alarm.any() else float("nan"),
        "AUROC": auroc(guess, truth),
    }


@torch.no_grad()
def foresight(agent: Agent, store: RowStore, device: torch.device) -> dict[str, float]:
    """AUROC of predicted violations some steps ahead; nothing where the model knows no cost."""
    model = agent.world_model
    if not isinstance(model, SafeWorldModel):
        return {}
    guesses, truths = ({k: [] for k in STEPS_AHEAD} for _ in range(2))
    for begin, end in episode_bounds(store):
        batch = store.windows([begin], end - begin).to(device)
        rows = torch.arange(0, end - begin - max(STEPS_AHEAD), EVERY, device=device)
        rows = rows[batch.cost[0, rows] < VIOLATION]
        with fixed_randomness(device), agent.autocast(device):
            embed = model.encoder(batch.obs)
            latent = model.rssm.observe(embed, batch.action, batch.is_first).latent
            state = Latent(*(x[0, rows] for x in latent))
            for k in range(1, max(STEPS_AHEAD) + 1):
                state = model.rssm.img_step(state, batch.action[0, rows + k - 1])
                if k in STEPS_AHEAD:
                    guesses[k].append(model.violation(state.feat()).float().cpu().numpy())
                    truths[k].append((batch.cost[0, rows + k] >= VIOLATION).cpu().numpy())
    joined = {k: (np.concatenate(guesses[k]), np.concatenate(truths[k])) for k in STEPS_AHEAD}
    return {f"AUROC {k} steps ahead": auroc(*pair) for k, pair in joined.items()}


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


def danger(views: Sequence[EpisodeView]) -> dict[str, float]:
    """How well p tells rows that a violation follows; nothing where it is not estimated."""
    if "danger" not in views[0].estimates:
        return {}
    estimates, outcomes = [], []
    for view in views:
        following, known = follows(view.cost >= VIOLATION, AHEAD)
        estimates.append(view.estimates["danger"][known])
        outcomes.append(following[known])
    estimate, outcome = np.concatenate(estimates), np.concatenate(outcomes)
    return {
        "violation follows": float(outcome.mean()),
        "mean danger": float(estimate.mean()),
        "AUROC": auroc(estimate, outcome),
        "Brier score": brier(estimate, outcome),
    }


@torch.no_grad()
def pictures(agent: Agent, store: RowStore, device: torch.device) -> dict[str, float]:
    """Mean squared error per pixel value in [0, 1], HORIZON rows after the last one seen."""
    length = CONTEXT + HORIZON
    starts = [
        row
        for begin, end in episode_bounds(store)
        for row in range(begin, end - length + 1, length)
    ]
    if not starts:
        return {}
    picks = np.linspace(0, len(starts) - 1, min(PICTURES, len(starts))).astype(int)
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
        "error of the last picture": copy,
        "ratio": model / copy if copy else float("nan"),
    }


def _errors(batch: Batch, guess: Callable[[str], Tensor]) -> np.ndarray:
    """Of guesses of the last row's pictures, camera -> (B, H, W, C): (B,)."""
    errors = [
        (guess(name) - truth[:, -1].float() / 255).square().mean((1, 2, 3))
        for name, truth in batch.obs.items()
    ]
    return torch.stack(errors).mean(0).cpu().numpy()


def multiplier(run: Run) -> dict[str, float]:
    """Over the training, if it has one; after each quarter of the logged lines."""
    _, values = points(run.rows, "train/lagrange/multiplier")
    if not len(values):
        return {}
    quarters = np.linspace(0, len(values) - 1, 5).round().astype(int)
    names = ("first", "after a quarter", "after half", "after three quarters", "last")
    found = dict(zip(names, values[quarters].tolist(), strict=True))
    return {**found, "cap": run.config.lagrange.max_multiplier}


def policy(run: Run) -> dict[str, float]:
    """Newest evaluation in the run's own variant, beside the better half of the dataset."""
    summary = summarise(dataset_path(run.config))
    better = summary.returns >= np.median(summary.returns)
    found = {
        "return of the better half": float(summary.returns[better].mean()),
        "cost of the better half": float(summary.costs[better].mean()),
    }
    own = [e for e in run.newest() if e.variant == run.variant and e.policy in ("", "set")]
    if own:
        found |= {
            "episodes": float(own[-1].episodes),
            "return": float(own[-1].scores.mean()),
            "cost": float(own[-1].costs.mean()),
        }
    return found


def diagnose(path: Path, device: torch.device) -> dict[str, dict[str, float]]:
    """All points with their numbers, for the newest checkpoint of a run."""
    run, loaded = read_run(path), load_run(path, device)
    heldout = open_heldout(run, loaded)
    bounds, views = episode_bounds(heldout), []
    with Progress("asking", len(bounds), "held-out episodes", sys.stderr) as progress:
        for each in bounds:
            views.append(view_episode(loaded.agent, heldout, each, device))
            progress.advance()
    return {
        "pictures": pictures(loaded.agent, heldout, device),
        "cost head": cost_head(views),
        "foresight": foresight(loaded.agent, heldout, device),
        "critics": critics(views, run.config.imagination.gamma),
        "danger": danger(views),
        "policy": policy(run),
        "multiplier": multiplier(run),
    }


def targets(found: dict[str, dict[str, float]]) -> list[Target]:
    """The bounds that are known, for what the run has."""
    wanted = []
    if "ratio" in found["pictures"]:
        label = f"pictures: error {HORIZON} steps ahead by that of the last picture"
        wanted.append(Target(label, found["pictures"]["ratio"], most=1))
    for name in ("value", "cost_value"):
        if name in found["critics"]:
            label = f"critics: Spearman of {name}"
            wanted.append(Target(label, found["critics"][name], least=LEAST_SPEARMAN))
    if "AUROC" in found["danger"]:
        wanted.append(Target("danger: AUROC", found["danger"]["AUROC"], least=LEAST_AUROC))
    if "return" in found["policy"]:
        half = found["policy"]["return of the better half"]
        wanted.append(Target("policy: return", found["policy"]["return"], least=half))
    if "last" in found["multiplier"]:
        last, cap = found["multiplier"]["last"], found["multiplier"]["cap"]
        wanted.append(Target("multiplier: last", last, LEAST_MULTIPLIER, 0.99 * cap))
    return wanted


def describe(found: dict[str, dict[str, float]]) -> str:
    """All numbers as a table."""
    rows = [
        f"| {point} | {name} | {number:.4g} |"
        for point, numbers in found.items()
        for name, number in (numbers or {"none": float("nan")}).items()
    ]
    return "\n".join(["| point | what | number |\n|---|---|---|", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code, 1 if a bound is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of train.py")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 takes every core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        found = diagnose(options.run, choose_device(options.device))
        print(describe(found))
        if options.json:
            save(found, options.run, options.json)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return conclude(targets(found))


def save(found: dict[str, dict[str, float]], run: Path, path: Path) -> None:
    """Write the numbers with what made them; one that is not defined is null."""
    known: dict[str, Any] = {
        point: {name: x if np.isfinite(x) else None for name, x in numbers.items()}
        for point, numbers in found.items()
    }
    whole = {"run": str(run), "points": known, "provenance": provenance()}
    with atomic_path(path) as part:
        part.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
