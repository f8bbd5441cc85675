"""From transitions to rows, and the batches that rows are put into.

See docs/concepts/conventions.md, Rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np
import torch

from dreamer.data.episode import Episode
from dreamer.types import Batch

SCALARS = ("reward", "cost", "is_first", "is_last", "is_terminal")  # one number in each row


def dataset_rows(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The N transitions of E episodes, as a dataset file holds them -> N + E rows, by their name.

    Reward and cost are zero on an episode's first row, the action on its last one.
    """
    bounds = np.append(arrays["episode_starts"], len(arrays["rewards"]))  # (E+1,)
    episodes = len(bounds) - 1
    total = len(arrays["rewards"]) + episodes
    lasts = bounds[1:] + np.arange(episodes)  # row of each episode's last image
    firsts = bounds[:-1] + np.arange(episodes)
    asked = np.delete(np.arange(total), lasts)  # rows whose action was taken, (N,)
    rows = {
        "action": np.zeros((total, arrays["actions"].shape[1]), np.float32),
        **{key: np.zeros(total, np.float32) for key in SCALARS},
    }
    rows["action"][asked] = arrays["actions"]
    rows["reward"][asked + 1] = arrays["rewards"]
    rows["cost"][asked + 1] = arrays["costs"]
    rows["is_first"][firsts] = 1
    rows["is_last"][lasts] = 1
    rows["is_terminal"][asked + 1] = arrays["terminals"]
    return rows


def episode_rows(episode: Episode) -> dict[str, np.ndarray]:
    """The T + 1 rows of one episode of T transitions, by their name, without observations."""
    last = np.arange(episode.length) == episode.length - 1  # (T,)
    return dataset_rows(
        {
            "actions": episode.action,
            "rewards": episode.reward,
            "costs": episode.cost,
            "terminals": last & episode.terminated,
            "episode_starts": np.array([0]),
        }
    )


def empty_batch(
    B: int,
    T: int,
    parts: Mapping[str, np.ndarray | h5py.Dataset],
    action_size: int,
    pinned: bool = False,
) -> Batch:
    """Room for B windows of T rows with observations like `parts`, each (rows, ...).

    Images are uint8, all else float32. `pinned` puts them into page-locked memory, which a GPU
    reads faster.
    """
    obs = {
        name: torch.empty(
            (B, T, *rows.shape[1:]),
            dtype=torch.uint8 if rows.ndim == 4 else torch.float32,
            pin_memory=pinned,
        )
        for name, rows in parts.items()
    }
    scalars = {key: torch.empty(B, T, pin_memory=pinned) for key in SCALARS}
    return Batch(obs, torch.empty(B, T, action_size, pin_memory=pinned), **scalars)
