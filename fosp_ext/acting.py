"""A trained agent for programs of others: numpy images in, actions in the environment's units out.

agent = fosp_ext.load("agents/point_goal1.pt")
agent.reset()
step = agent.act({"vision": front, "vision_back": back})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import AgentState
from dreamer.data.images import resized
from dreamer.envs.adapter import ImageEnv
from dreamer.errors import UserError
from dreamer.utils import choose_device
from fosp_ext.envs import action_limits, make_run_env
from fosp_ext.run.run_folder import LoadedRun, allow_import, load_run

Bounds = tuple[np.ndarray, np.ndarray]  # what -1 and 1 mean, each (A,)


class Step(NamedTuple):
    """An action and what the agent expects, of one environment, or (N, ...) of N environments.

    An estimate that this agent does not make is None: only FOSP knows a violation probability,
    and behaviour cloning none of the three.
    """

    action: np.ndarray  # (A,) float32, in the environment's own units
    value: float | np.ndarray | None  # discounted reward to come
    cost_value: float | np.ndarray | None  # discounted cost to come
    violation_probability: float | np.ndarray | None  # that a violation will be reached


class ActingAgent:
    """A trained agent and its memory of the episodes that are running; made by `load`."""

    def __init__(self, run: LoadedRun, device: torch.device, bounds: Bounds, source: Path) -> None:
        """`bounds` are the actions of -1 and of 1 in the environment's own units; `source` is where
        the agent was read.
        """
        self.run, self.bounds, self.source = run, bounds, source
        self.device = device
        self._state: AgentState | None = None
        self._rng = torch.Generator().manual_seed(0).get_state()

    @property
    def task(self) -> str:
        """The task that it was trained for."""
        return self.run.info.task

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the images that it sees."""
        return self.run.info.cameras

    def reset(self, seed: int = 0) -> None:
        """Forget all running episodes: the next images are the first of new ones.

        With equal seeds and images, the agent acts equally.
        """
        self._state = None
        self._rng = torch.Generator().manual_seed(seed).get_state()

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        is_first: Sequence[bool] | None = None,
        explore: bool = False,
    ) -> Step:
        """The answer to one image of each camera, (height, width, 3) uint8, or (N, ...) of them.

        Images of another size than the agent's are resized whole. Of N environments, `is_first`
        says in which of them an episode begins with these images. `explore` draws the action
        instead of taking the policy's mean. Missing cameras, other shapes and another N than
        before are a `UserError`.
        """
        single, images = self._images(obs)
        count = len(next(iter(images.values())))
        begins = torch.zeros(count) if is_first is None else torch.tensor(is_first).float()
        if self._state is None:
            self._state, begins = self.run.agent.initial(count), torch.ones(count)
        if begins.shape != (count,) or len(self._state.action) != count:
            before = len(self._state.action)
            raise UserError(
                f"images of {count} environments, is_first of {tuple(begins.shape)}, and {before} "
                "environments before: these must agree; reset() begins anew"
            )
        action, estimates = self._answer(images, begins.to(self.device), explore)
        low, high = self.bounds
        own = (low + (high - low) * (action.double().cpu().numpy() + 1) / 2).astype(np.float32)
        known = {}
        for name in Step._fields[1:]:
            numbers = estimates[name].float().cpu().numpy() if name in estimates else None
            known[name] = float(numbers[0]) if single and numbers is not None else numbers
        return Step(own[0] if single else own, **known)

    def _answer(
        self, images: dict[str, Tensor], begins: Tensor, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions (N, A) in [-1, 1] and estimates, drawn with random numbers of its own."""
        assert self._state is not None
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            torch.set_rng_state(self._rng)
            if cuda:
                torch.cuda.manual_seed(int(torch.randint(2**31, ())))
            action, self._state, estimates = self.run.agent.act(
                images, begins, self._state, explore
            )
            self._rng = torch.get_rng_state()
        return action, estimates

    def _images(self, obs: Mapping[str, np.ndarray]) -> tuple[bool, dict[str, Tensor]]:
        """Whether they are of one environment, and camera -> (N, size, size, 3)."""
        missing = [name for name in self.cameras if name not in obs]
        if missing:
            raise UserError(
                f"no image '{missing[0]}'; this agent sees {', '.join(self.cameras)}, "
                f"it was given {', '.join(obs) or 'nothing'}"
            )
        arrays = {name: np.asarray(obs[name]) for name in self.cameras}
        for name, array in arrays.items():
            if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
                raise UserError(
                    f"image '{name}' must be (height, width, 3) or (N, height, width, 3) uint8, "
                    f"it is {array.shape} {array.dtype}"
                )
        if len({array.shape[:-3] for array in arrays.values()}) > 1:
            raise UserError("the cameras must show the same number of environments")
        single = next(iter(arrays.values())).ndim == 3
        size = self.run.info.size
        batches = {name: array[None] if single else array for name, array in arrays.items()}
        stacked = {name: np.stack([resized(x, size) for x in xs]) for name, xs in batches.items()}
        return single, {name: torch.from_numpy(x).to(self.device) for name, x in stacked.items()}


def load(path: str | Path, device: str = "auto", bounds: Bounds | None = None) -> ActingAgent:
    """The trained agent of a run folder, a checkpoint, or an exported file.

    `bounds` are the lowest and highest action of its environment, (A,) each. Without them those of
    the Safety-Gymnasium robot are taken, or those that its data tell; else a custom environment is
    made to ask it, where `path` lies in a run folder of one's own. What cannot be loaded, and an
    environment that cannot be made, are a `UserError`.
    """
    chosen = choose_device(device)
    run = load_run(path, chosen)
    if bounds is None and run.info.action_bounds is None:
        allow_import(run.info.task, Path(path))
    low, high = (np.asarray(x, np.float64) for x in bounds or own_bounds(run))
    if not low.shape == high.shape == (run.info.action_size,):
        raise UserError(f"the bounds of actions must be two of {run.info.action_size} numbers")
    return ActingAgent(run, chosen, (low, high), Path(path))


def own_bounds(run: LoadedRun) -> Bounds:
    """What actions of -1 and 1 are in the units of the run's environment."""
    limits = action_limits(run.info.task)
    if limits is not None:
        high = np.array(limits) * np.array(run.info.action_scale)
        return -high, high
    if run.info.action_bounds is not None:
        low, high = run.info.action_bounds
        return np.array(low), np.array(high)
    try:
        env = make_run_env(run.info, run.config.env.variant)
    except UserError as error:
        raise UserError(
            f"{error}; where the environment is not at hand, load(path, bounds=(low, high)) tells "
            "the bounds of its actions"
        ) from error
    assert isinstance(env, ImageEnv), "the limits of built-in tasks are known"
    low, high = env.action_bounds
    env.close()
    return np.array(low), np.array(high)
