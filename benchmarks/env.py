"""Agent steps per second, resets and memory of the environments: `python -m benchmarks.env`.

An agent step is an action repeated four times and an image from each of two cameras. Four sides
take turns: the official environment with two calls of `task.render` (both of its front camera, for
it has no back camera), the same without the lidar markers that it draws by default, ours with
pixel-exact images, and ours with fast ones. A ratio is the median over rounds of upstream's time
by ours, with the time of a reset shared among the 250 agent steps of an episode. The comparison of
processes and the growth of memory are measured on the fast side.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.env_sides import BARE, EXACT, FAST, UPSTREAM, Side
from benchmarks.targets import Target, conclude
from dreamer.boundary import Parser, bounded
from dreamer.errors import UserError
from dreamer.training.progress import Progress
from fosp_ext.envs import check_task, is_custom
from fosp_ext.envs.gl import choose_backend

TASKS = (
    "SafetyPointGoal1-v0",
    "SafetyPointGoal2-v0",
    "SafetyPointButton1-v0",
    "SafetyPointPush1-v0",
    "SafetyCarGoal2-v0",
)
SIDES = (UPSTREAM, BARE, EXACT, FAST)
EPISODE = 250  # agent steps
BLOCK = 40  # agent steps that a side plays before it is the next one's turn
TURNS = 6  # of one process alone and several together
ALONE_SECONDS = 1.0  # what a process plays in one round of the comparison of one with several
LEAST_EXACT, LEAST_FAST = 2.0, 5.0  # times upstream
LEAST_FAST_LIGHT = 9.0  # on the tasks with little physics
LIGHT = ("SafetyPointGoal1-v0", "SafetyPointButton1-v0", "SafetyPointPush1-v0")
LEAST_SCALING = 1.7  # of two processes, by one
MOST_RESET, MOST_MEMORY, MOST_GROWTH = 30.0, 350.0, 10.0  # ms, MB, MB
PACE_HEADER = (
    "| task | agent steps/s: upstream | no markers | exact | fast "
    "| by upstream: exact | fast | by no markers: exact | fast | processes |\n" + "|---" * 10 + "|"
)
COST_HEADER = (
    "\n| task | reset ms: upstream | no markers | exact | fast "
    "| peak MB: upstream | no markers | exact | fast | growth MB |\n" + "|---" * 10 + "|"
)


class Pace(NamedTuple):
    """Seconds of one side in one round."""

    reset: float
    step: float

    @property
    def per_step(self) -> float:
        """Seconds per agent step, with its share of a reset."""
        return self.step + self.reset / EPISODE


class Result(NamedTuple):
    """Measurements on one task; dictionaries by side."""

    task: str
    paces: dict[str, list[Pace]]  # one per round
    scaling: float  # agent steps per second of several processes by those of one
    peak: dict[str, float]  # MB
    growth: float  # MB

    def rate(self, side: str) -> float:
        """Agent steps per second, resets included."""
        return 1 / statistics.median(pace.per_step for pace in self.paces[side])

    def ratio(self, side: str, reference: str = UPSTREAM) -> float:
        """Speed relative to another side in the same round, median over rounds."""
        pairs = zip(self.paces[reference], self.paces[side], strict=True)
        return statistics.median(theirs.per_step / ours.per_step for theirs, ours in pairs)

    def reset_ms(self, side: str) -> float:
        """Median time of a reset, with the first images."""
        return 1e3 * statistics.median(pace.reset for pace in self.paces[side])


def measure(task: str, rounds: int, resets: int, workers: int, progress: Progress) -> Result:
    """Everything about one task."""
    sides = {side: Side(task, side) for side in SIDES}
    paces: dict[str, list[Pace]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for name, side in sides.items():
            reset = side.get("reset", number)
            paces[name].append(Pace(reset, side.get("play", BLOCK) / BLOCK))
        progress.advance()
    peak = {name: side.get("peak") for name, side in sides.items()}
    for name in (UPSTREAM, BARE, EXACT):
        sides[name].close()
    step = statistics.median(pace.step for pace in paces[FAST])
    scaling = compare_workers(task, sides[FAST], workers, max(1, round(ALONE_SECONDS / step)))
    progress.advance()
    growth = sides[FAST].get("growth", resets)
    sides[FAST].close()
    progress.advance()
    return Result(task, paces, scaling, peak, growth)


def compare_workers(task: str, first: Side, workers: int, block: int) -> float:
    """Agent steps per second of `workers` processes that start together, by those of `first`."""
    everyone = [first, *(Side(task, FAST) for _ in range(workers - 1))]
    for side in everyone:
        side.get("reset", 1)
    gains = []
    for _ in range(TURNS):
        alone = clock(everyone[:1], block)
        gains.append(workers * alone / clock(everyone, block))
    for side in everyone[1:]:
        side.close()
    return statistics.median(gains)


def clock(sides: Sequence[Side], block: int) -> float:
    """Seconds until each of them has played a block, all at the same time."""
    started = time.perf_counter()
    for side in sides:
        side.ask("play", block)
    for side in sides:
        side.answer()
    return time.perf_counter() - started


def pace_row(result: Result) -> str:
    """Speed and ratios of one task."""
    cells = [result.task]
    cells += [f"{result.rate(side):.0f}" for side in SIDES]
    for reference in (UPSTREAM, BARE):
        cells += [f"{result.ratio(side, reference):.1f}" for side in (EXACT, FAST)]
    return "| " + " | ".join([*cells, f"{result.scaling:.2f}"]) + " |"


def cost_row(result: Result) -> str:
    """Resets and memory of one task."""
    cells = [result.task]
    cells += [f"{result.reset_ms(side):.0f}" for side in SIDES]
    cells += [f"{result.peak[side]:.0f}" for side in SIDES]
    return "| " + " | ".join([*cells, f"{result.growth:.1f}"]) + " |"


def targets(results: Sequence[Result], workers: int) -> list[Target]:
    """The targets of the numbers."""
    wanted = []
    for result in results:
        least = LEAST_FAST_LIGHT if result.task in LIGHT else LEAST_FAST
        wanted += [
            Target(f"{result.task} exact by upstream", result.ratio(EXACT), least=LEAST_EXACT),
            Target(f"{result.task} fast by upstream", result.ratio(FAST), least=least),
        ]
        if "Goal" in result.task:
            name = f"{result.task} reset"
            wanted.append(Target(name, result.reset_ms(FAST), most=MOST_RESET, unit="ms"))
        wanted += [
            Target(f"{result.task} peak memory", result.peak[FAST], most=MOST_MEMORY, unit="MB"),
            Target(f"{result.task} growth", result.growth, most=MOST_GROWTH, unit="MB"),
        ]
    scaling = statistics.median(result.scaling for result in results)
    if workers == 2:
        wanted.append(Target("two processes by one, median task", scaling, least=LEAST_SCALING))
    return wanted


def describe(results: Sequence[Result]) -> list[dict[str, object]]:
    """The numbers for a JSON file."""
    return [
        {
            "task": result.task,
            "steps_per_second": {side: result.rate(side) for side in SIDES},
            "ratio": {side: result.ratio(side) for side in (EXACT, FAST)},
            "ratio_no_markers": {side: result.ratio(side, BARE) for side in (EXACT, FAST)},
            "reset_ms": {side: result.reset_ms(side) for side in SIDES},
            "several_by_one": result.scaling,
            "peak_mb": result.peak,
            "growth_mb": result.growth,
        }
        for result in results
    ]


@bounded
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and the targets; returns the exit code, 1 if a target is missed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated task ids")
    parser.add_argument("--steps", type=int, default=320, help="agent steps per side and task")
    parser.add_argument("--resets", type=int, default=500, help="over which memory may not grow")
    parser.add_argument("--workers", type=int, default=2, help="processes to compare with one")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    tasks = [check_task(task) for task in options.tasks.split(",")]
    if any(is_custom(task) for task in tasks):
        raise UserError("environments of your own have no official side to compare with")
    backend = choose_backend()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes started from here
    print(f"MUJOCO_GL={backend}; images 64x64 from two cameras, action repeat 4")
    print("upstream: Safety-Gymnasium's own step and twice `task.render` of its front camera,")
    print("with the markers of its lidar, which it draws by default, or without (no markers)")
    print(PACE_HEADER, flush=True)
    results, rounds = [], max(1, round(options.steps / BLOCK))
    with Progress("env", len(tasks) * (rounds + 2), "rounds", sys.stderr) as progress:
        for task in tasks:
            results.append(measure(task, rounds, options.resets, options.workers, progress))
            print(pace_row(results[-1]), flush=True)
    print("\n".join([COST_HEADER, *map(cost_row, results)]))
    wanted = targets(results, options.workers)
    if options.json:
        options.json.write_text(json.dumps(describe(results), indent=2) + "\n")
    return conclude(wanted)


if __name__ == "__main__":
    sys.exit(main())
