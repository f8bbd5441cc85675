"""Evaluation episodes in processes of their own: one policy step serves all that run together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dreamer.agent import Agent, AgentState
from dreamer.data.episode import VIOLATION
from dreamer.distributions import rows_drawn_by
from dreamer.envs.parallel import ParallelEnvs, StepResult
from dreamer.functional import violates
from dreamer.training.evaluation import EpisodeResult, Moment, Spectator
from dreamer.types import Latent


class PlannedEpisode(NamedTuple):
    """Who plays in which world, and who watches."""

    agent: Agent
    seed: int
    spectator: Callable[[], Spectator] | None = None  # made anew where an episode is begun again


Finished = Callable[[int, EpisodeResult, Spectator | None], None]  # with the number of the episode


class Frame(NamedTuple):
    """An overhead view that was drawn in another process, as a spectator asks an environment."""

    image: np.ndarray

    def render(self) -> np.ndarray:
        """The image, (height, width, 3) uint8."""
        return self.image


@dataclass
class _Running:
    """An episode that is being played in a worker."""

    number: int
    plan: PlannedEpisode
    watch: Spectator | None
    state: AgentState  # (1,)
    chance: torch.Generator
    obs: dict[str, np.ndarray]
    estimates: Mapping[str, float]
    length: int = 0
    score: float = 0.0
    cost: float = 0.0
    violations: int = 0
    success: bool | None = None

    def moment(self) -> Moment:
        """What a spectator is shown."""
        return Moment(self.obs, self.length, self.score, self.cost, dict(self.estimates))

    def add(self, outcome: StepResult, violation: float) -> EpisodeResult | None:
        """Count a step; the totals where it was the last one."""
        self.obs, self.length = outcome.obs, self.length + 1
        self.score, self.cost = self.score + outcome.reward, self.cost + outcome.cost
        self.violations += bool(violates(outcome.cost, violation))
        if outcome.success is not None:
            self.success = bool(self.success or outcome.success)
        if not (outcome.terminated or outcome.truncated):
            return None
        totals = (self.score, self.cost, self.length, self.violations, outcome.terminated)
        return EpisodeResult(self.plan.seed, *totals, self.success)


def play_together(
    envs: ParallelEnvs,
    plans: Sequence[PlannedEpisode],
    device: torch.device,
    finished: Finished,
    violation: float = VIOLATION,
) -> None:
    """Play all episodes with mean actions, as many at a time as there are `envs`.

    `finished` is called as each is over. What an episode leaves to chance is decided by its seed
    alone, as in `run_episode`. A worker that is free takes the next episode, so the same number of
    workers gives the same numbers again; another number puts other rows into one matrix product,
    which rounds differently. An episode whose process dies is begun again. A step violates from the
    cost `violation` on.
    """
    waiting, running = deque(range(len(plans))), dict[int, _Running]()
    while waiting or running:
        _begin(envs, plans, waiting, running, device)
        actions = _choose(running, device)
        _show(envs, running)
        outcomes = envs.step({worker: actions[worker] for worker in running})
        for worker, episode in list(running.items()):
            if worker not in outcomes:  # its process died
                waiting.appendleft(running.pop(worker).number)
                continue
            result = episode.add(outcomes[worker], violation)
            if result is not None:
                del running[worker]
                finished(episode.number, result, episode.watch)


def _begin(
    envs: ParallelEnvs,
    plans: Sequence[PlannedEpisode],
    waiting: deque[int],
    running: dict[int, _Running],
    device: torch.device,
) -> None:
    """Give waiting episodes to free workers."""
    free = [worker for worker in range(len(envs)) if worker not in running]
    given = {worker: waiting.popleft() for worker in free[: len(waiting)]}
    outcomes = envs.reset({worker: plans[number].seed for worker, number in given.items()})
    for worker, number in given.items():
        if worker not in outcomes:
            waiting.appendleft(number)
            continue
        plan = plans[number]
        watch = None if plan.spectator is None else plan.spectator()
        start = plan.agent.initial(1)
        chance = torch.Generator(device).manual_seed(plan.seed)
        running[worker] = _Running(number, plan, watch, start, chance, outcomes[worker].obs, {})


def _choose(running: dict[int, _Running], device: torch.device) -> dict[int, np.ndarray]:
    """The action of each worker, (A,) float32; each agent is asked once."""
    actions = {}
    agents = {id(x.plan.agent): x.plan.agent for x in running.values()}
    for agent in agents.values():
        workers = [worker for worker, x in running.items() if x.plan.agent is agent]
        episodes = [running[worker] for worker in workers]
        obs = {
            name: torch.from_numpy(np.stack([x.obs[name] for x in episodes])).to(device)
            for name in episodes[0].obs
        }
        first = torch.tensor([float(x.length == 0) for x in episodes]).to(device)
        state = _joined([x.state for x in episodes])
        with rows_drawn_by([x.chance for x in episodes]):
            action, state, estimates = agent.act(obs, first, state, explore=False)
        known = {name: values.tolist() for name, values in estimates.items()}
        for row, (worker, episode) in enumerate(zip(workers, episodes, strict=True)):
            actions[worker] = action[row].float().cpu().numpy()
            episode.state = _row(state, row)
            episode.estimates = {name: values[row] for name, values in known.items()}
    return actions


def _show(envs: ParallelEnvs, running: dict[int, _Running]) -> None:
    """Show this moment to whoever watches; all frames are drawn at the same time."""
    watched = [worker for worker, x in running.items() if x.watch is not None]
    for worker, image in (envs.render(watched) if watched else {}).items():
        episode = running[worker]
        assert episode.watch is not None
        episode.watch(Frame(image), episode.moment())


def _joined(states: Sequence[AgentState]) -> AgentState:
    """States of one episode each as that of all."""
    latent = (torch.cat(parts) for parts in zip(*(x.latent for x in states), strict=True))
    return AgentState(Latent(*latent), torch.cat([x.action for x in states]))


def _row(state: AgentState, row: int) -> AgentState:
    """The state of one of N episodes, (1,)."""
    kept = slice(row, row + 1)
    return AgentState(Latent(*(x[kept] for x in state.latent)), state.action[kept])
