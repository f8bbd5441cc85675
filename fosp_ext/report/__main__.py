"""Compare runs on one page: python -m fosp_ext.report RUN [RUN ...] --out DIR"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from dreamer.boundary import Parser, guarded, named_path
from dreamer.outputs import new_folder
from dreamer.signals import answers_signals
from fosp_ext.commands import as_called

EXAMPLE = """example:
  python -m fosp_ext.report logdir/SafetyPointGoal1-v0/*/seed* --out logdir/report --csv

Runs that differ only in the seed count as one group. Numbers are those of the newest evaluation
of each run (eval.py), or of the training where there is none. Exit codes: 0 done, 2 wrong
arguments or folders."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog=as_called("python -m fosp_ext.report"),
        description="Write one HTML page, and its figures as PNG, that compares runs.",
        epilog=as_called(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", type=named_path, nargs="+", metavar="RUN", help="run folder of train.py"
    )
    parser.add_argument(
        "--out", type=named_path, required=True, metavar="DIR",
        help="folder to write; if it exists DIR-2, DIR-3, ... is taken: nothing is overwritten",
    )  # fmt: skip
    parser.add_argument("--csv", action="store_true", help="write the tables as CSV too")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda or cuda:N, for the estimates of violation probability",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads for these estimates; 0 takes one"
    )
    options = parser.parse_args(argv)
    if options.threads < 0:
        parser.error("--threads must be at least 0")
    return options


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    return guarded(partial(command, parse(argv)))


def command(options: argparse.Namespace) -> int:
    """The same, with its errors."""
    from dreamer.utils import use_threads  # torch, not needed for --help
    from fosp_ext.report.compose import OWN, PAGE, write
    from fosp_ext.report.material import gather

    use_threads(options.threads or 1)
    with new_folder(options.out, OWN, PAGE) as folder:
        write(gather(options.runs, options.device, sys.stderr), folder, options.csv)
    print(f"page: {folder / PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
