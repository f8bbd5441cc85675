"""Probe the world model of a run: `python -m experiments.probe RUN`.

Small networks learn, on frozen features of training episodes, what a policy must know, and are
judged on held-out ones: where the nearest hazard and the goal are (median error in metres), whether
a violation follows (AUROC), and what the safe scripted policy does next (share of the variance
explained). Features are the encoder's output, the state's probabilities and its sample. The truth
comes from simulating the recorded episodes again, once for each dataset. Then, on episodes that the
run's policy plays: imagined against real cost and reward, k steps on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dreamer.boundary import Parser, bounded
from dreamer.data.validation import validate_dataset
from dreamer.files import atomic_path
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.utils import choose_device, use_threads
from experiments.diagnose_own import play_own
from experiments.probe.features import FEATURES, chosen_episodes, features_of, run_data
from experiments.probe.imagined import KINDS, WAYS, imagined_steps
from experiments.probe.probes import Split, probe_all
from experiments.probe.truth import load_truth
from fosp_ext.dataset.summary import summarise
from fosp_ext.run.run_folder import LoadedRun, load_run

TEACH, TEST, OWN = 192, 48, 5  # episodes


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="python -m experiments.probe",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("--episodes", type=int, default=TEACH, help="episodes that teach probes")
    parser.add_argument("--test", type=int, default=TEST, help="held-out episodes that judge them")
    parser.add_argument("--own", type=int, default=OWN, help="episodes to play; 0: none")
    parser.add_argument("--variant", default="none", help="variant in which they are played")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 takes every core")
    options = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("test", 1), ("own", 0), ("threads", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return options


def probe(
    loaded: LoadedRun, teach: int, test: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """What probes tell from each kind of features."""
    config = loaded.config
    path = run_data(loaded)
    info, count = validate_dataset(path), len(summarise(path).lengths)
    chosen = chosen_episodes(count, config.dataset.holdout, teach, test)
    truths = [load_truth(path, info, episodes) for episodes in chosen]
    seen = [
        features_of(loaded.agent, path, episodes, device, loaded.info.action_scale)
        for episodes in chosen
    ]
    found = {}
    with Progress("teaching probes", len(FEATURES), "kinds of features", sys.stderr) as progress:
        for name in FEATURES:
            taught, judged = (Split(x[name], t) for x, t in zip(seen, truths, strict=True))
            found[name] = probe_all(taught, judged, config.env.violation)
            progress.advance()
    return found


def describe(
    probes: Mapping[str, Mapping[str, float]], steps: Sequence[Mapping[str, float]]
) -> str:
    """Both tables as Markdown."""
    names = list(next(iter(probes.values())))
    lines = [f"| probe | {' | '.join(FEATURES)} |", "|---" * (1 + len(FEATURES)) + "|"]
    for name in names:
        numbers = " | ".join(f"{probes[kind][name]:.3f}" for kind in FEATURES)
        lines.append(f"| {name} | {numbers} |")
    if steps:
        columns = [f"{source} {kind}" for kind in KINDS for source in ("real", *WAYS)]
        lines += ["", f"| k | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        for step in steps:
            lines.append(
                f"| {step['k']:.0f} | {' | '.join(f'{step[name]:.4f}' for name in columns)} |"
            )
    return "\n".join(lines)


def save(path: Path, found: dict[str, Any]) -> None:
    """Write the numbers with what made them."""
    with atomic_path(path) as part:
        part.write_text(json.dumps({**found, "provenance": provenance()}, indent=1) + "\n")


@bounded
def main(argv: list[str] | None = None) -> int:
    """Probe; returns the exit code."""
    options = parse(argv)
    use_threads(options.threads)
    device = choose_device(options.device)
    loaded = load_run(options.run, device)
    probes = probe(loaded, options.episodes, options.test, device)
    steps = []
    if options.own:
        own = play_own(loaded, options.variant, options.own, device)
        steps = imagined_steps(loaded.agent, own, device)
    print(describe(probes, steps))
    if options.json:
        run = {"run": str(options.run), "updates": loaded.updates}
        asked = {"episodes": options.episodes, "test": options.test, "own": options.own}
        save(options.json, {**run, **asked, "probes": probes, "steps": steps})
    return 0


if __name__ == "__main__":
    sys.exit(main())
