"""Recording a dataset with scripted behaviours, in parallel and resumable.

Each finished episode is at once a file of its own in the folder `<path>.parts`. A collection that was
stopped, in whatever way, goes on from there; at the end the parts become one dataset file.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from dreamer.data.episode import Episode
from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from dreamer.errors import UserError, did_you_mean
from dreamer.files import atomic_path
from fosp_ext.envs import QUALITIES, check_cameras, check_task
from fosp_ext.envs.behaviours import available_behaviours
from fosp_ext.envs.gl import choose_backend
from fosp_ext.progress import Progress
from fosp_ext.recording import EnvChoice, Recording, record_part, start_worker

SETTINGS_FILE = "settings.json"
PART_NAMES = "episode_{}.hdf5"
LEAST_SEED = 1_000_000  # datasets never contain the worlds of small, hand-picked evaluation seeds
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class CollectSettings:
    """What to record. Wrong values are a `UserError` at once, before anything is written."""

    task: str
    cameras: tuple[str, ...]
    size: int  # pictures are (size, size, 3)
    action_repeat: int
    render: str  # "fast" or "exact"
    episodes: int
    mix: dict[str, float]  # behaviour -> share of the episodes
    noise: float  # each episode's action noise is drawn between 0 and this standard deviation
    min_speed: float  # each episode's forward speed is drawn between this share and 1
    workers: int  # processes; 0 takes every core
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", check_task(self.task))
        object.__setattr__(self, "cameras", check_cameras(self.cameras))
        _check_mix(self.mix, self.task)
        if self.render not in QUALITIES:
            raise UserError(f"render must be one of {', '.join(QUALITIES)}, got '{self.render}'")
        least = {
            "size": 1,
            "action_repeat": 1,
            "episodes": 1,
            "noise": 0,
            "workers": 0,
            "seed": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if not 0 < self.min_speed <= 1:
            raise UserError(f"min_speed must lie above 0 and up to 1, got {self.min_speed}")


@dataclass(frozen=True)
class BehaviourSummary:
    """What one behaviour contributed to a dataset."""

    behaviour: str
    episodes: int
    mean_return: float
    mean_cost: float

    def __str__(self) -> str:
        return (
            f"{self.behaviour:>8}: {self.episodes} episodes, "
            f"mean return {self.mean_return:.2f}, mean cost {self.mean_cost:.2f}"
        )


def collect_dataset(
    path: str | Path, settings: CollectSettings, progress: TextIO | None = None
) -> tuple[BehaviourSummary, ...]:
    """Record the dataset file `path`, or go on with what an earlier call had to leave.

    Progress is shown on the stream `progress`. Returns what each behaviour contributed.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already; choose another file or remove it")
    plan = plan_episodes(settings)
    parts = parts_folder(path)
    _claim_parts(parts, settings)
    try:
        _record_missing(parts, plan, settings, progress)
        summary = _merge(path, [part_file(parts, recording) for recording in plan], progress)
    except OSError as error:
        raise UserError(
            f"recording {path} failed: {error}; finished episodes are kept in {parts}, "
            "run the same command to continue"
        ) from error
    shutil.rmtree(parts)
    return summary


def plan_episodes(settings: CollectSettings) -> list[Recording]:
    """All episodes in the order of the file: shares exact to one episode, evenly interleaved."""
    plan = []
    for index, behaviour in enumerate(_interleave(_counts(settings.mix, settings.episodes))):
        rng = np.random.default_rng([settings.seed, index])
        plan.append(
            Recording(
                index=index,
                behaviour=behaviour,
                seed=int(rng.integers(LEAST_SEED, 2**31)),
                noise=float(rng.uniform(0, settings.noise)),
                speed=float(rng.uniform(settings.min_speed, 1)),
            )
        )
    return plan


def parts_folder(path: Path) -> Path:
    """Where the episodes of an unfinished dataset file lie."""
    return path.with_name(f"{path.name}.parts")


def part_file(parts: Path, recording: Recording) -> Path:
    """The file of one finished episode."""
    return parts / PART_NAMES.format(f"{recording.index:06d}")


def _check_mix(mix: dict[str, float], task: str) -> None:
    known = available_behaviours(task)
    for name, share in mix.items():
        if name not in known:
            raise UserError(
                f"mix: no behaviour '{name}' for task '{task}'{did_you_mean(name, known)}"
                f" (available: {', '.join(known)})"
            )
        if share < 0:
            raise UserError(f"mix: the share of '{name}' must not be negative, got {share}")
    total = sum(mix.values())
    if abs(total - 1) > 1e-6:
        raise UserError(f"mix: the shares must sum to 1, {mix} sums to {total:.6g}")


def _counts(mix: dict[str, float], episodes: int) -> dict[str, int]:
    """Whole numbers of episodes by largest remainder; they sum to `episodes`."""
    exact = {name: share * episodes for name, share in mix.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: episodes - sum(counts.values())]:
        counts[name] += 1
    return counts


def _interleave(counts: dict[str, int]) -> Iterator[str]:
    """Each behaviour as often as counted; next comes the one furthest behind its share."""
    total, used = sum(counts.values()), dict.fromkeys(counts, 0)
    for done in range(1, total + 1):
        behind = {name: counts[name] * done / total - used[name] for name in counts}
        name = max(behind, key=behind.__getitem__)
        used[name] += 1
        yield name


def _claim_parts(parts: Path, settings: CollectSettings) -> None:
    """Note the settings in a new folder of parts, or check that an old one has the same."""
    fields = dataclasses.asdict(settings)
    del fields["workers"]  # decides no episode
    wanted = json.loads(json.dumps(fields))
    note = parts / SETTINGS_FILE
    if not any(parts.glob(PART_NAMES.format("*"))):
        with atomic_path(note) as part:
            part.write_text(json.dumps(wanted, indent=2, sort_keys=True))
        return
    found = json.loads(note.read_text())
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UserError(
                f"{parts} holds an unfinished collection with {name} {found.get(name)!r}, not "
                f"{value!r}; run with its settings to continue it, or remove the folder"
            )


def _record_missing(
    parts: Path, plan: Sequence[Recording], settings: CollectSettings, stream: TextIO | None
) -> None:
    """Play every episode that has no part yet."""
    missing = [recording for recording in plan if not part_file(parts, recording).exists()]
    if not missing:
        return
    choose_backend()  # once, here: the workers inherit the choice
    choice = EnvChoice(
        settings.task, settings.cameras, settings.size, settings.action_repeat, settings.render
    )
    workers = min(settings.workers or _cores(), len(missing))
    done = len(plan) - len(missing)
    with (
        _one_thread_each(),
        Progress("recording", len(plan), "episodes", stream, done) as progress,
        _pool(workers) as pool,
    ):
        jobs = [pool.submit(record_part, part_file(parts, job), job, choice) for job in missing]
        for job in as_completed(jobs):
            job.result()
            progress.advance()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; if the block fails they finish the episodes they are in and start no more."""
    spawn = multiprocessing.get_context("spawn")  # a forked OpenGL context would not work
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=start_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            f"a recording process was killed, perhaps for lack of memory (workers: {workers}); "
            "run the same command with fewer workers to continue"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in this block run their linear algebra on one thread."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _merge(
    path: Path, parts: Sequence[Path], stream: TextIO | None
) -> tuple[BehaviourSummary, ...]:
    """Write all parts into one file, in order."""
    scores: dict[str, list[tuple[float, float]]] = {}

    def episodes() -> Iterator[Episode]:
        with Progress("writing", len(parts), "episodes", stream) as progress:
            for part in parts:
                for episode in read_episodes(part):
                    earned = (episode.score, episode.total_cost)
                    scores.setdefault(episode.behaviour, []).append(earned)
                    yield episode
                progress.advance()

    write_dataset(path, episodes(), validate_dataset(parts[0]))
    return tuple(
        BehaviourSummary(name, len(rows), *(float(mean) for mean in np.mean(rows, axis=0)))
        for name, rows in sorted(scores.items())
    )
