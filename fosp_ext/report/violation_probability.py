"""Forecasts of the reachability estimate on held-out episodes (docs/reference/report.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

import numpy as np
import torch

from dreamer.agent import Agent
from dreamer.data.hdf5 import fingerprint
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.functional import violates
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.progress import Progress
from fosp_ext.report.runs import Run
from fosp_ext.run.data import run_dataset
from fosp_ext.run.run_folder import load_run
from fosp_ext.run.warnings import LOOKAHEAD, follows

MOST_EPISODES = 100  # held-out ones that are looked at
BATCH_ROWS = 2048  # of all episodes of a batch


@dataclass(frozen=True)
class Forecast:
    """Estimates and outcomes at the n rows of episodes whose next steps are known, each (n,)."""

    updates: int  # of the checkpoint
    episodes: int
    estimate: np.ndarray
    outcome: np.ndarray  # bool: did a violation follow within LOOKAHEAD agent steps?


def forecast(run: Run, device: torch.device, stream: TextIO) -> Forecast | str:
    """Forecasts of the newest checkpoint on held-out rows, or the reason for having none."""
    share = run.config.dataset.holdout
    if not share:
        return "dataset.holdout is 0: no episode is held out"
    checkpoint = Checkpoint(run.path / "checkpoints", 1).latest()
    if checkpoint is None:
        return "it has no checkpoint"
    path = run_dataset(run.config)
    if not path.exists():
        return f"its dataset {path} is not there"
    try:
        loaded = load_run(checkpoint, device)
        if fingerprint(path) != loaded.dataset:
            return f"{path} is not the file it was trained on"
        _, heldout = RowStore.open(path, "disk", share)
        assert heldout is not None, "its share is above 0"
    except UserError as error:
        return str(error)
    violation = run.config.env.violation
    return forecast_episodes(loaded.agent, heldout, loaded.updates, violation, device, stream)


def forecast_episodes(
    agent: Agent,
    heldout: RowStore,
    updates: int,
    violation: float,
    device: torch.device,
    stream: TextIO,
) -> Forecast | str:
    """The agent's p at every row of each episode, from its first row on, with the outcomes.

    Of more than `MOST_EPISODES`, so many are taken, evenly spread. A row violates from the cost
    `violation` on.
    """
    firsts = np.flatnonzero(heldout.small("is_first"))
    bounds = np.stack([firsts, np.append(firsts[1:], len(heldout))], 1)  # (episodes, 2)
    chosen = np.linspace(0, len(bounds) - 1, min(len(bounds), MOST_EPISODES)).round().astype(int)
    bounds = bounds[chosen]
    batch = max(1, BATCH_ROWS // int(np.diff(bounds).max()))
    estimates, outcomes = [], []
    with Progress("estimating violation probability", len(bounds), "episodes", stream) as progress:
        for part in np.split(bounds, range(batch, len(bounds), batch)):
            found = violation_probabilities(agent, heldout, part, device)
            if found is None:
                return "the agent has no reachability estimate"
            for (begin, end), p in zip(part, found, strict=True):
                violating = violates(heldout.small("cost")[begin:end], violation)
                following, known = follows(violating, LOOKAHEAD)
                estimates.append(p[known])
                outcomes.append(following[known])
            progress.advance(len(part))
    estimate, outcome = np.concatenate(estimates), np.concatenate(outcomes)
    if not len(estimate):
        return f"no held-out episode is longer than {LOOKAHEAD} steps"
    return Forecast(updates, len(bounds), estimate, outcome)


@torch.no_grad()
def violation_probabilities(
    agent: Agent, store: RowStore, bounds: np.ndarray, device: torch.device
) -> list[np.ndarray] | None:
    """p at the rows of each of B episodes, (T,); None where the policy has no estimate.

    Row of `bounds` (B, 2): the first row of an episode, and the one after its last.
    """
    longest = int(np.diff(bounds).max())
    starts = np.minimum(bounds[:, 0], len(store) - longest)  # an episode begins anew in a window
    batch = store.windows(starts, longest).to(device)
    model = agent.world_model
    with fixed_randomness(device), agent.autocast(device):
        posterior = model.rssm.observe(model.encoder(batch.obs), batch.action, batch.is_first)
        latent = model.rssm.readable(posterior.latent, posterior.post)
        estimates = agent.policy.estimates(latent.feat())
    p = estimates.get("violation_probability")
    if p is None:
        return None
    rows = zip(p.float().cpu().numpy(), bounds - starts[:, None], strict=True)
    return [row[begin:end] for row, (begin, end) in rows]
