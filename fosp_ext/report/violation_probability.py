"""The reachability estimate of a run, set against what held-out episodes show.

See docs/reference/report.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TextIO

import numpy as np
import torch

from dreamer.agent import Agent
from dreamer.data.hdf5 import fingerprint
from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.progress import Progress
from dreamer.types import VIOLATION
from fosp_ext.report.runs import Run
from fosp_ext.run.data import dataset_path
from fosp_ext.run.run_folder import load_run
from fosp_ext.run.warnings import LOOKAHEAD, follows


@dataclass(frozen=True)
class Forecast:
    """Estimates at the rows of held-out episodes whose next steps are known, each (n,)."""

    updates: int  # of the checkpoint that was asked
    episodes: int
    estimate: np.ndarray
    outcome: np.ndarray  # bool: did a violation follow within LOOKAHEAD agent steps?


def forecast(run: Run, device: torch.device, stream: TextIO) -> Forecast | str:
    """Ask the newest checkpoint about every held-out row; a reason where that cannot be done."""
    share = run.config.dataset.holdout
    if not share:
        return "dataset.holdout is 0: no episode is held out"
    checkpoint = Checkpoint(run.path / "checkpoints", 1).latest()
    if checkpoint is None:
        return "it has no checkpoint"
    path = dataset_path(run.config)
    if not path.exists():
        return f"its dataset {path} is not there"
    try:
        if fingerprint(path) != Checkpoint.load(checkpoint).get("dataset"):
            return f"{path} is not the file it was trained on"
        loaded = load_run(checkpoint, device)
        _, heldout = RowStore.open(path, "disk", share)
    except UserError as error:
        return str(error)
    return ask(loaded.agent, heldout, loaded.updates, device, stream)


def ask(
    agent: Agent, heldout: RowStore, updates: int, device: torch.device, stream: TextIO
) -> Forecast | str:
    """The agent's p at every row of each episode, from its first row on, and what followed."""
    firsts = np.flatnonzero(heldout.small("is_first"))
    bounds = np.append(firsts, len(heldout))
    estimates, outcomes = [], []
    with Progress("estimating violation probability", len(firsts), "episodes", stream) as progress:
        for begin, end in itertools.pairwise(bounds):
            violation_probability = episode_violation_probability(
                agent, heldout, int(begin), int(end), device
            )
            if violation_probability is None:
                return "the agent has no reachability estimate"
            following, known = follows(heldout.small("cost")[begin:end] >= VIOLATION, LOOKAHEAD)
            estimates.append(violation_probability[known])
            outcomes.append(following[known])
            progress.advance()
    estimate, outcome = np.concatenate(estimates), np.concatenate(outcomes)
    if not len(estimate):
        return f"no held-out episode is longer than {LOOKAHEAD} steps"
    return Forecast(updates, len(firsts), estimate, outcome)


@torch.no_grad()
def episode_violation_probability(
    agent: Agent, store: RowStore, begin: int, end: int, device: torch.device
) -> np.ndarray | None:
    """p at rows begin ... end - 1, one episode, (T,); None where the policy has no estimate."""
    batch = store.windows([begin], end - begin).to(device)
    model = agent.world_model
    with fixed_randomness(device), agent.autocast(device):
        latent = model.rssm.observe(model.encoder(batch.obs), batch.action, batch.is_first).latent
        estimates = agent.policy.estimates(latent.feat())
    violation_probability = estimates.get("violation_probability")
    return None if violation_probability is None else violation_probability[0].float().cpu().numpy()
