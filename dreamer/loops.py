"""The training loop. It knows nothing of losses: batches in, metrics and checkpoints out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from dreamer.agent import Agent
from dreamer.logger import Logger
from dreamer.types import Batch

Hook = Callable[[int], None]  # called with the number of updates done


@dataclass(frozen=True)
class Every:
    """Updates between two calls of each hook; 0 never calls it."""

    log: int
    report: int
    evaluate: int
    save: int


@dataclass(frozen=True)
class Hooks:
    """What happens beside learning."""

    report: Hook
    evaluate: Hook
    save: Hook


class StopRequest:
    """Notes Ctrl-C and SIGTERM, so that a run can end at a safe point. Use as a context."""

    def __init__(self) -> None:
        self.exit_code = 0

    def __enter__(self) -> StopRequest:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.exit_code = 128 + number


def offline_loop(
    agent: Agent,
    batches: Iterator[Batch],
    done: int,
    updates: int,
    every: Every,
    logger: Logger,
    hooks: Hooks,
) -> int:
    """Learn from `batches` until `updates` are done, `done` of them before this call.

    Returns 0, or 128 + the signal's number if Ctrl-C or SIGTERM asked to stop; both save a
    checkpoint. A signal during a hook is answered after one more update.
    """
    with StopRequest() as stop:
        for step in range(done + 1, updates + 1):
            with logger.timer("data"):
                batch = next(batches)
            with logger.timer("update"):
                logger.add(agent.update(batch), prefix="train")
            logger.tick(step)
            last = step == updates or stop.exit_code != 0
            if _due(step, every.report, last and not stop.exit_code):
                hooks.report(step)
            if _due(step, every.evaluate, last and not stop.exit_code):
                hooks.evaluate(step)
            if _due(step, every.log, last):
                logger.write(step)
            if _due(step, every.save, last):
                logger.check_finite()
                hooks.save(step)
            if last:
                break
    return stop.exit_code


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (step % every == 0 or last)
