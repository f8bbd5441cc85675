"""What `benchmarks.learning` does: plan, run every step, tell what came of it."""

from __future__ import annotations

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.learning_plan import (
    Method,
    Plan,
    Wishes,
    describe,
    load_plan,
    make_plan,
    read_methods,
    save_plan,
)
from benchmarks.learning_results import as_json, collect, save_json, tables
from benchmarks.learning_speed import measure_speed
from benchmarks.learning_stages import all_stages, run_stages, short
from dreamer.data.hdf5 import validate_dataset
from dreamer.errors import UserError, did_you_mean
from dreamer.utils import choose_device
from fosp_ext.envs import check_task, check_variant, is_custom


def compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Everything, or what is left of it; returns the exit code."""
    wishes, out = read_wishes(options)
    methods = read_methods(options.methods, wishes.size)
    with alone_in(out) as lock:
        plan = _plan(wishes, methods, options.seeds, out)
        stages = all_stages(plan, methods, options.seeds, out)
        code = run_stages(stages, out, plan.budget_minutes, keep_open=(lock,))
    if code:
        return code
    found = as_json(plan, methods, options.seeds, out, words)
    path = options.json or out / "results.json"
    save_json(found, path)
    rows = collect(plan, methods, options.seeds, out)
    page = max(out.glob("report*/index.html"), key=lambda file: file.stat().st_mtime)
    print(f"\n{tables(plan, rows, found['offline'])}\n")
    print(f"numbers: {path}\nreport: {page}\nruns: {out}")
    return 0


def read_wishes(options: argparse.Namespace) -> tuple[Wishes, Path]:
    """What is asked for, complete, and the folder for it; what fits no plan is a `UserError`."""
    _check_numbers(options)
    task = check_task(options.task)
    if is_custom(task):
        raise UserError(f"{task}: only Safety-Gymnasium tasks have variants and behaviours")
    variant, size = check_variant(options.variant, task).name, options.size
    if size == "auto":
        size = "cpu" if choose_device("auto").type == "cpu" else "fosp"
    out = options.out or Path("logdir/learning") / f"{task}-{size}-{variant}"
    if options.dataset:
        _check_dataset(options.dataset, task)
    wishes = Wishes(
        task=task,
        variant=variant,
        size=size,
        dataset=short(options.dataset or out / "dataset.h5"),
        recorded=options.dataset is None,
        budget_minutes=options.budget_minutes,
        episodes=options.episodes,
        eval_episodes=options.eval_episodes,
        updates=options.updates,
        online_steps=options.online_steps,
    )
    return wishes, out


def _check_numbers(options: argparse.Namespace) -> None:
    for name in ("seeds", "episodes", "eval_episodes", "updates", "online_steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 < options.budget_minutes < float("inf"):
        raise UserError(f"--budget-minutes must be above 0, got {options.budget_minutes:g}")
    if options.dataset and options.episodes:
        raise UserError("--episodes is for recording; with --dataset there is nothing to record")


def _check_dataset(path: Path, task: str) -> None:
    if not path.is_file():
        near = [file.name for file in path.parent.glob("*")]
        raise UserError(f"no dataset {path}{did_you_mean(path.name, near)}")
    found = validate_dataset(path).task
    if found != task:
        raise UserError(f"{path} holds episodes of {found}, not of {task}")


def _plan(wishes: Wishes, methods: Sequence[Method], seeds: int, out: Path) -> Plan:
    """The plan of an earlier start, or a new one for this machine; it is said."""
    plan = load_plan(out / "plan.json", wishes)
    if plan is None:
        speed = measure_speed(wishes.task, methods, wishes.size)
        plan = make_plan(wishes, methods, seeds, speed)
        save_plan(plan, out / "plan.json")
    else:
        print(f"going on in {out}, by the plan that was made for {plan.budget_minutes:g} minutes")
    print(describe(plan, methods, seeds), flush=True)
    return plan


@contextmanager
def alone_in(out: Path) -> Iterator[int]:
    """Wait until no other start works in the folder; yields the open lock.

    The steps inherit it: where a start was killed, its last step may outlive it for some seconds.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: an earlier start still works in {out}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
