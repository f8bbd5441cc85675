"""Agent steps per second of SafeReach: `python -m benchmarks.reach`.

Episodes of the scripted policy `safe` on one core, resets and the images of both cameras included.
CPU seconds are counted beside those of the clock: they say what an idle machine would take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.targets import Target, conclude
from dreamer.errors import UserError, tell_error
from dreamer.training.run_folder import provenance
from fosp_ext.envs import REACH, check_variant, make_env
from fosp_ext.envs.scripted import make_scripted_policy

VARIANTS = ("none", "more_obstacles")
LEAST = 280  # agent steps per CPU second, of the task itself


class Seconds(NamedTuple):
    """A span of time."""

    clock: float
    cpu: float  # of this process

    @classmethod
    def now(cls) -> Seconds:
        """Both at this moment."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Seconds) -> Seconds:
        """The span between two moments."""
        return Seconds(self.clock - before.clock, self.cpu - before.cpu)


class Result(NamedTuple):
    """Measurements in one variant, sums over the episodes."""

    variant: str
    episodes: int
    steps: int  # agent steps
    resets: Seconds
    all: Seconds  # resets, images and steps, without the policy

    def row(self) -> str:
        """A line of the table."""
        reset = 1e3 * self.resets.cpu / self.episodes
        numbers = (f"{self.steps / self.all.cpu:.0f}", f"{self.steps / self.all.clock:.0f}")
        return f"| {self.variant} | {' | '.join(numbers)} | {reset:.1f} | {self.steps} |"


def measure(variant: str, episodes: int) -> Result:
    """Play so many episodes, after one that makes everything ready."""
    env = make_env(REACH, variant=variant)
    policy = make_scripted_policy("safe", REACH, np.random.default_rng(0))
    steps, resets, total = 0, np.zeros(2), np.zeros(2)
    for seed in range(-1, episodes):
        policy.reset()
        begin = Seconds.now()
        env.reset(seed=max(seed, 0))
        spent = [Seconds.now().since(begin)]
        over = False
        while not over:
            action = policy.act(env.privileged())
            begin = Seconds.now()
            _, _, terminated, truncated, _ = env.step(action)
            spent.append(Seconds.now().since(begin))
            over = terminated or truncated
        if seed >= 0:
            steps += len(spent) - 1
            resets += spent[0]
            total += np.sum(spent, axis=0)
    env.close()
    return Result(variant, episodes, steps, Seconds(*resets.tolist()), Seconds(*total.tolist()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the target; returns the exit code, 1 if it is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=40, help="per variant")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated names")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.episodes < 1:
        parser.error("--episodes must be at least 1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        variants = [check_variant(name, REACH).name for name in options.variants.split(",")]
        print(
            "| variant | agent steps per CPU second | per second | reset, ms | steps |\n"
            + "|---" * 5
            + "|"
        )
        results = []
        for variant in variants:
            results.append(measure(variant, options.episodes))
            print(results[-1].row(), flush=True)
    except UserError as error:
        return tell_error(error)
    if options.json:
        found = {"results": [result._asdict() for result in results], "provenance": provenance()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    first = results[0]
    name = f"{REACH} ({first.variant}), two cameras"
    return conclude([Target(name, first.steps / first.all.cpu, least=LEAST, unit="steps/s")])


if __name__ == "__main__":
    sys.exit(main())
