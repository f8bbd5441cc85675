"""An agent playing in parallel environments: finished episodes out, exact continuation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent, AgentState
from dreamer.data.episode import Episode, observed
from dreamer.envs.parallel import ParallelEnvs, StepResult
from dreamer.errors import NonFiniteError, UserError
from dreamer.types import Latent

POLICY = "agent"  # what the episodes name as the one who played them
DROPPED = "environment {}: its running episode (world seed {}) is dropped, it starts its next one"
DIFFERS = (
    "environment {}: its running episode (world seed {}) came out differently when it was played "
    "again; it is dropped and the environment starts its next one"
)


@dataclass(frozen=True)
class CollectedEpisode:
    """A finished episode and what the policy thought while it played."""

    worker: int
    episode: Episode
    estimates: dict[str, np.ndarray]  # name -> (T,) float32, at the choice of action t


@dataclass
class _Running:
    """An episode so far: the first outcome, then an action, estimates and an outcome per step."""

    seed: int
    outcomes: list[StepResult]  # T+1, the first one is the reset's
    actions: list[np.ndarray] = field(default_factory=list)  # T of (A,)
    estimates: dict[str, list[float]] = field(default_factory=dict)  # name -> T of them

    def over(self) -> bool:
        """Did the last step end it?"""
        return self.outcomes[-1].terminated or self.outcomes[-1].truncated

    def earned(self) -> Tensor:
        """Rewards and costs of the steps, (2, T) float64, as the environment gave them."""
        steps = self.outcomes[1:]
        rows = [[step.reward for step in steps], [step.cost for step in steps]]
        return torch.tensor(rows, dtype=torch.float64)

    def add(self, action: np.ndarray, estimates: dict[str, float], outcome: StepResult) -> None:
        """One more step."""
        self.actions.append(action)
        self.outcomes.append(outcome)
        for name, value in estimates.items():
            self.estimates.setdefault(name, []).append(value)

    def played(self, worker: int) -> CollectedEpisode:
        """The finished episode with its estimates as arrays."""
        columns = {name: np.array(column, np.float32) for name, column in self.estimates.items()}
        return CollectedEpisode(worker, self.episode(), columns)

    def episode(self) -> Episode:
        """The whole episode, in the form in which datasets keep it."""
        reward, cost = self.earned().float().numpy()
        images, vectors = observed([outcome.obs for outcome in self.outcomes])  # (T+1, ...)
        return Episode(
            images=images,
            vectors=vectors,
            action=np.stack(self.actions),  # (T, A)
            reward=reward,
            cost=cost,
            terminated=self.outcomes[-1].terminated,
            policy=POLICY,
            seed=self.seed,
        )

    def record(self) -> dict:
        """What it takes to play it again, and to see that it came out the same."""
        return {
            "seed": self.seed,
            "action": torch.from_numpy(np.stack(self.actions)),  # (T, A)
            "earned": self.earned(),  # (2, T)
            "estimates": {name: list(column) for name, column in self.estimates.items()},
        }

    @classmethod
    def again(cls, record: dict, outcomes: list[StepResult]) -> _Running | None:
        """The recorded episode with replayed outcomes; None if they are not the recorded ones."""
        estimates = {name: list(column) for name, column in record["estimates"].items()}
        running = cls(record["seed"], outcomes, list(record["action"].numpy()), estimates)
        same = not running.over() and torch.equal(running.earned(), record["earned"])
        return running if same else None


class Collector:
    """Plays an agent, exploring, in every environment at once, one action per `step`.

    Episode k of worker w happens in a world whose seed depends on `seed`, w and k alone. The
    actions are drawn from torch's global generator. An episode whose worker died is dropped.
    """

    def __init__(
        self,
        envs: ParallelEnvs,
        agent: Agent,
        seed: int,
        device: torch.device,
        warn: Callable[[str], None],
    ) -> None:
        """`device` holds the agent; `warn` hears of an episode that cannot be continued."""
        self._envs, self._agent, self._seed = envs, agent, seed
        self._device, self._warn = device, warn
        self.agent_steps = 0  # actions taken in all its environments together
        self._numbers = [0] * len(envs)  # of each worker's next episode
        self._running: list[_Running | None] = [None] * len(envs)
        self._state = agent.initial(len(envs))

    def step(self) -> list[CollectedEpisode]:
        """One action in every environment; returns the episodes that ended with it."""
        self._start_missing()
        actions, estimates = self._act()
        outcomes = self._envs.step(dict(enumerate(actions)))
        self.agent_steps += len(outcomes)
        ended = []
        for worker, running in enumerate(self._running):
            if running is None or worker not in outcomes:  # it died
                self._running[worker] = None
                continue
            running.add(actions[worker], estimates[worker], outcomes[worker])
            if running.over():
                ended.append(running.played(worker))
                self._running[worker] = None
        return ended

    def state_dict(self) -> dict:
        """Everything that a later driver needs to go on: plain types and tensors on the CPU.

        Of a running episode it has no images, but the actions that make them again.
        """
        latent, action = self._state
        return {
            "agent_steps": self.agent_steps,
            "numbers": list(self._numbers),
            "running": [running and running.record() for running in self._running],
            "latent": [part.detach().cpu() for part in latent],
            "action": action.cpu(),
        }

    def load_state_dict(self, state: dict, replay: bool = True) -> None:
        """Go on from `state`: play the running episodes again with their recorded actions.

        Without `replay` they are dropped, with a warning, and every environment starts a new one.
        One that does not earn exactly the recorded rewards and costs is dropped, with a warning.
        A state of another number of environments is a `UserError`.
        """
        saved, have = len(state["numbers"]), len(self._envs)
        if saved != have:
            raise UserError(f"the saved run plays {saved} environments at once, this one {have}")
        self.agent_steps, self._numbers = state["agent_steps"], list(state["numbers"])
        latent = Latent(*(part.to(self._device) for part in state["latent"]))
        self._state = AgentState(latent, state["action"].to(self._device))
        records = {worker: one for worker, one in enumerate(state["running"]) if one is not None}
        self._running = [None] * have
        if not replay:
            for worker, one in records.items():
                self._warn(DROPPED.format(worker, one["seed"]))
            return
        replayed = self._envs.replay(
            {worker: (one["seed"], one["action"].numpy()) for worker, one in records.items()}
        )
        for worker, outcomes in replayed.items():
            self._running[worker] = _Running.again(records[worker], outcomes)
            if self._running[worker] is None:
                self._warn(DIFFERS.format(worker, records[worker]["seed"]))

    def _start_missing(self) -> None:
        """A new episode for every worker without one, and another if it dies in the reset."""
        while missing := [w for w, running in enumerate(self._running) if running is None]:
            seeds = {worker: self._next_seed(worker) for worker in missing}
            for worker, outcome in self._envs.reset(seeds).items():
                self._running[worker] = _Running(seeds[worker], [outcome])

    def _next_seed(self, worker: int) -> int:
        """The world seed of the worker's next episode, below 2**31."""
        sequence = np.random.SeedSequence([self._seed, worker, self._numbers[worker]])
        self._numbers[worker] += 1
        return int(sequence.generate_state(1)[0] >> 1)

    def _act(self) -> tuple[np.ndarray, list[dict[str, float]]]:
        """Actions (N, A) float32 for the newest observations of all workers, and its estimates."""
        running = [one for one in self._running if one is not None]  # all of them, here
        newest = [one.outcomes[-1].obs for one in running]
        rows = {name: np.stack([obs[name] for obs in newest]) for name in newest[0]}  # (N, ...)
        obs = {name: torch.from_numpy(x).to(self._device) for name, x in rows.items()}
        is_first = torch.tensor([float(not one.actions) for one in running], device=self._device)
        action, self._state, estimates = self._agent.act(obs, is_first, self._state, explore=True)
        columns = [action.float(), *(x.float().unsqueeze(1) for x in estimates.values())]
        numbers = torch.cat(columns, 1).cpu().numpy()  # (N, A + estimates): waits once
        if not np.isfinite(numbers).all():
            names = ["action"] * action.shape[1] + list(estimates)
            broken = np.unique(np.array(names)[~np.isfinite(numbers).all(0)])
            raise NonFiniteError(f"not finite while acting: {', '.join(broken)}")
        actions, values = np.split(numbers, [action.shape[1]], 1)
        return actions, [dict(zip(estimates, row, strict=True)) for row in values.tolist()]
