"""The work of `experiments.comparison`: plan, run every job, write the results."""

from __future__ import annotations

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreamer.data.hdf5 import validate_dataset
from dreamer.errors import UserError, did_you_mean
from dreamer.utils import choose_device
from experiments.comparison.jobs import all_jobs, short
from experiments.comparison.methods import Method, read_methods, read_settings
from experiments.comparison.plan import (
    Parallelism,
    Plan,
    Request,
    at_once,
    describe,
    load_plan,
    make_plan,
    save_plan,
)
from experiments.comparison.results import as_json, save_json
from experiments.comparison.run import run_jobs
from experiments.comparison.speed import cores, measure_speed
from experiments.comparison.tables import tables
from fosp_ext.envs import check_task, check_variant, is_custom


def compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the comparison, or what is left of it; returns the exit code."""
    request, out = read_request(options)
    methods, seeds = read_methods(options.methods, request.scale, request.settings), options.seeds
    with alone_in(out) as lock:
        kept = load_plan(out / "plan.json", request)
        steps = request.online_steps if kept is None else kept.online_steps
        parallel = choose_parallelism(options, at_once(methods, seeds, online=steps != 0))
        plan = kept or new_plan(request, methods, seeds, parallel, out)
        print(_begins(plan, methods, seeds, parallel, out, kept is not None), flush=True)
        jobs = all_jobs(plan, methods, seeds, out, parallel.threads)
        code = run_jobs(jobs, out, plan.budget_minutes, parallel.jobs, (lock,))
    if code:
        return code
    found = as_json(plan, methods, seeds, out, words)
    path = options.json or out / "results.json"
    save_json(found, path)
    page = max(out.glob("report*/index.html"), key=lambda file: file.stat().st_mtime)
    print(f"\n{tables(found)}\n")
    print(f"numbers: {path}\nreport: {page}\nruns: {out}")
    return 0


def read_request(options: argparse.Namespace) -> tuple[Request, Path]:
    """The request and its folder; what fits no plan is a `UserError`."""
    _check_numbers(options)
    task = check_task(options.task)
    if is_custom(task):
        raise UserError(f"{task}: only built-in tasks have variants and policies")
    variant, small = check_variant(options.variant, task).name, choose_device("auto").type == "cpu"
    size = options.size or ("cpu" if small else "full")
    recipe = options.recipe or ("quick" if small else "paper")
    out = options.out or Path("logdir/comparison") / f"{task}-{size}-{recipe}-{variant}"
    if options.dataset:
        _check_dataset(options.dataset, task)
    request = Request(
        task=task,
        variant=variant,
        size=size,
        recipe=recipe,
        dataset=short(options.dataset or out / "dataset.h5"),
        recorded=options.dataset is None,
        budget_minutes=options.budget_minutes,
        episodes=options.episodes,
        eval_episodes=options.eval_episodes,
        updates=options.updates,
        online_steps=options.online_steps,
        settings=read_settings(options.settings),
    )
    return request, out


def _check_numbers(options: argparse.Namespace) -> None:
    least = dict.fromkeys(("seeds", "episodes", "eval_episodes", "updates", "jobs", "threads"), 1)
    for name, bound in {**least, "online_steps": 0}.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise UserError(f"--{name.replace('_', '-')} must be at least {bound}, got {value}")
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


def choose_parallelism(options: argparse.Namespace, runs: int) -> Parallelism:
    """Number of parallel jobs and threads of each.

    At most `runs` jobs are independent. A GPU has one job: several would wait for each other.
    """
    alone = choose_device("auto").type != "cpu"
    jobs = options.jobs or (1 if alone else min(cores(), runs))
    shared = max(1, cores() // jobs) if jobs > 1 else 0
    return Parallelism(jobs, options.threads or shared)


def new_plan(
    request: Request, methods: Sequence[Method], seeds: int, parallel: Parallelism, out: Path
) -> Plan:
    """A plan for this machine; it is kept in the folder."""
    speed = measure_speed(request, methods, parallel.threads)
    plan = make_plan(request, methods, seeds, speed, parallel)
    save_plan(plan, out / "plan.json")
    return plan


def _begins(
    plan: Plan, methods: Sequence[Method], seeds: int, parallel: Parallelism, out: Path, again: bool
) -> str:
    """The plan as lines of text, and how its jobs run."""
    lines = [describe(plan, methods, seeds)]
    if again:
        made = f"{plan.budget_minutes:g} minutes" + f" and {plan.jobs} jobs" * (plan.jobs > 1)
        lines.insert(0, f"going on in {out}, by the plan that was made for {made}")
    if parallel.jobs > 1:
        lines.append(
            f"{parallel.jobs} jobs at a time, --threads {parallel.threads} each; "
            f"their output: {out / 'logs'}"
        )
    return "\n".join(lines)


@contextmanager
def alone_in(out: Path) -> Iterator[int]:
    """Wait until no other start works in the folder; yields the open lock.

    The jobs inherit it: where a start was killed, its last job may outlive it for some seconds.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: an earlier start still works in {out}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
