"""Time of one update and of its parts: `python -m benchmarks.update`.

The batch is synthetic, so no data, simulator or disk takes part. In the same run the machine's own
speed is measured, in products of 1024 x 1024 matrices, turn by turn with the updates. With `--peer`
so is an update of another program, and judged is how many times as fast ours is: seconds alone say
more of the processor than of the program.
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
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peer import Peer
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
from fosp_ext.config import METHODS, TrainConfig, choose_schema, read_by, resolve_config

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
TIMES_AS_FAST = 2.3  # as NM512/dreamerv3-torch in float32, on one thread


class Result(NamedTuple):
    """Measurements for one method, shape and precision."""

    method: str
    shape: str
    precision: str
    device: str
    threads: int
    compiled: bool
    seconds: list[float]  # of each update
    own_gflops: float  # of the machine, products in the precision of the update
    flop: float  # of one update, counted
    memory: float  # MiB at the most
    rows: int  # of a batch
    parts: list[PartTimes]
    peer: list[float]  # seconds of each update of the peer, of the same size; or none

    @property
    def median(self) -> float:
        """Seconds of an update."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the peer, turn by turn; None without a peer."""
        pairs = zip(self.peer, self.seconds, strict=True) if self.peer else ()
        return statistics.median([other / own for other, own in pairs]) if self.peer else None

    @property
    def efficiency(self) -> float:
        """Share of the machine's speed, in the same precision, that the update reaches."""
        return self.flop / 1e9 / self.median / self.own_gflops


def make_config(method: str, shape: Shape, precision: str, mode: str = "offline") -> TrainConfig:
    """The settings of the full size, with what `shape` changes."""
    presets = load_presets(Path(__file__).parents[1] / "configs.yaml")
    words = {"mode": mode, "method": method, "precision": precision}
    schema = choose_schema(presets, ["full"], words)
    config = resolve_config(presets, ["full"], words | read_by(schema, shape.settings))
    assert isinstance(config, TrainConfig), "it trains"
    return config


def make_agent(
    method: str, shape: Shape, precision: str, device: torch.device, mode: str = "offline"
) -> Agent:
    """A fresh agent of the full size, or what `shape` makes of it."""
    config = make_config(method, shape, precision, mode)
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
    speeds: dict[int, list[float]] = defaultdict(list)
    seconds: dict[int, list[float]] = defaultdict(list)
    peer_seconds: dict[int, list[float]] = defaultdict(list)
    parts = {}
    title = f"{method} {name} {precision}"
    total = (WARM_UP + options.updates + PROFILED) * len(options.threads) + 1
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(title, total, "updates", sys.stderr))
        peers = {}
        if options.peer is not None and method == "dreamerv3":
            for threads in options.threads:
                peers[threads] = stack.enter_context(Peer(options.peer, peer_shape(name), threads))
        with FlopCounterMode(display=False) as counter:
            agent.update(batch)
        if options.compile:
            compile_agent(agent, "on", device)  # not before: what is compiled cannot be counted
        progress.advance()
        for number, threads in product(range(WARM_UP + options.updates), options.threads):
            torch.set_num_threads(threads)
            speeds[threads].append(product_speed(agent.precision, device))
            begin = time.perf_counter()
            agent.update(batch)
            synchronize(device)
            took = time.perf_counter() - begin
            beside = peers[threads].update() if threads in peers else None
            if number >= WARM_UP:
                seconds[threads].append(took)
                if beside is not None:
                    peer_seconds[threads].append(beside)
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
            own_gflops=statistics.median(speeds[threads]),
            flop=counter.get_total_flops(),
            memory=peak_memory(device),
            rows=shape.batch_size * shape.batch_length,
            parts=parts[threads],
            peer=peer_seconds[threads],
        )
        for threads in options.threads
    ]


def peer_shape(name: str) -> dict[str, int]:
    """The sizes of a shape, as `Peer` wants them."""
    shape = SHAPES[name]
    model = make_config("dreamerv3", shape, "float32").world_model
    return {
        "cameras": shape.cameras,
        "B": shape.batch_size,
        "T": shape.batch_length,
        "deter": model.rssm.deter,
        "hidden": model.rssm.hidden,
        "stoch": model.rssm.stoch,
        "classes": model.rssm.classes,
        "units": model.heads.units,
        "depth": model.cnn_depth,
    }


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU, or of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def as_row(result: Result) -> dict[str, Any]:
    """One result as plain values, for JSON."""
    worked_out = {name: getattr(result, name) for name in ("median", "ratio", "efficiency")}
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
        f"  {result.flop / 1e9:.0f} GFLOP counted: {100 * result.efficiency:.0f} % of "
        f"{result.own_gflops:.0f} GFLOP/s in {result.precision} products",
        f"  {result.memory:.0f} MiB of memory at most",
        *peer_lines(result),
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


def peer_lines(result: Result) -> list[str]:
    """How the peer did, in a line, if there was one."""
    if result.ratio is None:
        return []
    return [
        f"  {statistics.median(result.peer):.3f} s per update of the peer in float32, "
        f"{result.ratio:.2f} times as long"
    ]


def targets(results: Sequence[Result]) -> list[Target]:
    """How many times as fast as the peer on one thread, and what a second one brings."""
    found, alone = [], {}
    for result in results:
        case = (result.method, result.shape, result.precision)
        label = " ".join(case)
        if result.device != "cpu":
            continue
        if result.threads == 1:
            alone[case] = result.median
            if result.ratio is not None:
                name = f"{label}, beside the peer"
                unit = "times as fast"
                found.append(Target(name, result.ratio, least=TIMES_AS_FAST, unit=unit))
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
    parser.add_argument(
        "--peer", type=Path, metavar="DIR", help="checkout of NM512/dreamerv3-torch, for dreamerv3"
    )
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
