"""The training loops. They know nothing of losses: batches in, metrics and checkpoints out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction

import torch

from dreamer import distributed, signals
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
    missed: Hook = lambda step: None  # before a save: looks due at this update were given up


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
    """Notes the signals of dreamer/signals.py, so that a run can end at a safe point.

    Use as a context.
    """

    def __init__(self) -> None:
        self._code = 0

    def __enter__(self) -> StopRequest:
        self._block = ExitStack()
        self._block.enter_context(signals.answered())
        self._block.enter_context(signals.deferred(then_raise=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._code = self.exit_code
        self._block.close()

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal that came, here or in another process; 0 before that."""
        number = signals.requested()
        return self._code or (128 + number if number else 0)

    def agreed(self) -> int:
        """The exit code by now, and the same in all processes, whichever was asked to stop.

        A request that comes during the call is kept for the next one.
        """
        code = distributed.largest(self.exit_code)
        self._code = self._code or code
        return code


def offline_loop(
    agent: Agent,
    batches: Iterator[Batch],
    done: int,
    updates: int,
    pretrain: int,
    freeze: bool,
    every: Every,
    logger: Logger,
    hooks: Hooks,
    missed: bool = False,
) -> int:
    """Learn from `batches` until `updates` are done, `done` of them before this call.

    In the first `pretrain` of all updates the world model learns alone; then the policy learns
    beside it, or with `freeze` alone. `missed`: the looks that were due at the last update before
    this call come first.
    Returns 0, or 128 + the number of a signal that asked to stop, after which a checkpoint was
    saved; a look is given up for it. Of several processes, all stop after the same update,
    whichever got the signal.
    """
    with StopRequest() as stop:
        beside = _Beside(every, logger, hooks, stop)
        if missed and beside.catch_up(done, done == updates):
            return stop.exit_code
        for step in range(done + 1, updates + 1):
            with logger.timer("data"):
                batch = next(batches)
            begun = step > pretrain
            with logger.timer("update"), hooks.computing(step):
                learned = agent.update(batch, begun, update_model=not (begun and freeze))
                logger.add(learned, prefix="train")
            logger.tick(step)
            stopped = beside.look(step, step == updates)
            last = step == updates or stopped != 0
            beside.keep(step, last)
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
    missed: bool = False,
) -> int:
    """Act and learn in turn until the budget of agent steps is spent; `done` updates came before.

    Update k learns from batch k of `stream`, on `device`; while no batch can be drawn, updates
    wait. `keep` takes the episodes that finished together, the updates done by then and the agent
    steps. Updates that are due come before the next action, so a checkpoint at any update is a
    place to go on from exactly. `missed` and the result are those of `offline_loop`.

    Several processes act and learn in step, each with a collector of its own; their agent steps
    count together. Where an episode finished in any of them, all call `keep`, some with none.
    """
    agent_steps, ready = distributed.totals(collector.agent_steps, int(stream.ready()))
    spent = agent_steps >= budget.agent_steps and done >= budget.updates(agent_steps)
    if spent and not missed:
        return 0
    with StopRequest() as stop:
        beside = _Beside(every, logger, hooks, stop)
        stopped = beside.catch_up(done, spent, agent_steps) if missed else 0
        if stopped or spent:
            return stop.exit_code
        while not stopped:
            due = budget.updates(agent_steps) if ready == distributed.world_size() else 0
            for step in range(done + 1, due + 1):
                with logger.timer("data"):
                    batch = stream.batch(step, device)
                with logger.timer("update"), hooks.computing(step):
                    logger.add(agent.update(batch), prefix="train")
                logger.tick(step)
                done, stopped = step, beside.look(step)
                beside.keep(step, False, agent_steps)
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
        beside.wrap_up(done, stopped, agent_steps)
    return stop.exit_code


class _Beside:
    """What happens beside learning, where it is due."""

    def __init__(self, every: Every, logger: Logger, hooks: Hooks, stop: StopRequest) -> None:
        self._every, self._logger, self._hooks, self._stop = every, logger, hooks, stop
        self._looks = ((hooks.heldout, every.heldout), (hooks.evaluate, every.evaluate))
        self._missed = False  # were looks due at the newest update, and not all taken?

    def look(self, step: int, finished: bool = False) -> int:
        """After an update: the looks that are due; all of them where the run is `finished`.

        A request to stop ends them. Returns its exit code, the same in all processes.
        """
        self._hooks.updated(step)
        stopped = self._stop.agreed()
        finished = finished and not stopped
        due = [look for look, often in self._looks if _due(step, often, finished)]
        self._missed = bool(due and stopped)
        if due and not stopped:
            self._take(due, step)
            stopped = self._stop.agreed()
        return stopped

    def keep(self, step: int, last: bool, env_steps: int | None = None) -> None:
        """Metrics and a checkpoint, where due; both at the `last` update before the run stops."""
        if _due(step, self._every.log, last):
            self._logger.write(step, env_steps)
        if _due(step, self._every.save, last):
            self._save(step)

    def wrap_up(self, step: int, stopped: int, env_steps: int) -> None:
        """After the last step: the checkpoint, and late looks unless there was one just before."""
        late = [
            look
            for look, often in self._looks
            if not stopped and often and step % often > often // 10
        ]
        if late:
            self._take(late, step)
        if late or step % self._every.log:
            self._logger.write(step, env_steps)
        self._save(step)

    def catch_up(self, step: int, finished: bool, env_steps: int | None = None) -> int:
        """The looks that an earlier start missed at this update; returns as `look` does."""
        due = [look for look, often in self._looks if _due(step, often, finished)]
        self._take(due, step)
        stopped = self._stop.agreed()
        self._logger.write(step, env_steps)
        self._save(step)
        return stopped

    def _take(self, looks: Sequence[Hook], step: int) -> None:
        try:
            for look in looks:
                signals.check()
                look(step)
        except signals.StopSignal:
            self._missed = True

    def _save(self, step: int) -> None:
        self._logger.check_finite()
        if self._missed:
            self._hooks.missed(step)
        self._hooks.save(step)


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (step % every == 0 or last)
