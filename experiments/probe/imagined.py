"""Imagined against real reward and cost, k steps on from states of own episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.data.episode import Episode
from dreamer.training.diagnostics import fixed_randomness
from dreamer.types import Batch, Latent
from experiments.diagnose_own import join
from experiments.diagnose_recorded import HORIZON, episode_bounds, start_rows

KINDS = ("cost", "reward")
WAYS = ("replayed", "policy")  # the executed actions again, or those of the policy


@torch.no_grad()
def imagined_steps(
    agent: Agent, episodes: Sequence[Episode], device: torch.device
) -> list[dict[str, float]]:
    """For k = 1 ... HORIZON: mean real reward and cost, and what is imagined in both ways.

    Rollouts begin at every fourth row that has HORIZON rows behind it. `replayed` follows the
    actions that were executed there, `policy` acts with the policy's mean at the imagined states.
    """
    store, sums = join(episodes), defaultdict(list)
    for begin, end in episode_bounds(store):
        batch = store.windows([begin], end - begin).to(device)
        rows = start_rows(end - begin, HORIZON, device)  # (N,)
        if not len(rows):
            continue
        with fixed_randomness(device), agent.autocast(device):
            start = Latent(*(x[0, rows] for x in agent.world_model.follow(batch)))
            for way in WAYS:
                for k, found in enumerate(_roll(agent, start, batch, rows, way), 1):
                    for kind, value in found.items():
                        sums[k, f"{way} {kind}"].append(value)
        for k in range(1, HORIZON + 1):
            for kind in KINDS:
                sums[k, f"real {kind}"].append(getattr(batch, kind)[0, rows + k])
    steps = range(1, HORIZON + 1) if sums else ()
    names = [f"{source} {kind}" for kind in KINDS for source in ("real", *WAYS)]
    return [
        {"k": float(k)} | {name: float(np.mean(_numbers(sums[k, name]))) for name in names}
        for k in steps
    ]


def _roll(
    agent: Agent, start: Latent, batch: Batch, rows: Tensor, way: str
) -> list[dict[str, Tensor]]:
    """Predicted reward and cost (N,) of each of the HORIZON steps."""
    state, found = start, []
    for k in range(HORIZON):
        action = (
            batch.action[0, rows + k]
            if way == "replayed"
            else agent.policy.act(agent.world_model, state, explore=False)[0]
        )
        state = agent.world_model.rssm.img_step(state, action)
        predicted = agent.world_model.predict(state.feat())
        found.append({kind: getattr(predicted, kind) for kind in KINDS})
    return found


def _numbers(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).float().cpu().numpy()
