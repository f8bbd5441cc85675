"""Start-up times of train.py: `python -m benchmarks.startup --dataset FILE`.

The time of `train.py --help`, and the time from the start of a training to the end of its
first update. Each start is a process of its own, in a new run folder; the dataset was read just
before, so it lies in the system's page cache.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.targets import Target, conclude
from dreamer.boundary import Parser, bounded
from dreamer.errors import UserError
from dreamer.training.run_folder import provenance

TRAIN = Path(__file__).parents[1] / "train.py"
HELP, FIRST = "train.py --help", "start to first update"
MOST = {HELP: 1.5, FIRST: 15}  # seconds


def help_seconds() -> float:
    """Seconds of `train.py --help`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(TRAIN), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def first_update_seconds(dataset: Path, presets: Sequence[str]) -> float:
    """Seconds until a new run has one update behind it; it is stopped there."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--configs", *presets, "--dataset.path", str(dataset), "--logdir", f"{folder}/run"]
        begin = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, str(TRAIN), *words, "--run.log_every", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            last = ""
            for line in process.stdout:
                if line.startswith("update 1/"):
                    seconds = time.perf_counter() - begin
                    process.terminate()
                    process.communicate()
                    return seconds
                last = line
    raise UserError(f"train.py ended before its first update: {last.strip()}")


@bounded
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; returns the exit code, 1 if a target is missed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="HDF5 file to train on")
    parser.add_argument(
        "--configs", nargs="+", default=["fosp_offline", "cpu", "quick"], help="presets"
    )
    parser.add_argument("--helps", type=int, default=5, help="times that --help is asked")
    parser.add_argument("--starts", type=int, default=3, help="trainings that are started")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    if not options.dataset.is_file():
        raise UserError(f"no dataset {options.dataset}; `train.py --configs collect` records")
    options.dataset.read_bytes()  # into the page cache
    seconds = {
        HELP: [help_seconds() for _ in range(options.helps)],
        FIRST: [
            first_update_seconds(options.dataset.resolve(), options.configs)
            for _ in range(options.starts)
        ],
    }
    for name, row in seconds.items():
        low, high = min(row), max(row)
        print(f"{name}: {statistics.median(row):.2f} s ({low:.2f} to {high:.2f}, {len(row)} times)")
    if options.json:
        found = {"seconds": seconds, "provenance": provenance()}
        options.json.write_text(json.dumps(found, indent=2))
    return conclude(
        [Target(name, statistics.median(seconds[name]), most=MOST[name], unit="s") for name in MOST]
    )


if __name__ == "__main__":
    sys.exit(main())
