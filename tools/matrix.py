"""The tests on every Python that is found: `make matrix`, or python tools/matrix.py.

Each gets a virtual environment in build/matrix/, set up as `make setup` does it, and runs the tests
there one after the other. At the end a table says how it went; the exit code is 1 where something
failed. Other versions of a library are tried with --with.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which
from typing import NamedTuple

from bootstrap import NEWEST, OLDEST, ROOT, python_of

PLACE = ROOT / "build" / "matrix"
SHOWN = ("torch", "numpy", "gymnasium", "mujoco")
VERSIONS = "from importlib.metadata import version as v; print(*map(v, {}))"


class Outcome(NamedTuple):
    """How it went on one Python."""

    python: str
    versions: list[str]  # of `SHOWN`; empty where the set-up failed
    tests: str  # the last line of pytest, or why there is none
    minutes: float
    passed: bool


def main(argv: list[str]) -> int:
    """Run everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", help="only these, as 3.10,3.12; default: all that are found")
    parser.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="PACKAGE",
        help="install this after the tested packages, as gymnasium==0.29.1; may be repeated",
    )  # fmt: skip
    parser.add_argument("--torch", default="", help="as TORCH of make setup")
    parser.add_argument("--tests", default="", help='for pytest, as "tests/dreamer -x"')
    options = parser.parse_args(argv)
    found = dict(pythons())
    wanted = options.pythons.split(",") if options.pythons else list(found)
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        have = ", ".join(found) or "none"
        sys.stderr.write(f"error: no Python {', '.join(missing)} here; there are {have}\n")
        return 2
    tests = shlex.split(options.tests)
    outcomes = [check(name, found[name], options.extra, options.torch, tests) for name in wanted]
    print("\n".join(table(outcomes)))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def pythons() -> Iterator[tuple[str, Path]]:
    """Every supported Python that runs here, as "3.12" and its program."""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        of_pyenv = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        of_path = [Path(program) for program in [which(name)] if program]
        for program in [*of_path, *of_pyenv]:
            if output([program, "-c", "print('here')"]) == "here":
                yield f"3.{minor}", program
                break


def check(
    name: str, program: Path, extra: Sequence[str], torch: str, tests: Sequence[str]
) -> Outcome:
    """Set up an environment for one Python and run the tests in it."""
    begin = time.monotonic()
    venv = PLACE / "-".join([name, *(re.sub(r"[^\w.=-]", "_", package) for package in extra)])
    set_up = [program, ROOT / "tools" / "bootstrap.py", "--venv", venv, f"--torch={torch}"]
    print(f"\n== Python {name} in {venv}", flush=True)
    python = python_of(venv)
    commands = [set_up, *([[python, "-m", "pip", "install", "-q", *extra]] if extra else [])]
    for command in commands:
        if subprocess.run(command, cwd=ROOT).returncode:
            failed = shlex.join(map(str, command))
            return Outcome(name, [], f"failed: {failed}", minutes_since(begin), False)
    run = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(run, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    (*_, last) = done.stdout.strip().splitlines() or ["nothing was printed"]
    versions = output([python, "-c", VERSIONS.format(SHOWN)]).split()
    return Outcome(name, versions, last, minutes_since(begin), done.returncode == 0)


def output(command: Sequence[str | Path]) -> str:
    """What a command prints; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def minutes_since(begin: float) -> float:
    """Minutes since that reading of the clock."""
    return (time.monotonic() - begin) / 60


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """One row per Python, as Markdown."""
    head = ["Python", *SHOWN, "tests", "minutes"]
    rows = [
        [each.python, *(each.versions or ["-"] * len(SHOWN)), each.tests, f"{each.minutes:.1f}"]
        for each in outcomes
    ]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
