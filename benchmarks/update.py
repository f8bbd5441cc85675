"""Time of one update and of its parts: `python -m benchmarks.update`.

The batch is synthetic, so no data, simulator or disk takes part. In the same run the machine's own
speed is measured, in products of 1024 x 1024 float32 matrices, turn by turn with the updates; the
cost of an update is its seconds times that speed, in GFLOP, which depends little on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.targets import Target, conclude
from benchmarks.update_parts import PartTimes, measured_parts
from dreamer.agent import Agent
from dreamer.boundary import Parser, bounded
from dreamer.build import compile_agent
from dreamer.config import load_presets
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.types import Batch
from dreamer.utils import choose_device, keep_freed_memory, seed_everything
from fosp_ext.build import build_agent
from fosp_ext.config import METHODS, choose_schema, read_by, resolve_config

PRODUCT = 1024  # rows and columns of the matrices
PRODUCT_FLOP = 2 * PRODUCT**3
PRODUCTS = 4  # between two updates
WARM_UP, PROFILED = 2, 3  # updates
ACTION_SIZE, IMAGE = 2, 64


class Shape(NamedTuple):
    """Sizes of an agent and of its batch."""

    cameras: int
    batch_size: int
    batch_length: int
    settings: dict[str, str]  # what differs from the full size


SHAPES = {
    "tiny": Shape(
        1,
        16,
        32,
        {
            "world_model.rssm.deter": "256",
            "world_model.rssm.hidden": "256",
            "world_model.rssm.stoch": "32",
            "world_model.rssm.classes": "16",
            "world_model.cnn_depth": "16",
            **{
                f"{part}.units": "256"
                for part in (
                    "world_model.heads",
                    "actor.net",
                    "critic.net",
                    "cost_critic.net",
                    "reachability.net",
                )
            },
        },
    ),
    "full": Shape(2, 16, 64, {}),
}
MOST = {  # method, shape, precision -> normalised cost on one thread, GFLOP
    ("dreamerv3", "tiny", "float32"): 200,
    ("dreamerv3", "tiny", "bfloat16"): 150,
    ("dreamerv3", "full", "float32"): 2900,
    ("dreamerv3", "full", "bfloat16"): 2000,
    ("fosp", "tiny", "float32"): 330,
    ("fosp", "tiny", "bfloat16"): 250,
    ("fosp", "full", "float32"): 5500,
    ("fosp", "full", "bfloat16"): 4000,
}


class Result(NamedTuple):
    """Measurements for one method, shape and precision."""

    method: str
    shape: str
    precision: str
    device: str
    threads: int
    compiled: bool
    seconds: list[float]  # of each update
    gflops: float  # of the machine, float32 products
    own_gflops: float  # the same in the precision of the update
    flop: float  # of one update, counted
    memory: float  # MiB at the most
    rows: int  # of a batch
    parts: list[PartTimes]

    @property
    def median(self) -> float:
        """Seconds of an update."""
        return statistics.median(self.seconds)

    @property
    def cost(self) -> float:
        """Seconds by the machine's speed: GFLOP that it could have done meanwhile."""
        return self.median * self.gflops

    @property
    def efficiency(self) -> float:
        """Share of the machine's speed, in the same precision, that the update reaches."""
        return self.flop / 1e9 / self.median / self.own_gflops


def make_agent(
    method: str, shape: Shape, precision: str, device: torch.device, mode: str = "offline"
) -> Agent:
    """A fresh agent of the full size, or what `shape` makes of it."""
    presets = load_presets(Path(__file__).parents[1] / "configs.yaml")
    words = {"mode": mode, "method": method, "precision": precision}
    schema = choose_schema(presets, ["full"], words)
    config = resolve_config(presets, ["full"], words | read_by(schema, shape.settings))
    cameras = tuple(f"camera{index}" for index in range(shape.cameras))
    info = DatasetInfo("synthetic", cameras, 1, IMAGE, ACTION_SIZE)
    seed_everything(0)
    return build_agent(config, info, device)


def make_batch(shape: Shape, device: torch.device) -> Batch:
    """Noise with costs in a tenth of the rows, (B, T, ...)."""
    B, T = shape.batch_size, shape.batch_length
    first = torch.zeros(B, T)
    first[:, 0] = 1
    images = {
        f"camera{index}": torch.randint(0, 256, (B, T, IMAGE, IMAGE, 3), dtype=torch.uint8)
        for index in range(shape.cameras)
    }
    return Batch(
        obs=images,
        action=torch.rand(B, T, ACTION_SIZE) * 2 - 1,
        reward=torch.randn(B, T),
        cost=(torch.rand(B, T) < 0.1).float(),
        is_first=first,
        is_last=torch.zeros(B, T),
        is_terminal=torch.zeros(B, T),
    ).to(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_speed(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP per second of matrix products."""
    a = torch.randn(PRODUCT, PRODUCT, device=device).to(dtype)
    b = torch.randn(PRODUCT, PRODUCT, device=device).to(dtype)
    a @ b
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(PRODUCTS):
        a @ b
    synchronize(device)
    return PRODUCTS * PRODUCT_FLOP / 1e9 / (time.perf_counter() - begin)


def measure(method: str, name: str, precision: str, options: argparse.Namespace) -> list[Result]:
    """Updates and products with each number of threads, all in turns; then the parts."""
    device, shape = choose_device(options.device), SHAPES[name]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    agent, batch = make_agent(method, shape, precision, device), make_batch(shape, device)
    speeds: dict[tuple[int, torch.dtype], list[float]] = defaultdict(list)
    seconds: dict[int, list[float]] = defaultdict(list)
    parts = {}
    title = f"{method} {name} {precision}"
    total = (WARM_UP + options.updates + PROFILED) * len(options.threads) + 1
    with Progress(title, total, "updates", sys.stderr) as progress:
        with FlopCounterMode(display=False) as counter:
            agent.update(batch)
        if options.compile:
            compile_agent(agent, "on", device)  # not before: what is compiled cannot be counted
        progress.advance()
        for number, threads in product(range(WARM_UP + options.updates), options.threads):
            torch.set_num_threads(threads)
            for dtype in {torch.float32, agent.precision}:
                speeds[threads, dtype].append(product_speed(dtype, device))
            begin = time.perf_counter()
            agent.update(batch)
            synchronize(device)
            if number >= WARM_UP:
                seconds[threads].append(time.perf_counter() - begin)
            progress.advance()
        for threads in options.threads:
            torch.set_num_threads(threads)
            parts[threads] = measured_parts(agent, batch, PROFILED, lambda: synchronize(device))
            progress.advance(PROFILED)
    return [
        Result(
            method=method,
            shape=name,
            precision=precision,
            device=str(device),
            threads=threads,
            compiled=options.compile,
            seconds=seconds[threads],
            gflops=statistics.median(speeds[threads, torch.float32]),
            own_gflops=statistics.median(speeds[threads, agent.precision]),
            flop=counter.get_total_flops(),
            memory=peak_memory(device),
            rows=shape.batch_size * shape.batch_length,
            parts=parts[threads],
        )
        for threads in options.threads
    ]


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU, or of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def as_row(result: Result) -> dict[str, Any]:
    """One result as plain values, for JSON."""
    worked_out = {name: getattr(result, name) for name in ("median", "cost", "efficiency")}
    parts = [part._asdict() for part in result.parts]
    return {**result._asdict(), **worked_out, "parts": parts}


def describe(result: Result) -> str:
    """The numbers of one result, in lines."""
    low, high = min(result.seconds), max(result.seconds)
    lines = [
        f"{result.method}, shape {result.shape}, {result.precision}, {result.device}, "
        f"{result.threads} threads{', compiled' if result.compiled else ''}",
        f"  {result.median:.3f} s per update ({low:.3f} to {high:.3f}, {len(result.seconds)} "
        f"updates), {result.rows / result.median:.0f} rows per second",
        f"  {result.gflops:.0f} GFLOP/s in float32 products, so {result.cost:.0f} GFLOP an update",
        f"  {result.flop / 1e9:.0f} GFLOP counted: {100 * result.efficiency:.0f} % of "
        f"{result.own_gflops:.0f} GFLOP/s in {result.precision} products",
        f"  {result.memory:.0f} MiB of memory at most",
        "",
        "  | part | forward ms | backward ms | share |\n  |---|---|---|---|",
    ]
    whole = sum(part.forward + part.backward for part in result.parts)
    for part in result.parts:
        share = (part.forward + part.backward) / whole
        lines.append(
            f"  | {part.name} | {1e3 * part.forward:.0f} | {1e3 * part.backward:.0f} "
            f"| {100 * share:.0f} % |"
        )
    return "\n".join(lines)


def targets(results: Sequence[Result]) -> list[Target]:
    """Bounds of the normalised cost of one thread of a processor, and what a second one brings."""
    found, alone = [], {}
    for result in results:
        case = (result.method, result.shape, result.precision)
        label = " ".join(case)
        if result.device != "cpu":
            continue
        if result.threads == 1:
            alone[case] = result.median
            if case in MOST:
                found.append(Target(label, result.cost, most=MOST[case], unit="GFLOP an update"))
        if result.threads == 2 and case in alone:
            ratio = alone[case] / result.median
            found.append(Target(f"{label}, two threads", ratio, least=1.5, unit="times as fast"))
    return found


def thread_counts(text: str) -> list[int]:
    """Numbers such as `1,2`, each once and in order."""
    counts = sorted({int(word) for word in text.split(",")})
    if counts[0] < 1:
        raise ValueError
    return counts


@bounded
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; returns the exit code, 1 if a target is missed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="fosp,dreamerv3", help="methods, comma-separated")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=thread_counts, default=[1], help="1,2 compares")
    parser.add_argument("--compile", action="store_true", help="the repeated steps of the RSSM")
    parser.add_argument("--updates", type=int, default=7, help="that are timed")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    methods, precisions = options.preset.split(","), options.precision.split(",")
    results = []
    for name in methods:
        if name not in METHODS:
            raise UserError(f"no method '{name}'; there are {', '.join(METHODS)}")
    keep_freed_memory()  # as train.py does
    torch.set_num_threads(options.threads[0])
    for method in methods:
        for precision in precisions:
            for result in measure(method, options.shape, precision, options):
                results.append(result)
                print(describe(result), end="\n\n", flush=True)
    if options.json:
        rows = [as_row(result) for result in results]
        options.json.write_text(json.dumps({"results": rows, "provenance": provenance()}, indent=2))
    return conclude(targets(results))


if __name__ == "__main__":
    sys.exit(main())
