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
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.data.episode import VIOLATION
from dreamer.envs.contract import (
    cameras_of,
    check_choice,
    choose_vectors,
    read_action_space,
    unused_of,
    vectors_of,
)
from dreamer.envs.loading import LoadedEnv, load_env
from dreamer.errors import UserError, tell_error
from dreamer.signals import answers_signals
from fosp_ext.envs import check_task, env_action_size, is_custom, make_env
from fosp_ext.envs.trial import Row, Seen, Trace, first_difference, play

REPLAYED = 100  # steps played again to see whether a seed decides them
PROBLEMS = ("reset", "step", "images", "vectors", "reward", "cost", "terminated", "truncated")
USE_THE_SEED = "take all chance from self.np_random, after super().reset(seed=seed)"


class Examination:
    """The checks of one environment, reported line by line."""

    def __init__(
        self,
        task: str,
        cameras: Sequence[str],
        report: Callable[[str], None],
        vectors: Sequence[str] = (),
        violation: float = VIOLATION,
        action_repeat: int = 4,
    ) -> None:
        """`cameras` and `vectors` may be empty: then all that the environment has.

        A row violates the constraint if its cost, summed over `action_repeat` steps, is at least
        `violation`.
        """
        self.task, self.cameras, self.report = task, tuple(cameras), report
        self.vectors = tuple(vectors)
        self.violation, self.action_repeat = violation, action_repeat
        self.seen = Seen(self.cameras, {})
        self.fits = True

    def run(self, episodes: int, seed: int, limit: int) -> bool:
        """All checks that can be made; returns whether the environment fits."""
        with self.blamed("environment"), self.opened() as loaded:
            self.ok("environment", f"{type(loaded.env).__name__} can be made")
            self.spaces(loaded.env)
            if self.fits:
                seeds = range(seed, seed + episodes)
                traces = [play(loaded, self.seen, each, limit) for each in seeds]
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
        with self.wrong("vectors"):
            known = vectors_of(observations)
            chosen = choose_vectors(self.vectors or tuple(known), observations)
            self.vectors, self.seen = tuple(chosen), Seen(self.cameras, chosen)
            if chosen:
                self.ok("vectors", ", ".join(f"{name} ({size})" for name, size in chosen.items()))
            for name, kind in unused_of(observations, (*self.cameras, *chosen)).items():
                self.ok("not used", "", f"observation '{name}' ({kind}): nothing learns from it")

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
            self.violations(traces)

    def violations(self, traces: Sequence[Trace]) -> None:
        """Whether a step of the agent could violate the constraint."""
        n = self.action_repeat if is_custom(self.task) else 1  # the others repeat themselves
        costs = [np.array([row.cost or 0.0 for row in trace.rows]) for trace in traces]
        worst = max(np.convolve(each, np.ones(n)).max() for each in costs)
        if 0 < worst < self.violation:
            self.ok(
                "violation",
                "",
                f"{n} steps cost {worst:g} at most, below env.violation {self.violation:g}: none "
                f"would violate the constraint; give --env.violation {worst:g} or less",
            )

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
                "same seed": play(loaded, self.seen, seed, REPLAYED),
                "new instance": play(other, self.seen, seed, REPLAYED),
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
        env = make_env(self.task, self.cameras, vectors=self.vectors)
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
    parser = argparse.ArgumentParser(
        prog="python -m fosp_ext.envs.check",
        description="Check an environment by playing it; say what does not fit.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("task", help="MODULE:NAME, or the name of a built-in task")
    parser.add_argument("--cameras", default="", help="names with commas; none: all there are")
    parser.add_argument("--vectors", default="", help="likewise, low-dimensional observations")
    parser.add_argument(
        "--violation", type=float, default=VIOLATION, help="cost from which on a step violates"
    )
    parser.add_argument("--action-repeat", type=int, default=4, help="steps for each action")
    parser.add_argument("--episodes", type=int, default=3, help="episodes to play")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--limit", type=int, default=10_000, help="steps until an episode must end")
    options = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("seed", 0), ("limit", 1), ("action_repeat", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}")
    return options


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    options = parse(argv)
    cameras, vectors = (
        [name for name in text.split(",") if name] for text in (options.cameras, options.vectors)
    )
    try:
        task = check_task(options.task)
        counts = options.violation, options.action_repeat
        examination = Examination(task, cameras, print, vectors, *counts)
        fits = examination.run(options.episodes, options.seed, options.limit)
    except (UserError, KeyboardInterrupt) as error:
        return tell_error(error)
    if not fits:
        print("it does not fit yet; docs/reference/custom_environments.md has the rules")
        return 1
    shown = f"--env.cameras {','.join(examination.cameras)}"
    if examination.vectors:
        shown += f" --env.vectors {','.join(examination.vectors)}"
    print(f"it fits: --task {examination.task} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
