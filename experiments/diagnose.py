"""Diagnose each part of a trained agent on its own: `python -m experiments.diagnose RUN`.

The newest checkpoint of a run is evaluated on the held-out episodes of its dataset and on episodes
that its policy plays, which may reach states that the dataset lacks. Every point has a number, and
where a bound is known the last lines say whether it holds:

  images        error of open-loop predictions 15 steps ahead, beside that of the last image seen
  cost head     recall and precision over the recorded violations
  forecast      the model, rolled forward with the recorded actions from rows without cost: how
                well it ranks rows k steps ahead by whether they violate (AUROC)
  critics       how well values rank held-out rows by the recorded returns and costs (Spearman)
  reachability  how well the estimate ranks rows by whether a violation follows (AUROC)
  own episodes  played with the mean action in the run's task and variant: cost head and forecast
                there, and reward and cost of 15 steps, imagined with that action and real
  policy        the newest evaluation, beside the better half of the dataset's episodes
  multiplier    over the training: neither zero at the end, nor at its cap
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.targets import Target, conclude
from dreamer.boundary import Parser, bounded
from dreamer.data.hdf5 import fingerprint
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.utils import choose_device, use_threads
from experiments.diagnose_own import EPISODES, own_episodes, play_own
from experiments.diagnose_recorded import (
    HORIZON,
    cost_head,
    critics,
    episode_bounds,
    forecast,
    images,
    reachability,
    view_episode,
)
from fosp_ext.dataset.summary import summarise
from fosp_ext.report.runs import Run, points, read_run
from fosp_ext.run.data import run_dataset
from fosp_ext.run.run_folder import LoadedRun, allow_import, load_run

LEAST_SPEARMAN, LEAST_AUROC = 0.5, 0.8
LEAST_MULTIPLIER = 1e-3


def open_heldout(run: Run, loaded: LoadedRun) -> RowStore:
    """The held-out episodes of the dataset that the run was trained on."""
    path = run_dataset(run.config)
    if not path.exists():
        raise UserError(f"the dataset {path} of {run.path} is not there")
    if fingerprint(path) != loaded.dataset:
        raise UserError(f"{path} is not the dataset that {run.path} was trained on")
    _, heldout = RowStore.open(path, "disk", run.config.dataset.holdout)
    if heldout is None:
        raise UserError(f"dataset.holdout of {run.path} is 0: no episode is held out")
    return heldout


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
    summary = summarise(run_dataset(run.config))
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


def diagnose(path: Path, episodes: int, device: torch.device) -> dict[str, dict[str, float]]:
    """All points with their numbers, for the newest checkpoint of a run.

    Its policy plays so many episodes; without any, their point is left out.
    """
    run, loaded = read_run(path), load_run(path, device)
    allow_import(loaded.info.task, path)
    violation = run.config.env.violation
    heldout = open_heldout(run, loaded)
    own = play_own(loaded, run.variant, episodes, device) if episodes else None
    bounds, views = episode_bounds(heldout), []
    with Progress("evaluating", len(bounds), "held-out episodes", sys.stderr) as progress:
        for each in bounds:
            views.append(view_episode(loaded.agent, heldout, each, device))
            progress.advance()
    played = {}
    if own is not None:
        played["own episodes"] = own_episodes(loaded.agent, own, violation, device)
    return {
        "images": images(loaded.agent, heldout, device),
        "cost head": cost_head(views, violation),
        "forecast": forecast(loaded.agent, heldout, device),
        "critics": critics(views, run.config.imagination.gamma),
        "reachability": reachability(views, violation),
        **played,
        "policy": policy(run),
        "multiplier": multiplier(run),
    }


def targets(found: dict[str, dict[str, float]]) -> list[Target]:
    """The bounds that are known, for what the run has."""
    wanted = []
    if "ratio" in found["images"]:
        label = f"images: error {HORIZON} steps ahead by that of the last image"
        wanted.append(Target(label, found["images"]["ratio"], most=1))
    for name in ("value", "cost_value"):
        if name in found["critics"]:
            label = f"critics: Spearman of {name}"
            wanted.append(Target(label, found["critics"][name], least=LEAST_SPEARMAN))
    if "AUROC" in found["reachability"]:
        wanted.append(
            Target(
                "reachability: AUROC",
                found["reachability"]["AUROC"],
                least=LEAST_AUROC,
            )
        )
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


@bounded
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code, 1 if a bound is missed."""
    parser = Parser(
        prog="python -m experiments.diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of train.py")
    parser.add_argument(
        "--episodes",
        type=int,
        default=EPISODES,
        metavar="N",
        help="that the policy plays, default %(default)s; 0 leaves its own episodes out",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 takes every core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args(argv)
    use_threads(options.threads)
    if options.episodes < 0:
        raise UserError(f"--episodes must be at least 0, got {options.episodes}")
    found = diagnose(options.run, options.episodes, choose_device(options.device))
    print(describe(found))
    if options.json:
        save(found, options.run, options.json)
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
