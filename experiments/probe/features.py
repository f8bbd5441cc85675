"""What a policy could read of an episode: the encoder's output, the state, or its probabilities."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.data.episode import rescaled
from dreamer.data.hdf5 import fingerprint, read_episodes, validate_dataset
from dreamer.errors import UserError
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.progress import Progress
from experiments.diagnose_own import join
from fosp_ext.run.data import run_dataset
from fosp_ext.run.run_folder import LoadedRun

FEATURES = ("encoder", "probabilities", "sample")


def run_data(loaded: LoadedRun) -> Path:
    """The dataset that a run was trained on; any other one in its place is a `UserError`."""
    path = run_dataset(loaded.config)
    if fingerprint(path) != loaded.dataset:
        raise UserError(f"{path} is not the dataset that the run was trained on")
    return path


@torch.no_grad()
def features_of(
    agent: Agent,
    path: Path,
    episodes: Sequence[int],
    device: torch.device,
    scale: Sequence[float],
) -> dict[str, Tensor]:
    """Features (E, R, F) of E episodes with R rows each, on the CPU, by their name.

    `scale` is the agent's action scale, to which recorded actions are converted.

    encoder: the embedding of the row's images alone.
    probabilities: deterministic state and the posterior's class probabilities.
    sample: deterministic state and the one-hot sample, as the policy reads them.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in FEATURES}
    model, recorded = agent.world_model, validate_dataset(path).action_scale
    with Progress("following", len(episodes), "episodes", sys.stderr) as progress:
        for episode in read_episodes(path, episodes):
            store = join([replace(episode, action=rescaled(episode.action, recorded, scale))])
            batch = store.windows([0], len(store)).to(device)
            with fixed_randomness(device), agent.autocast(device):
                embed = model.encoder(batch.obs)
                posterior = model.rssm.observe(embed, batch.action, batch.is_first)
            latent = posterior.latent
            rows = {
                "encoder": embed,
                "probabilities": torch.cat([latent.deter, posterior.post.flatten(-2)], -1),
                "sample": latent.feat(),
            }
            for name, x in rows.items():
                found[name].append(x[0].float().cpu())
            progress.advance()
    return {name: torch.stack(parts) for name, parts in found.items()}


def chosen_episodes(
    count: int, holdout: float, teach: int, test: int
) -> tuple[list[int], list[int]]:
    """Indices of so many training episodes, evenly spread, and of the first held-out ones."""
    held = int(np.ceil(holdout * count))
    spread = np.linspace(0, count - held - 1, min(teach, count - held)).round().astype(int)
    first = count - held
    return np.unique(spread).tolist(), list(range(first, min(first + test, count)))
