"""Compare methods from scratch, on the same data and budget: `python -m experiments.comparison`.

A dataset is recorded, or one is taken. Every method is trained offline on it with the same number
of updates, evaluated, and fine-tuned online in a variant that no data show, for the same number of
agent steps; then it is evaluated again, on the same seeds. The results are the report of
`fosp_ext.report`, two tables and one JSON file with every number. World-model pretraining
(`run.pretrain`) is done once for each seed and shared by all methods but dreamerv3, whose world
model has no cost decoder.

How many updates and agent steps that are follows from `--budget-minutes`: a few updates of every
method and an episode are timed first, and the plan is printed before anything begins. It is kept in
`OUT/plan.json`, so the same command goes on where it was stopped, with the same numbers; methods
and seeds can be added to it. Each job is a command of `train.py`, `eval.py`,
`experiments.diagnose` (for offline runs of fosp) or `fosp_ext.report`; its output is kept in
`OUT/logs`.

Jobs that do not depend on each other can run at the same time (`--jobs`): the dataset comes before
everything, the report after everything, and each run's evaluations before its online run. One at a
time, each command and its output are shown; otherwise a line when a job begins and one when it
ends. The number of parallel jobs decides how much is planned, and nothing else: where --updates and
--online-steps are given, --jobs 1 --threads T gives the same numbers as several jobs of T threads.
A kept plan stays as it is under another --jobs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dreamer.boundary import Parser, guarded
from fosp_ext.config import RECIPES, SIZES

EPILOG = """methods: fosp, safedreamer, dreamerv3, bc, fosp_release, fosp_theory, and fosp without
parts: fosp-no_policy_set, fosp-no_reachability, fosp-no_in_sample, fosp-no_lagrangian. What the
offline phase does not read shares the offline run of fosp.

examples:
  python -m experiments.comparison --budget-minutes 10 --seeds 1 --methods fosp,bc
  python -m experiments.comparison --budget-minutes 600 --seeds 2 --json goal1.json
  python -m experiments.comparison --budget-minutes 60 --online-steps 0 --variant none \\
      --set lagrange.penalty=1e-8 --out logdir/comparison/slow-penalty     offline phases only

Ctrl-C and SIGTERM reach every running job; trainings save a checkpoint, and the same command
goes on. Where a job fails, the others are stopped in the same way, and nothing more begins.

Exit codes: 0 done, 2 wrong arguments, 130 and 143 stopped by Ctrl-C and SIGTERM; else that of the
job that failed. With too little time there are fewer recorded and evaluated episodes than usual;
the plan says how many."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="python -m experiments.comparison",
        description=__doc__.partition("\n\n")[2].rstrip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--task", default="SafetyPointGoal1-v0", help="default %(default)s")
    add(
        "--variant", default="clustered",
        help="of the online phase; none: the task as it is; default %(default)s",
    )  # fmt: skip
    add("--methods", default="fosp,safedreamer,dreamerv3,bc", help="default %(default)s")
    add("--seeds", type=int, default=1, metavar="K", help="seeds 0 to K-1; default %(default)s")
    add(
        "--budget-minutes", type=float, required=True, metavar="M",
        help="for all of it on this machine, recording and evaluations included",
    )  # fmt: skip
    add("--size", choices=SIZES, help="size preset, by default full on a GPU, else cpu")
    add("--recipe", choices=RECIPES, help="recipe preset, by default paper on a GPU, else quick")
    add("--dataset", type=Path, metavar="FILE", help="take this one, do not record")
    add("--episodes", type=int, metavar="N", help="to record; by default up to 200")
    add("--eval-episodes", type=int, metavar="N", help="per evaluation; by default up to 20")
    add("--updates", type=int, metavar="N", help="of each offline run, whatever time they take")
    add(
        "--online-steps", type=int, metavar="N",
        help="agent steps of each online run, likewise; 0: no online runs",
    )  # fmt: skip
    add(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
        help="setting of train.py for every training, and for the recording; repeatable",
    )  # fmt: skip
    add(
        "--jobs", type=int, metavar="N",
        help="jobs at the same time; default 1 on a GPU, else one per core if there is enough "
        "to do (each training holds the dataset in memory)",
    )  # fmt: skip
    add(
        "--threads", type=int, metavar="N",
        help="CPU threads of each training and evaluation; default: the cores divided by the jobs",
    )  # fmt: skip
    add(
        "--out", type=Path, metavar="DIR", help="default logdir/comparison/TASK-SIZE-RECIPE-VARIANT"
    )
    add("--json", type=Path, metavar="FILE", help="for the numbers; default OUT/results.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    return guarded(partial(command, parse(words), words), "stopped; the same command continues")


def command(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The same, with its errors."""
    from experiments.comparison.compare import compare  # torch, not needed for --help

    return compare(options, words)


if __name__ == "__main__":
    sys.exit(main())
