"""Vectorised environments, each in a process of its own that is restarted once if it dies."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamer.envs.closing import close
from dreamer.envs.worker import (
    end_with_parent,
    ignore_stop_signals,
    one_thread_each,
    stop_signals_blocked,
)
from dreamer.errors import UserError

GRACE_SECONDS = 5.0  # a process has so long to close its environment before it is killed
HUNG_UP = (EOFError, OSError)  # what a pipe raises when the process at its other end is gone


class StepResult(NamedTuple):
    """The result of a reset or a step of an environment."""

    obs: dict[str, np.ndarray]  # camera -> (size, size, 3) uint8, vector -> (D,) float32
    reward: float  # 0 for a reset
    cost: float  # `info["cost"]` of the step; 0 for a reset
    terminated: bool
    truncated: bool
    success: bool | None = None  # `info["success"]` of the step; None: there is no word of it


class _Reply(NamedTuple):
    """The reply of a worker process: a value, or one of the two other fields."""

    value: Any = None
    refusal: UserError | None = None  # raised in the parent as it is
    failure: str = ""  # why the process is lost


class ParallelEnvs:
    """`count` environments, numbered from 0, each made by `make` in a spawned process.

    Each call hands all its workers their work before it waits for any of them. Where a process
    dies, or its environment raises something that is no `UserError`, the worker is missing in the
    result of the call: `warn` gets a line, and the worker has a new process and environment, which
    needs a `reset`. A second time for the same worker is a `UserError`.

    Use it as a context. The processes leave Ctrl-C, SIGTERM and SIGHUP to the parent and end with
    it, however it ends. `make` must be picklable.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env], count: int, warn: Callable[[str], None]
    ) -> None:
        """Wait until all environments are made; one that cannot be made is a `UserError`."""
        self._make, self._warn = make, warn
        self._workers: dict[int, _Worker] = {}
        self._restarted: set[int] = set()
        atexit.register(self.close)  # Python waits for child processes before it ends
        try:
            self._start(range(count))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of environments."""
        return len(self._workers)

    def __enter__(self) -> ParallelEnvs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, seeds: dict[int, int]) -> dict[int, StepResult]:
        """Begin an episode in these workers, each in the world of its seed."""
        return self._ask("reset", {index: (seed,) for index, seed in seeds.items()})

    def step(self, actions: dict[int, np.ndarray]) -> dict[int, StepResult]:
        """One action, (A,) float32 in [-1, 1], in each of these workers."""
        return self._ask("step", {index: (action,) for index, action in actions.items()})

    def render(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        """The overhead view of each of these workers' environments, an image for people."""
        return self._ask("render", dict.fromkeys(indices, ()))

    def replay(self, recorded: dict[int, tuple[int, np.ndarray]]) -> dict[int, list[StepResult]]:
        """Seed and actions (T, A) of an episode -> the results of its reset and its T steps.

        There are fewer than T + 1 only where the episode is over sooner.
        """
        return self._ask("replay", recorded)

    def close(self) -> None:
        """End all processes; one that does not end by itself in a few seconds is killed."""
        workers, self._workers = self._workers, {}
        _end(workers.values())
        atexit.unregister(self.close)

    def _ask(self, method: str, arguments: dict[int, tuple]) -> dict[int, Any]:
        """Call a method of `_Environment` in these workers; lost workers are started again."""
        values, failures = self._exchange(method, arguments)
        for index, reason in failures.items():
            if index in self._restarted:
                raise UserError(
                    f"environment {index} failed for the second time, and is restarted only once: "
                    f"{reason}"
                )
            self._restarted.add(index)
            self._warn(
                f"environment {index} failed: {reason}; its episode is dropped and its process "
                "restarted"
            )
        if failures:
            _end([self._workers[index] for index in failures])
            self._start(failures)
        return values

    def _start(self, indices: Iterable[int]) -> None:
        """New processes for these workers; wait until they have made their environments."""
        with one_thread_each(), stop_signals_blocked():
            for index in indices:
                self._workers[index] = _Worker(self._make)
        _, failures = self._exchange("make", dict.fromkeys(indices, ()))
        for index, reason in failures.items():
            raise UserError(f"environment {index} cannot be made: {reason}")

    def _exchange(
        self, method: str, arguments: dict[int, tuple]
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Send to all, then wait for all. Returns values, and the reasons of failures."""
        for index, each in arguments.items():
            self._workers[index].send(method, each)
        replies = {index: self._workers[index].receive() for index in arguments}
        for reply in replies.values():
            if reply.refusal is not None:
                raise reply.refusal
        values = {index: reply.value for index, reply in replies.items() if not reply.failure}
        return values, {k: reply.failure for k, reply in replies.items() if reply.failure}


class _Worker:
    """A process, seen from the parent."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        spawn = multiprocessing.get_context("spawn")  # a forked OpenGL context would not work
        self.pipe, other_end = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(make, other_end))
        self.process.start()
        other_end.close()  # so that the pipe ends with the process

    def send(self, method: str, arguments: tuple) -> None:
        """Hand over work. That a process is gone shows when its reply is received."""
        with contextlib.suppress(*HUNG_UP):
            self.pipe.send((method, arguments))

    def receive(self) -> _Reply:
        """Wait for the reply, or for the end of the process."""
        try:
            return self.pipe.recv()
        except HUNG_UP:
            self.process.join(GRACE_SECONDS)
            return _Reply(failure=_describe_end(self.process.exitcode))


class _Environment:
    """An environment in its own process. The parent asks for the methods by name."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._make = make
        self._env: gymnasium.Env | None = None

    def make(self) -> None:
        self._env = self._make()

    @property
    def env(self) -> gymnasium.Env:
        assert self._env is not None, "make comes first"
        return self._env

    def reset(self, seed: int) -> StepResult:
        obs, _ = self.env.reset(seed=seed)
        return StepResult(_copied(obs), 0.0, 0.0, False, False)

    def step(self, action: np.ndarray) -> StepResult:
        obs, reward, terminated, truncated, info = self.env.step(action)
        ends = bool(terminated), bool(truncated)
        success = bool(info["success"]) if "success" in info else None
        return StepResult(_copied(obs), float(reward), float(info["cost"]), *ends, success)

    def render(self) -> np.ndarray:
        return np.array(self.env.render())

    def replay(self, seed: int, actions: np.ndarray) -> list[StepResult]:
        outcomes = [self.reset(seed)]
        for action in actions:  # (A,)
            if outcomes[-1].terminated or outcomes[-1].truncated:
                break
            outcomes.append(self.step(action))
        return outcomes

    def close(self) -> None:
        if self._env is not None:
            close(self._env)


def _serve(make: Callable[[], gymnasium.Env], pipe: Connection) -> None:
    """Main loop of a worker process: serve calls until the parent hangs up or something fails."""
    ignore_stop_signals()
    end_with_parent()
    environment, reply = _Environment(make), _Reply()
    with contextlib.closing(environment), contextlib.suppress(*HUNG_UP):
        while not reply.failure:
            method, arguments = pipe.recv()
            reply = _call(environment, method, arguments)
            pipe.send(reply)


def _call(environment: _Environment, method: str, arguments: tuple) -> _Reply:
    try:
        return _Reply(value=getattr(environment, method)(*arguments))
    except UserError as error:
        return _Reply(refusal=error)
    except Exception as error:  # of the environment: whatever it is, the parent goes on
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return _Reply(failure=f"{type(error).__name__}: {text} ({where})")


def _copied(obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies: an environment may draw its next images into the same memory."""
    return {name: np.array(part) for name, part in obs.items()}


def _end(workers: Iterable[_Worker]) -> None:
    """Hang up, give the processes time to close their environments, kill those that go on."""
    for worker in workers:
        worker.pipe.close()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()


def _describe_end(exitcode: int | None) -> str:
    """Why a process is gone, from its exit code; negative is a signal."""
    if exitcode == -signal.SIGKILL:
        return "its process was killed, perhaps for lack of memory"
    if exitcode is not None and exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with exit code {exitcode}"
