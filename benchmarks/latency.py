"""Time from one observation to the agent's action: `python -m benchmarks.latency`.

The agent is that of an online run: encoder, a step of the RSSM, the choice between two policies.
Batch 1, synthetic images; no environment takes part.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from benchmarks.targets import Target, conclude
from benchmarks.update import IMAGE, SHAPES, make_agent, synchronize
from dreamer.agent import Agent
from dreamer.boundary import Parser, bounded
from dreamer.training.run_folder import provenance
from dreamer.utils import choose_device

WARM_UP = 20  # actions
MOST = {"full": 12}  # shape -> ms at the median, on one thread of a processor
WHOLE, REST = "whole action", "everything else"
PARTS = {  # place below the agent -> part
    "world_model.encoder.forward": "encoder",
    "world_model.rssm.obs_step": "RSSM step",
    "policy.act": "choice between two policies",
}


class Result(NamedTuple):
    """Measurements in one precision."""

    shape: str
    precision: str
    device: str
    threads: int
    milliseconds: dict[str, list[float]]  # part -> one number per action

    def median(self, part: str = WHOLE) -> float:
        """Median milliseconds of an action."""
        return statistics.median(self.milliseconds[part])

    def p95(self, part: str = WHOLE) -> float:
        """95th percentile of the milliseconds of an action."""
        return statistics.quantiles(self.milliseconds[part], n=20)[-1]


class Play:
    """An agent in an endless episode of noise."""

    def __init__(self, agent: Agent, cameras: int, device: torch.device) -> None:
        self.agent, self.device = agent, device
        self.obs = {
            f"camera{index}": torch.randint(
                0, 256, (1, IMAGE, IMAGE, 3), dtype=torch.uint8, device=device
            )
            for index in range(cameras)
        }
        self.state, self.first = agent.initial(1), torch.ones(1, device=device)

    def act(self) -> None:
        """One action, drawn as in training."""
        _, self.state, _ = self.agent.act(self.obs, self.first, self.state, explore=True)
        self.first = torch.zeros_like(self.first)

    def clock(self, actions: int) -> list[float]:
        """Milliseconds of each action."""
        seconds: list[float] = []
        act = timed(self.act, seconds, self.device)
        for _ in range(actions):
            act()
        return [1e3 * each for each in seconds]

    def clock_parts(self, actions: int) -> dict[str, list[float]]:
        """The same, part by part."""
        seconds: dict[str, list[float]] = defaultdict(list)
        with ExitStack() as stack:
            for place, part in PARTS.items():
                *path, name = place.split(".")
                owner: Any = self.agent
                for step in path:
                    owner = getattr(owner, step)
                wrapped = timed(getattr(owner, name), seconds[part], self.device)
                stack.enter_context(patch.object(owner, name, wrapped))
            whole = self.clock(actions)
        parts = {part: [1e3 * each for each in row] for part, row in seconds.items()}
        known = zip(*parts.values(), strict=True)
        return {**parts, REST: [all_ - sum(row) for all_, row in zip(whole, known, strict=True)]}


def timed(function: Callable, seconds: list[float], device: torch.device) -> Callable:
    """The function; each call adds its duration to `seconds`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        synchronize(device)
        begin = time.perf_counter()
        result = function(*args, **kwargs)
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
        return result

    return call


def measure(name: str, precision: str, device: torch.device, actions: int) -> Result:
    """Time whole actions alone first, then their parts."""
    shape = SHAPES[name]
    agent = make_agent("fosp", shape, precision, device, mode="online")
    play = Play(agent, shape.cameras, device)
    play.clock(WARM_UP)
    milliseconds = {WHOLE: play.clock(actions), **play.clock_parts(actions)}
    return Result(name, precision, str(device), torch.get_num_threads(), milliseconds)


def describe(result: Result) -> str:
    """The numbers of one result, in lines."""
    lines = [
        f"shape {result.shape}, {result.precision}, {result.device}, {result.threads} threads, "
        f"{len(result.milliseconds[WHOLE])} actions",
        "  | part | median ms | 95 % within ms |\n  |---|---|---|",
    ]
    lines += [
        f"  | {part} | {result.median(part):.2f} | {result.p95(part):.2f} |"
        for part in result.milliseconds
    ]
    return "\n".join(lines)


def targets(results: Sequence[Result]) -> list[Target]:
    """The bound of the median; it is for one thread of a processor."""
    return [
        Target(f"{each.shape} {each.precision}", each.median(), most=MOST[each.shape], unit="ms")
        for each in results
        if each.shape in MOST and each.threads == 1 and each.device == "cpu"
    ]


@bounded
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; returns the exit code, 1 if a target is missed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--precision", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--actions", type=int, default=200, help="that are timed")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    results = []
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    for precision in options.precision.split(","):
        results.append(measure(options.shape, precision, device, options.actions))
        print(describe(results[-1]), end="\n\n", flush=True)
    if options.json:
        rows = [each._asdict() for each in results]
        options.json.write_text(json.dumps({"results": rows, "provenance": provenance()}, indent=2))
    return conclude(targets(results))


if __name__ == "__main__":
    sys.exit(main())
