"""Clone the safe episodes of a run's dataset: `python -m experiments.cloning RUN`.

Behaviour cloning from several inputs, each clone played in the environment. Where a clone of the
true positions does well and one of the world model's state does not, the state lacks something;
where all do badly, imitation itself fails. Inputs: `positions` (privileged: hazards, goal and own
motion, for this diagnosis alone), `encoder` (the embeddings of the last 20 rows), `sample` and
`probabilities` (the state, with the drawn classes or their posterior probabilities).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer.boundary import Parser, bounded
from dreamer.data.episode import rescaled
from dreamer.data.validation import validate_dataset
from dreamer.errors import UserError
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.utils import choose_device, use_threads
from experiments.cloning.clone import Rows, fit
from experiments.cloning.inputs import WINDOWS, Reader, recorded_inputs
from experiments.cloning.play import FIRST_SEED, play
from experiments.comparison.results import processor, save_json
from experiments.probe.features import run_data
from experiments.probe.truth import load_truth
from fosp_ext.dataset.summary import DatasetSummary, summarise
from fosp_ext.envs import make_run_env
from fosp_ext.envs.safety_gym import SafetyGymEnv
from fosp_ext.report.statistics import mean_interval
from fosp_ext.run.run_folder import LoadedRun, load_run

CLONED = "safe"  # the recorded policy
VARIANTS = tuple(WINDOWS)
UPDATES, EPISODES = 4000, 20


@dataclass(frozen=True)
class Recorded:
    """The episodes to clone: inputs (E, R, F) by their name, and actions (E, R, A)."""

    inputs: dict[str, Tensor]
    actions: Tensor


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="python -m experiments.cloning",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="clones to make"
    )
    parser.add_argument("--updates", type=int, default=UPDATES, help="of each clone")
    parser.add_argument("--play", type=int, default=EPISODES, help="episodes each clone plays")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--device", default="auto", help="of the world model: auto, cpu, cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 takes every core")
    options = parser.parse_args(argv)
    for name, least in (("updates", 1), ("play", 1), ("threads", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return options


def safe_episodes(summary: DatasetSummary, holdout: float) -> tuple[list[int], list[int]]:
    """Indices of the safe policy's episodes: those the run was trained on, and held-out ones."""
    chosen = np.flatnonzero(summary.policy == CLONED)
    first = len(summary.policy) - int(np.ceil(holdout * len(summary.policy)))
    teach, test = chosen[chosen < first].tolist(), chosen[chosen >= first].tolist()
    if not teach or not test:
        raise UserError(
            f"{summary.path} has {len(teach)} episodes of '{CLONED}' to learn from and {len(test)} "
            "held-out ones; cloning needs both"
        )
    return teach, test


def record(
    loaded: LoadedRun,
    path: Path,
    episodes: Sequence[int],
    names: Sequence[str],
    device: torch.device,
) -> Recorded:
    """What clones learn from, of these episodes."""
    info = validate_dataset(path)
    truth = load_truth(path, info, episodes)
    scale = loaded.info.action_scale
    inputs = recorded_inputs(names, loaded.agent, path, episodes, truth, device, scale)
    actions = rescaled(truth.action, info.action_scale, scale)
    return Recorded(inputs, torch.from_numpy(actions))


def clone_all(
    loaded: LoadedRun, options: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """The numbers of each clone, after those of the recorded episodes."""
    path = run_data(loaded)
    summary = summarise(path)
    env = make_run_env(loaded.info, loaded.config.env.variant)
    if not isinstance(env, SafetyGymEnv):
        raise UserError(f"{loaded.info.task}: only Safety-Gymnasium tasks have a policy to clone")
    split = safe_episodes(summary, loaded.config.dataset.holdout)
    teach, test = (record(loaded, path, episodes, options.variants, device) for episodes in split)
    chosen = np.concatenate(split)
    recorded = _totals(summary.returns[chosen], summary.costs[chosen])
    found: list[dict[str, Any]] = [{"clone": f"recorded ({CLONED})", **recorded}]
    for variant in options.variants:
        taught, judged = (  # the last row has no action
            Rows(part.inputs[variant][:, :-1], part.actions[:, :-1]) for part in (teach, test)
        )
        with Progress(f"cloning {variant}", options.updates, "updates", sys.stderr) as progress:
            cloned = fit(taught, judged, WINDOWS[variant], options.updates, progress)
        with Progress(f"playing {variant}", options.play, "episodes", sys.stderr) as progress:
            reader = Reader(variant, loaded.agent, env, device)
            played = play(cloned.net, reader, options.play, progress)
        numbers = {key: x for key, x in vars(cloned).items() if key != "net"}
        found.append({"clone": variant, **numbers, **_totals(*map(np.array, played))})
    env.close()
    return found


def _totals(returns: np.ndarray, costs: np.ndarray) -> dict[str, Any]:
    """Mean and 95 % interval of return and cost, and the totals (episodes,) themselves."""
    return {
        "return": mean_interval([returns]),
        "cost": mean_interval([costs]),
        "returns": returns.tolist(),
        "costs": costs.tolist(),
    }


def describe(found: Sequence[Mapping[str, Any]]) -> str:
    """The numbers as a Markdown table."""
    size = max(len(row.get("explained", ())) for row in found)
    explained = [f"R2 of action {k}" for k in range(size)]
    columns = ["clone", "updates", "loss", "held-out", *explained, "return", "cost"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in found:
        fitted = ["-"] * (3 + size)
        if "updates" in row:
            losses = [row["loss"], row["heldout"], *row["explained"]]
            fitted = [str(row["updates"]), *(f"{x:.3f}" for x in losses)]
        totals = [_interval(row[name]) for name in ("return", "cost")]
        lines.append(f"| {' | '.join([row['clone'], *fitted, *totals])} |")
    return "\n".join(lines)


def _interval(numbers: tuple[float, float, float]) -> str:
    mean, low, high = numbers
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


@bounded
def main(argv: list[str] | None = None) -> int:
    """Clone and play; returns the exit code."""
    options = parse(argv)
    use_threads(options.threads)
    device = choose_device(options.device)
    loaded = load_run(options.run, device)
    found = clone_all(loaded, options, device)
    print(describe(found))
    if options.json:
        run = {"run": str(options.run), "updates": loaded.updates, "first seed": FIRST_SEED}
        made = {**provenance(), "processor": processor()}
        save_json({**run, "clones": found, "provenance": made}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
