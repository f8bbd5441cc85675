"""Times of the parts of an update: their methods are wrapped by clocks for a few updates.

Autograd runs what was made last first. So the backward pass enters a part where a gradient arrives
at what the part returned, and leaves it where one arrives at what the part was given.
"""

from __future__ import annotations

import importlib
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch.utils._pytree import tree_map

from dreamer.agent import Agent
from dreamer.optimizer import Optimizer
from dreamer.types import Batch

REST, OPTIMISERS, WORLD_MODEL = "everything else", "optimisers", "rest of the world model"
PARTS = {  # place below the agent -> part; what an agent lacks is passed over
    "world_model.update": WORLD_MODEL,
    "world_model.encoder.stacked": "encoder",
    "world_model.encoder.embed": "encoder",
    "world_model.rssm.observe": "RSSM",
    "world_model.image_losses": "decoder",
    "world_model.head_losses": "heads",
    "policy.update_actor": "actor",
    "policy.rollout_values": "critics on rollouts",
    "policy.reward_critic.returns": "critics on rollouts",
    "policy.cost_critic.returns": "critics on rollouts",
    "policy.critic.returns": "critics on rollouts",
    "policy.reward_critic.update": "critics",
    "policy.cost_critic.update": "critics",
    "policy.critic.update": "critics",
    "policy.reachability.update": "reachability",
}
MODULES_THAT_IMAGINE = ("dreamer.actor_critic", "fosp_ext.actor_critic", "fosp_ext.baselines")


class PartTimes(NamedTuple):
    """Seconds of one part of an update, without the parts within it."""

    name: str
    forward: float
    backward: float


class Clocks:
    """A stack of running parts; time belongs to the innermost one, or to that of the gradient."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._running = [REST]
        self._backward: str | None = None  # the part whose gradient is being computed
        self.seconds: dict[tuple[str, bool], float] = defaultdict(float)  # (part, backward)
        self._last = time.perf_counter()

    def wrapped(self, function: Callable, part: str) -> Callable:
        """The function, its time and that of its gradient counted as that of `part`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._note()
            args, kwargs = self._border((args, kwargs), self._running[-1])
            self._running.append(part)
            result = self._border(function(*args, **kwargs), part)
            self._note()
            self._running.pop()
            return result

        return call

    def wrapped_backward(self, function: Callable) -> Callable:
        """`torch.autograd.grad`: backward time, at first of the part whose optimiser asks."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._note()
            self._backward = self._running[-2]
            result = function(*args, **kwargs)
            self._note()
            self._backward = None
            return result

        return call

    def _border(self, tree: Any, part: str) -> Any:
        """The same values; once a gradient comes back to one of them, time is that of `part`."""

        def watched(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor) and leaf.requires_grad and torch.is_grad_enabled():
                leaf = leaf.view_as(leaf)  # made here, so its turn comes in the order of the parts
                leaf.register_hook(lambda _: self._enter(part))
            return leaf

        return tree_map(watched, tree)

    def _enter(self, part: str) -> None:
        self._note()
        self._backward = part

    def _note(self) -> None:
        self._wait()
        now = time.perf_counter()
        part = self._backward or self._running[-1]
        self.seconds[part, self._backward is not None] += now - self._last
        self._last = now


def measured_parts(
    agent: Agent, batch: Batch, updates: int, wait: Callable[[], None]
) -> list[PartTimes]:
    """Mean seconds of each part of an update, the longest first.

    `wait` returns when the device is done; with it, a GPU loses the overlap of its work, so the sum
    may be longer than an update.
    """
    clocks = Clocks(wait)
    with ExitStack() as stack:
        for place, part in PARTS.items():
            *path, name = place.split(".")
            owner: Any = agent
            for step in path:
                owner = getattr(owner, step, None)
            if hasattr(owner, name):
                wrapped = clocks.wrapped(getattr(owner, name), part)
                stack.enter_context(patch.object(owner, name, wrapped))
        for module in map(importlib.import_module, MODULES_THAT_IMAGINE):
            wrapped = clocks.wrapped(module.imagine, "imagination")
            stack.enter_context(patch.object(module, "imagine", wrapped))
        step = clocks.wrapped(Optimizer.step, OPTIMISERS)
        stack.enter_context(patch.object(Optimizer, "step", lambda self, loss: step(self, loss)))
        grad = clocks.wrapped_backward(torch.autograd.grad)
        stack.enter_context(patch.object(torch.autograd, "grad", grad))
        for _ in range(updates):
            clocks.wrapped(agent.update, REST)(batch)
    names = {name for name, _ in clocks.seconds}
    rows = [
        PartTimes(name, *(clocks.seconds[name, back] / updates for back in (False, True)))
        for name in names
    ]
    return sorted(rows, key=lambda row: -row.forward - row.backward)
