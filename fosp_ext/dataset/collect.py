"""Recording a dataset with scripted policies, in parallel and resumable.

Each finished episode is at once a file of its own in the folder `<path>.parts`. A collection that
was stopped, in whatever way, goes on from there; at the end the parts become one dataset file.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from dreamer.data.hdf5 import read_episodes, recording_of, validate_dataset, write_dataset
from dreamer.envs.worker import one_thread_each, stop_signals_blocked
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.outputs import new_output, refuse_existing, remove_parts
from dreamer.signals import checked
from dreamer.training.progress import Progress
from fosp_ext.dataset.collect_plan import CollectSettings, Recording, plan_episodes
from fosp_ext.dataset.recording import EnvChoice, part_note, record_part, start_worker
from fosp_ext.envs.gl import choose_backend
from fosp_ext.envs.tasks import is_custom

__all__ = ["CollectSettings", "collect_dataset", "plan_episodes"]

SETTINGS_FILE = "settings.json"
PART_NAMES = "episode_{}.hdf5"


def collect_dataset(
    path: str | Path, settings: CollectSettings, progress: TextIO | None = None
) -> None:
    """Record the dataset file `path`, or go on with what an earlier call had to leave.

    Progress is shown on the stream `progress`. A full disk, and a file that another process records
    now, are a `UserError`. A signal ends it within a step of the environments. Episodes that were
    finished stay readable, each as a dataset file in the folder of parts.
    """
    path = Path(path)
    refuse_existing(path)
    plan = plan_episodes(settings)
    parts = parts_folder(path)
    with new_output(path):
        try:
            _claim_parts(parts, settings)
            notes = _notes(parts, plan, settings)
            _check_parts(notes)
            _record_missing(parts, plan, settings, progress)
            _check_parts(notes)
            _merge(path, list(notes), progress)
        except OSError as error:
            raise UserError(
                f"recording {path} failed: {error}; finished episodes are kept in {parts}, "
                "run the same command to continue"
            ) from error
        shutil.rmtree(parts)


def parts_folder(path: Path) -> Path:
    """Folder of the episodes of an unfinished dataset file."""
    return path.with_name(f"{path.name}.parts")


def part_file(parts: Path, recording: Recording) -> Path:
    """The file of one finished episode."""
    return parts / PART_NAMES.format(f"{recording.index:06d}")


def _claim_parts(parts: Path, settings: CollectSettings) -> None:
    """Note the settings in a new folder of parts, or check that an old one has the same."""
    fields = dataclasses.asdict(settings)
    del fields["workers"]  # decides no episode
    wanted = json.loads(json.dumps(fields))
    note = parts / SETTINGS_FILE
    remove_parts(parts)
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


def _notes(parts: Path, plan: Sequence[Recording], settings: CollectSettings) -> dict[Path, str]:
    """The file of each episode, in order, and what it says of how it was recorded."""
    choice = env_choice(settings)
    return {part_file(parts, recording): part_note(recording, choice) for recording in plan}


def _check_parts(notes: dict[Path, str]) -> None:
    """Refuse an episode that exists and was recorded in another way, with another seed say."""
    for part, note in notes.items():
        if part.exists() and recording_of(part) != note:
            raise UserError(
                f"{part} was recorded with another seed or other settings; remove it, or the whole "
                "folder, and the same command records it again"
            )


def env_choice(settings: CollectSettings) -> EnvChoice:
    """The environment of a recording."""
    fields = dataclasses.fields(EnvChoice)
    return EnvChoice(**{field.name: getattr(settings, field.name) for field in fields})


def _record_missing(
    parts: Path, plan: Sequence[Recording], settings: CollectSettings, stream: TextIO | None
) -> None:
    """Play every episode that has no part yet."""
    missing = [recording for recording in plan if not part_file(parts, recording).exists()]
    if not missing:
        return
    if not is_custom(settings.task):
        choose_backend()  # once, here: the workers inherit the choice
    choice = env_choice(settings)
    workers = min(settings.workers or _cores(), len(missing))
    done = len(plan) - len(missing)
    with (
        one_thread_each(),
        Progress("recording", len(plan), "episodes", stream, done) as progress,
        _pool(workers) as pool,
    ):
        jobs = (partial(record_part, part_file(parts, each), each, choice) for each in missing)
        for _ in _results(pool, jobs, workers):
            progress.advance()


def _results(
    pool: ProcessPoolExecutor, jobs: Iterator[Callable[[], None]], workers: int
) -> Iterator[None]:
    """Run all jobs, never more at once than there are workers, so that none waits when we stop."""
    with stop_signals_blocked():  # this is where the workers are started
        running = {pool.submit(job) for job in itertools.islice(jobs, workers)}
    while running:
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(job) for job in itertools.islice(jobs, len(finished))}
        for future in finished:
            yield future.result()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; if the block fails they give up the episodes they are in."""
    spawn = multiprocessing.get_context("spawn")  # a forked OpenGL context would not work
    with stop_signals_blocked():
        stopped = spawn.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=start_worker, initargs=(stopped,)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            f"a recording process was killed, perhaps for lack of memory (workers: {workers}); "
            "run the same command with fewer workers to continue"
        ) from error
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _merge(path: Path, parts: Sequence[Path], stream: TextIO | None) -> None:
    """Write all parts into one file, in order."""
    episodes = itertools.chain.from_iterable(read_episodes(part) for part in parts)
    with Progress("writing", len(parts), "episodes", stream) as progress:
        write_dataset(path, checked(progress.count(episodes)), validate_dataset(parts[0]))
