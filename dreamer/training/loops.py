"""The training loops. They know nothing of losses: batches in, metrics and checkpoints out."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from types import FrameType

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.data.replay import ReplayStream
from dreamer.training.collector import CollectedEpisode, Collector
from dreamer.training.logger import Logger
from dreamer.types import Batch

Hook = Callable[[int], None]  # called with the number of updates done


@dataclass(frozen=True)
class Every:
    """Updates between two calls of each hook; 0 never calls it."""

    log: int
    heldout: int
    evaluate: int
    save: int


@dataclass(frozen=True)
class Hooks:
    """What happens beside learning."""

    heldout: Hook
    evaluate: Hook
    save: Hook
    updated: Hook  # after each update
    computing: Callable[[int], AbstractContextManager[None]]  # around each update, with its number


@dataclass(frozen=True)
class Budget:
    """How far an online run goes, and how much it learns on the way."""

    agent_steps: int  # of all environments together, those of all processes
    ratio: float  # gradient updates per agent step
    prefill: int = 0  # agent steps before the first update

    def updates(self, agent_steps: int) -> int:
        """Updates due after so many agent steps: 1 + floor(ratio * steps since the prefill).

        In exact arithmetic; none during the prefill.
        """
        since = agent_steps - self.prefill
        return 0 if since < 0 else 1 + math.floor(Fraction(str(self.ratio)) * since)


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

    def agreed(self) -> int:
        """The exit code by now, and the same in all processes, whichever was asked to stop.

        A request that comes during the call is kept for the next one.
        """
        code = distributed.largest(self.exit_code)
        if code:
            self.exit_code = code
        return code

    def _note(self, number: int, _: FrameType | None) -> None:
        self.exit_code = 128 + number


def offline_loop(
    agent: Agent,
    batches: Iterator[Batch],
    done: int,
    updates: int,
    pretrain: int,
    every: Every,
    logger: Logger,
    hooks: Hooks,
) -> int:
    """Learn from `batches` until `updates` are done, `done` of them before this call.

    In the first `pretrain` of all updates the world model learns alone.
    Returns 0, or 128 + the signal's number if Ctrl-C or SIGTERM asked to stop; both save a
    checkpoint. A signal during a hook is answered after one more update. Of several processes, all
    stop after the same update, whichever got the signal.
    """
    with StopRequest() as stop:
        for step in range(done + 1, updates + 1):
            with logger.timer("data"):
                batch = next(batches)
            with logger.timer("update"), hooks.computing(step):
                logger.add(agent.update(batch, update_policy=step > pretrain), prefix="train")
            logger.tick(step)
            stopped = stop.agreed()
            last = step == updates or stopped != 0
            finished = last and not stopped
            _after_update(step, finished, last, every, logger, hooks)
            if last:
                break
    return stop.exit_code


def online_loop(
    agent: Agent,
    collector: Collector,
    stream: ReplayStream,
    device: torch.device,
    keep: Callable[[list[CollectedEpisode], int, int], None],
    done: int,
    budget: Budget,
    every: Every,
    logger: Logger,
    hooks: Hooks,
) -> int:
    """Act and learn in turn until the budget of agent steps is spent; `done` updates came before.

    Update k learns from batch k of `stream`, on `device`; while no batch can be drawn, updates
    wait. `keep` takes the episodes that finished together, the updates done by then and the agent
    steps. Updates that are due come before the next action, so a checkpoint at any update is a
    place to go on from exactly. Returns 0, or 128 + the signal's number if Ctrl-C or SIGTERM asked
    to stop; both save a checkpoint.

    Several processes act and learn in step, each with a collector of its own; their agent steps
    count together. Where an episode finished in any of them, all call `keep`, some with none.
    """
    agent_steps, ready = distributed.totals(collector.agent_steps, int(stream.ready()))
    if agent_steps >= budget.agent_steps and done >= budget.updates(agent_steps):
        return 0
    with StopRequest() as stop:
        stopped = 0
        while not stopped:
            due = budget.updates(agent_steps) if ready == distributed.world_size() else 0
            for step in range(done + 1, due + 1):
                with logger.timer("data"):
                    batch = stream.batch(step, device)
                with logger.timer("update"), hooks.computing(step):
                    logger.add(agent.update(batch), prefix="train")
                logger.tick(step)
                _after_update(step, False, False, every, logger, hooks, agent_steps)
                done, stopped = step, stop.agreed()
                if stopped:
                    break
            if stopped or agent_steps >= budget.agent_steps:
                break
            with logger.timer("play"):
                finished = collector.step()
            agent_steps, ended, asked = distributed.totals(
                collector.agent_steps, len(finished), stop.exit_code
            )
            if ended:
                keep(finished, done, agent_steps)
                (ready,) = distributed.totals(int(stream.ready()))
            if asked:
                stopped = stop.agreed()
        _wrap_up(done, stopped, every, logger, hooks, agent_steps)
    return stop.exit_code


def _after_update(
    step: int,
    finished: bool,
    last: bool,
    every: Every,
    logger: Logger,
    hooks: Hooks,
    env_steps: int | None = None,
) -> None:
    """What is due at this update; where a run is finished, or stops, that is due in any case."""
    hooks.updated(step)
    if _due(step, every.heldout, finished):
        hooks.heldout(step)
    if _due(step, every.evaluate, finished):
        hooks.evaluate(step)
    if _due(step, every.log, last):
        logger.write(step, env_steps)
    if _due(step, every.save, last):
        logger.check_finite()
        hooks.save(step)


def _wrap_up(
    step: int, stopped: int, every: Every, logger: Logger, hooks: Hooks, env_steps: int
) -> None:
    """After the last step: the checkpoint, and a last look unless one was taken just before."""
    last = ((hooks.heldout, every.heldout), (hooks.evaluate, every.evaluate))
    late = [look for look, often in last if not stopped and often and step % often > often // 10]
    for look in late:
        look(step)
    if late or step % every.log:
        logger.write(step, env_steps)
    logger.check_finite()
    hooks.save(step)


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (step % every == 0 or last)
