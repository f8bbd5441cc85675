"""Return and cost of the scripted policies: `python -m experiments.scripted_policies`.

Every episode has a fixed seed. The episodes are shared out among worker processes, so the times
per action hold for a machine that is as busy as this one. The thresholds are for full speed and no
action noise; with another `--speed`, `--noise` or `--variant` they are not checked.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.targets import Target, conclude
from dreamer.errors import UserError, tell_error
from dreamer.training.progress import Progress
from fosp_ext.dataset.collect_plan import FIELDS_OF_VIEW
from fosp_ext.dataset.recording import start_worker
from fosp_ext.envs import action_size, check_task, check_variant, env_action_size, make_env
from fosp_ext.envs.gl import choose_backend
from fosp_ext.envs.scripted import ScriptedPolicy, available_policies, make_scripted_policy

if TYPE_CHECKING:
    from fosp_ext.envs import TaskEnv

TASKS = (
    "SafetyPointPush1-v0",  # the slowest first, so that no worker ends long after the others
    "SafetyCarGoal2-v0",
    "SafetyPointGoal2-v0",
    "SafetyPointButton1-v0",
    "SafetyPointGoal1-v0",
    "SafeReach-v0",
)
HEADER = (
    "| task | policy | return mean +- std (min..max) | cost mean +- std (max) "
    "| episodes with cost | goals | ms per action | s per episode |\n" + 8 * "|---" + "|"
)
SAFE = {  # task -> (least mean return, largest mean cost)
    "SafetyPointGoal1-v0": (20, 1),
    "SafetyPointGoal2-v0": (20, 2),
    "SafetyPointButton1-v0": (20, 3),
    "SafetyCarGoal2-v0": (18, 2),
    "SafetyPointPush1-v0": (10, 2),
    "SafeReach-v0": (2.3, 0),
}
UNSAFE_RETURN, UNSAFE_COST = 18, 40  # least means on the Goal and Button tasks
UNSAFE_EXCEPT = ("SafetyPointPush1-v0", "SafeReach-v0")


class Job(NamedTuple):
    """One episode to play."""

    task: str
    policy: str
    seed: int
    noise: float
    speed: float
    field_of_view: str
    variant: str


class Outcome(NamedTuple):
    """Return, cost and times of one episode."""

    score: float
    cost: float
    goals: int
    act_ms: float  # mean time to choose one action
    seconds: float  # of the whole episode, reset and images included


def play(env: TaskEnv, policy: ScriptedPolicy, seed: int) -> Outcome:
    """One episode without recording it."""
    started, acting, actions = time.perf_counter(), 0.0, 0
    score, cost, goals = 0.0, 0.0, 0
    policy.reset()
    env.reset(seed=seed)
    terminated = truncated = False
    while not (terminated or truncated):
        state = env.privileged()
        before = time.perf_counter()
        action = policy.act(state)
        acting += time.perf_counter() - before
        _, reward, terminated, truncated, info = env.step(action)
        score, cost = score + reward, cost + info["cost"]
        goals += info["success"] if "success" in info else info["goals"]
        actions += 1
    return Outcome(score, cost, goals, 1000 * acting / actions, time.perf_counter() - started)


@cache
def worker_env(task: str, variant: str) -> TaskEnv:
    """The environment of this worker process for `task`."""
    return make_env(task, variant=variant)


def play_job(job: Job) -> Outcome:
    """Play one job in a worker process."""
    rng = np.random.default_rng(job.seed)
    env = worker_env(job.task, job.variant)
    cameras = tuple(env.observation_space) if job.field_of_view == "cameras" else ()
    policy = make_scripted_policy(
        job.policy,
        job.task,
        rng,
        job.noise,
        job.speed,
        action_size=env_action_size(env),
        cameras=cameras,
    )
    return play(env, policy, job.seed)


def play_all(jobs: Sequence[Job], workers: int) -> dict[Job, Outcome]:
    """Every job, `workers` at a time."""
    choose_backend()  # once, here: the workers inherit the choice
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")  # a forked OpenGL context would not work
    with (
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=start_worker) as pool,
        Progress("playing", len(jobs), "episodes", sys.stderr) as progress,
    ):
        running = {pool.submit(play_job, job): job for job in jobs}
        outcomes = {}
        for future in as_completed(running):
            outcomes[running[future]] = future.result()
            progress.advance()
    return outcomes


def row(task: str, name: str, outcomes: Sequence[Outcome]) -> str:
    """A line of the table."""
    score, cost, goals, act_ms, seconds = np.array(outcomes).T  # (episodes,) each
    return (
        f"| {task} | {name} | {score.mean():.2f} +- {score.std():.2f} "
        f"({score.min():.1f}..{score.max():.1f}) | {cost.mean():.2f} +- {cost.std():.2f} "
        f"({cost.max():.0f}) | {np.mean(cost > 0):.2f} | {goals.mean():.2f} "
        f"| {act_ms.mean():.2f} | {seconds.mean():.1f} |"
    )


def targets(task: str, name: str, outcomes: Sequence[Outcome]) -> list[Target]:
    """Targets of the means of one policy; empty where no bound is set."""
    score = float(np.mean([outcome.score for outcome in outcomes]))
    cost = float(np.mean([outcome.cost for outcome in outcomes]))
    label = f"{task} {name}"
    if name == "safe" and task in SAFE:
        least, most = SAFE[task]
        return [
            Target(f"{label} return", score, least=least),
            Target(f"{label} cost", cost, most=most),
        ]
    if name == "unsafe" and task in SAFE and task not in UNSAFE_EXCEPT:
        return [
            Target(f"{label} return", score, least=UNSAFE_RETURN),
            Target(f"{label} cost", cost, least=UNSAFE_COST),
        ]
    return []


def compare(tasks: Sequence[str], names: Sequence[str], options: argparse.Namespace) -> int:
    """Play everything and print the table; returns the exit code."""
    chosen = {task: names or available_policies(task) for task in tasks}
    seeds = range(options.seed, options.seed + options.episodes)
    spread = (options.noise, options.speed, options.field_of_view, options.variant)
    jobs = [
        Job(task, name, seed, *spread) for task in chosen for name in chosen[task] for seed in seeds
    ]
    for task, name in {(job.task, job.policy) for job in jobs}:
        rng, size = np.random.default_rng(0), action_size(task)
        make_scripted_policy(name, task, rng, action_size=size)  # refuses a wrong name at once
    outcomes = play_all(jobs, options.workers or os.cpu_count() or 1)
    print(HEADER)
    verdicts: list[Target] = []
    for task in sorted(chosen):
        for name in chosen[task]:
            played = [outcomes[Job(task, name, seed, *spread)] for seed in seeds]
            print(row(task, name, played))
            verdicts += targets(task, name, played)
    usual = (options.noise, options.speed, options.variant) == (0, 1, "none")
    return conclude(verdicts) if usual else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated task ids")
    parser.add_argument("--policies", default="", help="comma-separated; all by default")
    parser.add_argument("--episodes", type=int, default=20, help="per task and policy")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--noise", type=float, default=0, help="of actions, standard deviation")
    parser.add_argument("--speed", type=float, default=1, help="share of the top speed")
    parser.add_argument(
        "--field_of_view",
        choices=FIELDS_OF_VIEW,
        default="cameras",
        help="what the policies act on",
    )
    parser.add_argument("--variant", default="none", help="of the tasks, for all of them")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 takes every core")
    options = parser.parse_args(arguments)
    try:
        tasks = [check_task(task) for task in options.tasks.split(",")]
        for task in tasks:
            check_variant(options.variant, task)
        names = options.policies.split(",") if options.policies else ()
        return compare(tasks, names, options)
    except UserError as error:
        return tell_error(error)


if __name__ == "__main__":
    sys.exit(main())
