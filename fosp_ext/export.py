"""A small file with what acting needs of a run: python -m fosp_ext.export RUN --out FILE.pt"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamer.boundary import Parser, guarded, named_path
from dreamer.config import to_dict
from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.run_folder import META, provenance, read_starts, run_of
from fosp_ext.commands import as_called
from fosp_ext.policy_set import PolicySet
from fosp_ext.run.run_folder import LoadedRun, leave_out_learning, load_run

EPILOG = """example:
  python -m fosp_ext.export logdir/SafetyPointGoal1-v0/fosp_offline-cpu-quick/seed0 --out mine.pt
  python eval.py --checkpoint mine.pt

The agent in the file acts and judges states as the run's does, but for the rounding of its weights
to float16, and it predicts images. It cannot be trained. Exit codes: 0 done, 2 wrong words, a RUN
without a checkpoint, or a FILE that exists."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog=as_called("python -m fosp_ext.export"),
        description="Write the agent of a run as one small file that eval.py plays.",
        epilog=as_called(EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=named_path, metavar="RUN",
        help="run folder of train.py, whose newest checkpoint is taken, or one checkpoint file",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="FILE",
        help="file to write; it must not exist",
    )
    return parser.parse_args(argv)


def export(source: Path, out: Path) -> Path:
    """Write the agent of a run folder or checkpoint, online or offline, to a new file `out`.

    Matrices become float16, which halves them; vectors are few and stay float32. The file is a
    checkpoint without what learning needs, with `left_out`, the names of the missing parts, and
    `provenance`: run, updates, dataset, `training` (the starts of the run) and `export` (this
    command). A source that cannot be exported, and a file that exists, are a `UserError`.
    """
    if out.exists():
        raise UserError(f"{out} exists; nothing is overwritten")
    run = load_run(source, torch.device("cpu"))
    if run.exported:
        raise UserError(f"{source} is an exported agent already")
    parts = leave_out_learning(run.agent, heads=not judges_by_rollouts(run))
    weights = run.agent.state_dict()
    state = {
        "agent": {name: x.half() if x.ndim > 1 else x for name, x in weights.items()},
        "config": to_dict(run.config),
        "info": to_dict(run.info),
        "dataset": run.dataset,
        "left_out": parts,
        "provenance": {
            "run": run.config.logdir,
            "updates": run.updates,
            "dataset": run.dataset,
            "training": starts_of(source),
            "export": provenance(),
        },
    }
    Checkpoint.write(out, run.updates, state)
    return out


def judges_by_rollouts(run: LoadedRun) -> bool:
    """Does the agent of a run imagine rewards and costs when it acts?"""
    policy = run.agent.policy
    return isinstance(policy, PolicySet) and policy.choice.settings.score == "rollout"


def starts_of(source: Path) -> list[dict[str, Any]]:
    """What meta.json of the run says of each of its starts; nothing for a file outside a run."""
    folder = run_of(source)
    return [] if folder is None else read_starts(folder / META) or []


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit code."""
    return guarded(partial(command, parse(argv)))


def command(options: argparse.Namespace) -> int:
    """The same, with its errors."""
    file = export(options.run, options.out)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    print(as_called(f"play it: python eval.py --checkpoint {file}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
