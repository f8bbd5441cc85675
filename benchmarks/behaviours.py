"""Return and cost of the scripted behaviours: `python -m benchmarks.behaviours --task T`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamer.errors import UserError
from fosp_ext.envs import make_env
from fosp_ext.envs.behaviours import Behaviour, available_behaviours, make_behaviour
from fosp_ext.envs.safety_gym import SafetyGymEnv

HEADER = (
    "| task | behaviour | return mean +- std (min..max) | cost mean +- std (max) | goals "
    "| ms per action | s per episode |\n|---|---|---|---|---|---|---|"
)


class Outcome(NamedTuple):
    """One episode in numbers."""

    score: float
    cost: float
    goals: int
    act_ms: float  # mean time to choose one action
    seconds: float  # of the whole episode, reset and pictures included


def play(env: SafetyGymEnv, behaviour: Behaviour, seed: int) -> Outcome:
    """One episode without recording it."""
    started, acting, actions = time.perf_counter(), 0.0, 0
    score, cost, goals = 0.0, 0.0, 0
    behaviour.reset()
    env.reset(seed=seed)
    terminated = truncated = False
    while not (terminated or truncated):
        state = env.privileged()
        before = time.perf_counter()
        action = behaviour.act(state)
        acting += time.perf_counter() - before
        _, reward, terminated, truncated, info = env.step(action)
        score, cost, goals = score + reward, cost + info["cost"], goals + info["goals"]
        actions += 1
    return Outcome(score, cost, goals, 1000 * acting / actions, time.perf_counter() - started)


def row(task: str, name: str, outcomes: Sequence[Outcome]) -> str:
    """A line of the table."""
    score, cost, goals, act_ms, seconds = np.array(outcomes).T  # (episodes,) each
    return (
        f"| {task} | {name} | {score.mean():.2f} +- {score.std():.2f} "
        f"({score.min():.1f}..{score.max():.1f}) | {cost.mean():.2f} +- {cost.std():.2f} "
        f"({cost.max():.0f}) | {goals.mean():.1f} | {act_ms.mean():.2f} | {seconds.mean():.1f} |"
    )


def measure(task: str, names: Sequence[str], episodes: int, seed: int) -> None:
    """Print the table of one task."""
    env = make_env(task)
    print(HEADER)
    for name in names:
        outcomes = []
        for episode_seed in range(seed, seed + episodes):
            behaviour = make_behaviour(name, env.task, np.random.default_rng(episode_seed))
            outcomes.append(play(env, behaviour, episode_seed))
        print(row(env.task, name, outcomes), flush=True)
    env.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="SafetyPointGoal1-v0")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--behaviours", help="comma-separated; all that the task has by default")
    options = parser.parse_args(arguments)
    try:
        known = available_behaviours(options.task)
        names = options.behaviours.split(",") if options.behaviours else known
        measure(options.task, names, options.episodes, options.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
