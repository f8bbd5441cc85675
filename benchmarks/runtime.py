"""Latency of an exported policy without PyTorch: `python -m benchmarks.runtime agent.onnx`.

One call of `Policy.act` per step, on random images, with one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.targets import Target, conclude
from dreamer.errors import UserError, tell_error
from fosp_ext.runtime import Policy

WARM_UP = 20  # steps before those that count
MOST = 10.0  # ms at the 99th percentile: a tenth of a period at 10 Hz


def latencies(policy: Policy, steps: int) -> np.ndarray:
    """Milliseconds of so many steps of one episode, (steps,)."""
    rng, facts = np.random.default_rng(0), policy.facts
    shape = (facts.size, facts.size, 3)
    policy.reset()
    found = []
    for _ in range(WARM_UP + steps):
        images = {name: rng.integers(0, 256, shape, np.uint8) for name in facts.cameras}
        found.append(policy.act(images).latency_ms)
    return np.array(found[WARM_UP:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; returns the exit code, 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="of fosp_ext.export, .onnx")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    try:
        policy = Policy.load(options.file)
    except UserError as error:
        return tell_error(error)
    milliseconds = latencies(policy, options.steps)
    median, late = np.quantile(milliseconds, [0.5, 0.99])
    megabytes = options.file.stat().st_size / 1e6
    print(f"{options.file}: {policy.facts.task}, {megabytes:.1f} MB")
    print(f"{median:.2f} ms at the median, {late:.2f} ms at the 99th percentile")
    return conclude([Target("99th percentile", float(late), most=MOST, unit="ms")])


if __name__ == "__main__":
    sys.exit(main())
