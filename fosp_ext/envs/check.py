"""Check that an environment fits this project: `python -m fosp_ext.envs.check TASK`.

Plays episodes of random actions and checks spaces, values, costs, seeds and ends, one line each.
The exit code is 0 if everything fits, 1 if something is wrong, 2 if there is no such environment.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.boundary import Parser, guarded
from dreamer.envs.contract import cameras_of, check_choice, read_action_space
from dreamer.envs.loading import LoadedEnv, load_env
from dreamer.errors import UserError
from fosp_ext.envs import check_task, env_action_size, is_custom, make_env
from fosp_ext.envs.trial import Row, Trace, first_difference, play

MOST = 10**9  # of any number here; a seed and its episodes still fit into 32 bits
REPLAYED = 100  # steps played again to see whether a seed decides them
PROBLEMS = ("reset", "step", "images", "reward", "cost", "terminated", "truncated")
USE_THE_SEED = "take all chance from self.np_random, after super().reset(seed=seed)"


class Examination:
    """The checks of one environment, reported line by line."""

    def __init__(self, task: str, cameras: Sequence[str], report: Callable[[str], None]) -> None:
        """`cameras` may be empty: then all that the environment has."""
        self.task, self.cameras, self.report = task, tuple(cameras), report
        self.fits = True

    def run(self, episodes: int, seed: int, limit: int) -> bool:
        """All checks that can be made; returns whether the environment fits."""
        with self.blamed("environment"), self.opened() as loaded:
            self.ok("environment", f"{type(loaded.env).__name__} can be made")
            self.spaces(loaded.env)
            if self.fits:
                seeds = range(seed, seed + episodes)
                traces = [play(loaded, self.cameras, each, limit) for each in seeds]
                self.values(traces)
            if self.fits:
                self.ends(traces, limit)
                self.seeds(loaded, traces, seed)
        if self.fits:
            with self.blamed("videos"):
                self.videos(seed)
        return self.fits

    def spaces(self, env: Any) -> None:
        """Actions and cameras; without them nothing can be played."""
        actions, observations = env.action_space, env.observation_space
        with self.wrong("actions"):
            read_action_space(actions)
            low, high = actions.low.min(), actions.high.max()
            self.ok("actions", f"{actions.shape[0]} numbers, {low:g} to {high:g}")
        with self.wrong("cameras"):
            check_choice(self.cameras, observations)
            sizes = cameras_of(observations)
            self.cameras = self.cameras or tuple(sizes)
            shown = (f"{name} {sizes[name][1]}x{sizes[name][0]}" for name in self.cameras)
            self.ok("cameras", ", ".join(shown))

    def values(self, traces: Sequence[Trace]) -> None:
        """The values that reset and step returned."""
        problems: dict[str, str] = {}
        for trace in traces:
            problems = {**trace.problems, **problems}
        for name in PROBLEMS:
            if name in problems:
                self.say("WRONG", name, problems[name])
        rows = [row for trace in traces for row in trace.rows[1:]]
        if not rows:
            return
        if "images" not in problems:
            still = any(len({row.images for row in trace.rows}) == 1 for trace in traces)
            self.ok("images", "uint8", "nothing moves in an episode" if still else "")
        if "reward" not in problems:
            rewards = [row.reward for row in rows if row.reward is not None]
            self.ok("reward", f"{min(rewards):g} to {max(rewards):g} in a step")
        if "cost" not in problems:
            self.cost(rows)

    def cost(self, rows: Sequence[Row]) -> None:
        """The size and the frequency of costs."""
        costs = np.array([row.cost for row in rows])
        share = 100 * np.mean(costs > 0)
        never = "" if costs.any() else "always 0: random actions show nothing that is unsafe"
        self.ok("cost", f"up to {costs.max():g}, above 0 in {share:.1f} % of the steps", never)

    def ends(self, traces: Sequence[Trace], limit: int) -> None:
        """Every episode ends, by itself or by a time limit."""
        lengths = [trace.steps for trace in traces]
        true_ends = sum(bool(trace.rows[-1].terminated) for trace in traces)
        with self.wrong("ends"):
            if not all(trace.over for trace in traces):
                raise UserError(
                    f"no end after {limit} steps: return truncated, or give max_episode_steps "
                    "where the environment is registered"
                )
            self.ok(
                "ends",
                f"{min(lengths)} to {max(lengths)} steps, {true_ends} of {len(traces)} episodes "
                "terminated, the others truncated",
            )

    def seeds(self, loaded: LoadedEnv, traces: Sequence[Trace], seed: int) -> None:
        """A seed decides the episode, whatever was played before, and in another instance."""
        with self.opened() as other:
            replays = {
                "same seed": play(loaded, self.cameras, seed, REPLAYED),
                "new instance": play(other, self.cameras, seed, REPLAYED),
            }
        for name, trace in replays.items():
            with self.wrong(name):
                difference = first_difference(traces[0], trace)
                if difference:
                    raise UserError(f"{difference}, with the same seed: {USE_THE_SEED}")
                self.ok(name, f"the same episode ({trace.steps} steps compared)")
        if len(traces) > 1:
            equal = traces[0].rows[0] == traces[1].rows[0]
            self.ok("other seed", "another episode", "begins with the same image" if equal else "")

    def videos(self, seed: int) -> None:
        """The wrapped environment: a reset, a step, and an image from `render`."""
        env = make_env(self.task, self.cameras)
        try:
            env.reset(seed=seed)
            env.step(np.zeros(env_action_size(env), np.float32))
            height, width, _ = env.render().shape
        finally:
            env.close()
        self.ok("videos", f"{width}x{height}")

    @contextmanager
    def opened(self) -> Iterator[LoadedEnv]:
        """A new instance of the environment, closed afterwards."""
        if is_custom(self.task):
            loaded = load_env(self.task)
        else:
            chosen: dict[str, Any] = {"cameras": self.cameras} if self.cameras else {}
            loaded = LoadedEnv(make_env(self.task, **chosen), None)
        try:
            yield loaded
        finally:
            getattr(loaded.env, "close", lambda: None)()

    @contextmanager
    def blamed(self, name: str) -> Iterator[None]:
        """Report an exception raised by the environment itself: its type and place."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # an environment can raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            reason = (str(error).splitlines() or [""])[0]
            self.say("WRONG", name, f"{type(error).__name__} in {where}: {reason}")

    @contextmanager
    def wrong(self, name: str) -> Iterator[None]:
        """Report a rule that is broken in the block."""
        try:
            yield
        except UserError as error:
            self.say("WRONG", name, str(error))

    def ok(self, name: str, detail: str, doubt: str = "") -> None:
        """Report a check that passed, or the doubt about it as a note."""
        self.say("note" if doubt else "ok", name, doubt or detail)

    def say(self, verdict: str, name: str, detail: str) -> None:
        """Print one line; `verdict` is ok, note or WRONG."""
        self.fits = self.fits and verdict != "WRONG"
        self.report(f"{verdict:<6} {name:<12} {detail}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="python -m fosp_ext.envs.check",
        description="Check an environment by playing it; say what does not fit.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("task", help="MODULE:NAME, or the id of a Safety-Gymnasium task")
    parser.add_argument("--cameras", default="", help="names with commas; none: all there are")
    parser.add_argument("--episodes", type=int, default=3, help="episodes to play")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--limit", type=int, default=10_000, help="steps until an episode must end")
    options = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("seed", 0), ("limit", 1)):
        if not least <= getattr(options, name) <= MOST:
            parser.error(f"--{name} must be {least} to {MOST}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    return guarded(partial(command, parse(argv)))


def command(options: argparse.Namespace) -> int:
    """The same, with its errors."""
    cameras = [name for name in options.cameras.split(",") if name]
    examination = Examination(check_task(options.task), cameras, print)
    fits = examination.run(options.episodes, options.seed, options.limit)
    if not fits:
        print("it does not fit yet; docs/reference/custom_environments.md has the rules")
        return 1
    print(f"it fits: --task {examination.task} --env.cameras {','.join(examination.cameras)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
