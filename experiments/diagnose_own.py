"""The part of `experiments.diagnose` that plays episodes with the policy of the run.

A model can be right about recorded episodes and wrong about those of its own policy, which was
trained on imagined rollouts and may exploit errors of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from dreamer.agent import Agent
from dreamer.data.episode import Episode
from dreamer.data.rows import episode_rows
from dreamer.data.store import RowStore
from dreamer.training.collector import POLICY
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.evaluation import run_episode
from dreamer.training.progress import Progress
from dreamer.types import Latent
from experiments.diagnose_recorded import (
    HORIZON,
    EpisodeView,
    cost_head,
    episode_bounds,
    forecast,
    start_rows,
    view_episode,
)
from fosp_ext.envs import make_run_env
from fosp_ext.run.run_folder import LoadedRun
from fosp_ext.world_model import SafeWorldModel

EPISODES = 5  # to play
FIRST_SEED = 3000  # of their worlds; evaluations have others


class Recorder(gymnasium.Wrapper):
    """Environment wrapper that records the running episode."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin a new episode; the recording of the last one is dropped."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._seed, self._frames, self._ended = seed or 0, [obs], False
        self._actions, self._rewards, self._costs = [], [], []
        return obs, info

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(obs)
        self._actions.append(action)
        self._rewards.append(reward)
        self._costs.append(info["cost"])
        self._ended = bool(terminated)
        return obs, reward, terminated, truncated, info

    def episode(self) -> Episode:
        """The steps since the last reset."""
        names = self._frames[0]
        return Episode(
            images={name: np.stack([frame[name] for frame in self._frames]) for name in names},
            action=np.stack(self._actions).astype(np.float32),  # (T, A)
            reward=np.array(self._rewards, np.float32),
            cost=np.array(self._costs, np.float32),
            terminated=self._ended,
            policy=POLICY,
            seed=self._seed,
        )


def play_own(loaded: LoadedRun, variant: str, count: int, device: torch.device) -> list[Episode]:
    """So many episodes with the mean action, in the worlds of fixed seeds."""
    env, played = Recorder(make_run_env(loaded.info, variant)), []
    with Progress("playing", count, "episodes", sys.stderr) as progress:
        for seed in range(FIRST_SEED, FIRST_SEED + count):
            run_episode(loaded.agent, env, seed, device)
            played.append(env.episode())
            progress.advance()
    env.close()
    return played


def join(episodes: Sequence[Episode]) -> RowStore:
    """Episodes as the rows of a dataset, one after the other."""
    rows = [episode_rows(episode) for episode in episodes]
    small = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
    parts = [episode.images for episode in episodes]
    images = {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
    vectors = {
        name: np.concatenate([episode.vectors[name] for episode in episodes])
        for name in episodes[0].vectors
    }
    return RowStore(Path("own episodes"), images, small, vectors, 0)


def own_episodes(
    agent: Agent, episodes: Sequence[Episode], violation: float, device: torch.device
) -> dict[str, float]:
    """Means of the episodes, and the agent's predictions on them."""
    store = join(episodes)
    views = [view_episode(agent, store, bounds, device) for bounds in episode_bounds(store)]
    return {
        "episodes": float(len(episodes)),
        "return": float(np.mean([episode.score for episode in episodes])),
        "cost": float(np.mean([episode.total_cost for episode in episodes])),
        **cost_head(views, violation),
        **seen_costs(views),
        **forecast(agent, store, device),
        **imagination(agent, store, device),
    }


def seen_costs(views: Sequence[EpisodeView]) -> dict[str, float]:
    """Mean cost of a step, and the cost head's mean prediction from posterior states.

    Nothing where there is no cost head.
    """
    if "cost" not in views[0].estimates:
        return {}
    guess = np.concatenate([view.estimates["cost"][1:] for view in views])  # no cost in a first row
    truth = np.concatenate([view.cost[1:] for view in views])
    return {"cost per step": float(truth.mean()), "predicted cost per step": float(guess.mean())}


@torch.no_grad()
def imagination(agent: Agent, store: RowStore, device: torch.device) -> dict[str, float]:
    """Mean reward and cost of HORIZON imagined steps, and of the recorded ones from the same rows.

    The rollout takes the mean action. No costs where the model has no cost head; empty where no
    episode is long enough.
    """
    model = agent.world_model
    kinds = ("cost", "reward") if isinstance(model, SafeWorldModel) else ("reward",)
    imagined, real = ({kind: [] for kind in kinds} for _ in range(2))
    for begin, end in episode_bounds(store):
        batch = store.windows([begin], end - begin).to(device)
        rows = start_rows(end - begin, HORIZON, device)  # (N,)
        if not len(rows):
            continue
        with fixed_randomness(device), agent.autocast(device):
            state = Latent(*(x[0, rows] for x in model.follow(batch)))
            for k in range(1, HORIZON + 1):
                action, _ = agent.policy.act(model, state, explore=False)
                state = model.rssm.img_step(state, action)
                predicted = model.predict(state.feat())
                for kind in kinds:
                    imagined[kind].append(getattr(predicted, kind).float().cpu().numpy())
                    real[kind].append(getattr(batch, kind)[0, rows + k].cpu().numpy())
    return {
        f"{name} {kind} per step": float(np.concatenate(values[kind]).mean())
        for kind in kinds
        for name, values in (("imagined", imagined), ("real", real))
        if values[kind]
    }
