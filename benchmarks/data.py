"""Speed of reading training data, and how long training waits: `python -m benchmarks.data`.

Random windows of 64 rows, in batches of 16, are read by one thread from memory and from disk; then
an agent learns from batches of its own size while the background thread prepares them. The file was
read just before, so it lies in the system's page cache: what "disk" measures is decoding. HDF5's
own cache of decoded chunks is off, so no chunk is decoded once and counted twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.targets import Target, conclude
from dreamer.agent import Agent
from dreamer.boundary import Parser, bounded
from dreamer.config import load_presets
from dreamer.data.augment import augmentation
from dreamer.data.memory import plan_memory
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.types import Batch
from dreamer.utils import choose_device, seed_everything
from fosp_ext.build import build_agent
from fosp_ext.config import OfflineConfig, resolve_config
from fosp_ext.run.data import collect_settings, record_dataset, require_dataset, run_dataset

B, T = 16, 64
MEMORY, DISK, AGAIN = "memory", "disk", "one batch again and again"
LEAST = {MEMORY: 150_000, DISK: 10_000}  # images per second
LONGEST_WAIT = 3  # per cent of the time of an update
GROWTH = 12  # batches' worth of memory that streaming may take, however large the file
ROUNDS = 5  # the sides take turns, so that a busy moment of the machine hits all of them
WARM_UP = 3  # batches or updates that are not counted


class Read(NamedTuple):
    """Images per second of one way to get batches."""

    side: str
    per_second: float  # of the clock
    per_cpu_second: float  # of this process: does not suffer from a busy machine


class Learnt(NamedTuple):
    """Time of an update with one source of batches."""

    side: str
    seconds: float  # per update, waiting included
    waiting: float  # per cent of them


class Started(NamedTuple):
    """Time and memory of opening a dataset in memory."""

    seconds: float
    per_second: float  # images
    projected: float  # MiB
    taken: float  # MiB


@bounded
def main(argv: list[str]) -> int:
    """Measure, print the tables and the targets; returns the exit code, 1 if a target is missed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="HDF5 file; without it 12 episodes are recorded and used")
    parser.add_argument("--size", default="cpu", help="preset of the agent that learns")
    parser.add_argument("--device", default="cpu", help="where it learns")
    parser.add_argument("--threads", type=int, default=0, help="of learning; 0 takes every core")
    parser.add_argument("--seconds", type=float, default=5, help="per side of the reading")
    parser.add_argument("--updates", type=int, default=50, help="per side of the learning")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = options.dataset or f"{folder}/dataset.h5"
        config = settings(options, path)
        if not options.dataset:
            recording = collect_settings(config.task, config.env, config.dataset, config.seed)
            record_dataset(run_dataset(config), recording)
        return measure(config, options)


def settings(options: argparse.Namespace, path: str) -> OfflineConfig:
    """The configuration of the agent that learns, on the dataset `path`."""
    presets = load_presets(Path(__file__).parents[1] / "configs.yaml")
    words = {"dataset.path": path, "dataset.episodes": "12", "device": options.device}
    config = resolve_config(presets, ["fosp_offline", options.size, "quick"], words)
    assert isinstance(config, OfflineConfig)  # as the preset says
    return config


def measure(config: OfflineConfig, options: argparse.Namespace) -> int:
    """Everything, in order; returns the exit code."""
    path = run_dataset(config)
    info = require_dataset(path, config.task, config.env)
    path.read_bytes()  # into the page cache
    torch.set_num_threads(1)
    disk = RowStore.open(path, "disk", holdout=0)[0]
    growth = memory_growth(WindowStream(disk, B, T, 0), options.seconds)
    memory, started = start(path)
    streams = make_streams(memory, disk, B, T)
    reads = read_all(streams, options.seconds)
    print_reads(path, started, reads)

    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    device, run = choose_device(config.device), config.run
    seed_everything(0)
    agent = build_agent(config, info, device)
    streams = make_streams(memory, disk, run.batch_size, run.batch_length)
    learnt = learn_all(agent, streams, device, options.updates)
    print_learnt(config, learnt)
    if options.json:
        sections = {"started": started, "reads": reads, "learnt": learnt, "growth": growth}
        write_json(options.json, sections)
    return conclude(targets(reads, learnt, growth))


def make_streams(
    memory: RowStore, disk: RowStore, batch_size: int, length: int
) -> dict[str, WindowStream]:
    """Each way to get batches."""
    sides = {
        MEMORY: (memory, "none"),
        DISK: (disk, "none"),
        f"{MEMORY}, shift": (memory, "shift"),
        f"{MEMORY}, colour": (memory, "colour"),
    }
    return {
        side: WindowStream(store, batch_size, length, 0, augmentation(name))
        for side, (store, name) in sides.items()
    }


def start(path: Path) -> tuple[RowStore, Started]:
    """Decode the whole dataset into memory."""
    plan, before, begin = plan_memory(path, "ram", 0, 0), resident(), time.perf_counter()
    store = RowStore.open(path, "ram", holdout=0)[0]
    seconds = time.perf_counter() - begin
    taken = resident() - before
    return store, Started(seconds, plan.images / seconds, plan.needed / 2**20, taken)


def read_all(streams: dict[str, WindowStream], seconds: float) -> list[Read]:
    """Medians over rounds in which the sides take turns."""
    rates: dict[str, list[tuple[float, float]]] = {side: [] for side in streams}
    for number in range(ROUNDS):
        for side, stream in streams.items():
            rates[side].append(read(stream, number * 10_000, seconds / ROUNDS))
    return [
        Read(side, *(statistics.median(column) for column in zip(*measured, strict=True)))
        for side, measured in rates.items()
    ]


def read(stream: WindowStream, first: int, seconds: float) -> tuple[float, float]:
    """Images per second of the clock and per second of this process."""
    stream.batch(first)
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    for index in itertools.count(first + 1):
        images += sum(x.shape[0] * x.shape[1] for x in stream.batch(index).obs.values())
        if time.perf_counter() - wall >= seconds:
            return images / (time.perf_counter() - wall), images / (time.process_time() - cpu)


def memory_growth(stream: WindowStream, seconds: float) -> float:
    """Batches' worth of memory by which this process grows at most while it streams."""
    before = most = resident()
    batch, begin = stream.batch(0), time.perf_counter()
    size = sum(images.nbytes for images in batch.obs.values()) / 2**20
    for index in itertools.count(1):
        batch = stream.batch(index)
        most = max(most, resident())
        if time.perf_counter() - begin >= seconds:
            return (most - before) / size


def resident() -> float:
    """MiB of this process in memory now; NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def learn_all(
    agent: Agent, streams: dict[str, WindowStream], device: torch.device, updates: int
) -> list[Learnt]:
    """Updates with every source of batches in turns."""
    batches = {side: stream.iterate(0, device) for side, stream in streams.items()}
    sources: dict[str, Callable[[], Batch]] = {
        side: lambda source=source: next(source) for side, source in batches.items()
    }
    always = next(iter(streams.values())).batch(0, device)
    sources = {AGAIN: lambda: always, **sources}
    sums = {side: [0.0, 0.0] for side in sources}
    per_round = -(-updates // ROUNDS)
    total = ROUNDS * len(sources) * (WARM_UP + per_round)
    with Progress("learning", total, "updates", sys.stderr) as progress:
        for side in list(sources) * ROUNDS:
            for number in range(WARM_UP + per_round):
                seconds, waited = learn(agent, sources[side], device)
                if number >= WARM_UP:
                    sums[side][0] += seconds
                    sums[side][1] += waited
                progress.advance()
    for iterator in batches.values():
        iterator.close()
    return [
        Learnt(side, seconds / (ROUNDS * per_round), 100 * waited / seconds)
        for side, (seconds, waited) in sums.items()
    ]


def learn(agent: Agent, source: Callable[[], Batch], device: torch.device) -> tuple[float, float]:
    """One update: its seconds, and those of them that it waited."""
    begin = time.perf_counter()
    batch = source()
    waited = time.perf_counter() - begin
    agent.update(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin, waited


def print_reads(path: Path, started: Started, reads: Sequence[Read]) -> None:
    """The table of reading."""
    print(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB on disk, decoded in "
        f"{started.seconds:.1f} s ({started.per_second:,.0f} images/s); "
        f"{started.projected:.0f} MiB projected, {started.taken:.0f} MiB taken\n"
    )
    print(f"one core, batches of {B} x {T} rows, images of 64x64 and all cameras counted")
    print("| from | images/s | per CPU second | of memory |\n|---|---|---|---|")
    fastest = reads[0].per_second
    for side, per_second, per_cpu_second in reads:
        share = per_second / fastest
        print(f"| {side} | {per_second:,.0f} | {per_cpu_second:,.0f} | {share:.3f} |")


def print_learnt(config: OfflineConfig, learnt: Sequence[Learnt]) -> None:
    """The table of learning."""
    run, alone = config.run, learnt[0].seconds
    print(
        f"\nagent of preset '{config.size}', batches of {run.batch_size} x {run.batch_length}, "
        f"{torch.get_num_threads()} threads"
    )
    print("| from | ms per update | ratio | waiting |\n|---|---|---|---|")
    for side, seconds, waiting in learnt:
        print(f"| {side} | {1000 * seconds:.1f} | {seconds / alone:.2f} | {waiting:.2f} % |")


def targets(reads: Sequence[Read], learnt: Sequence[Learnt], growth: float) -> list[Target]:
    """The targets of the numbers."""
    rates, waits = {x.side: x.per_second for x in reads}, {x.side: x.waiting for x in learnt}
    return [
        *(
            Target(f"windows from {side}", rates[side], least=least, unit="images/s")
            for side, least in LEAST.items()
        ),
        *(
            Target(f"waiting for {side}", waits[side], most=LONGEST_WAIT, unit="%")
            for side in LEAST
        ),
        Target("memory for streaming", growth, most=GROWTH, unit="batches"),
    ]


def write_json(path: Path, sections: dict) -> None:
    """All numbers and what produced them."""
    plain = {
        key: [row._asdict() for row in value] if isinstance(value, list) else value
        for key, value in sections.items()
    }
    plain["started"] = plain["started"]._asdict()
    path.write_text(json.dumps({**plain, "provenance": provenance()}, indent=2))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
