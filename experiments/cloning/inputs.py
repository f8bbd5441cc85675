"""What clones read: of recorded episodes all rows at once, of a running one row by row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from experiments.probe.features import FEATURES, features_of
from experiments.probe.truth import Truth, surroundings
from fosp_ext.envs.safety_gym import SafetyGymEnv

# Name of the input -> rows that a clone reads of it. The recorded policy knows what the cameras
# showed within 1.6 seconds: 20 rows of the Point with an action repeat of 4.
WINDOWS = {"positions": 1, "encoder": 20, "sample": 1, "probabilities": 1}


def positions(around: Mapping[str, np.ndarray]) -> Tensor:
    """Privileged input (..., F) of what `surroundings` tells, with any leading axes.

    Of each hazard, the nearest first, and of the goal: place in metres forward and left, direction
    as a unit vector, and exp(-distance); then the robot's own velocity and yaw rate.
    """
    places = np.concatenate([around["hazards"], around["goal"][..., None, :]], -2)  # (..., n+1, 2)
    distance = np.linalg.norm(places, axis=-1, keepdims=True)
    each = np.concatenate([places, places / (distance + 1e-6), np.exp(-distance)], -1)
    flat = each.reshape(*each.shape[:-2], -1)
    return torch.from_numpy(np.concatenate([flat, around["motion"]], -1)).float()


def recorded_inputs(
    names: Collection[str],
    agent: Agent,
    path: Path,
    episodes: Sequence[int],
    truth: Truth,
    device: torch.device,
    scale: Sequence[float],
) -> dict[str, Tensor]:
    """Inputs (E, R, F) of these episodes of a dataset, on the CPU, by their name.

    `scale` is the agent's action scale.
    """
    found = {}
    if set(names) & set(FEATURES):
        found = features_of(agent, path, episodes, device, scale)
    if "positions" in names:
        found["positions"] = positions(vars(truth))
    return {name: found[name] for name in names}


class Reader:
    """Reads one input in a running environment, with the world model that follows it."""

    def __init__(self, name: str, agent: Agent, env: SafetyGymEnv, device: torch.device):
        self.name, self.agent, self.env, self.device = name, agent, env, device
        self.begin()

    def begin(self) -> None:
        """Before the first row of an episode."""
        self.state = self.agent.initial(1)
        self.first = torch.ones(1, device=self.device)

    @torch.no_grad()
    def read(self, obs: Mapping[str, np.ndarray]) -> Tensor:
        """The input (F,) of a row with these images, camera -> (size, size, 3) uint8."""
        if self.name == "positions":
            return positions(surroundings(self.env.privileged()))
        images = {name: torch.from_numpy(x)[None, None].to(self.device) for name, x in obs.items()}
        model = self.agent.world_model
        with self.agent.autocast(self.device):
            embed = model.encoder(images)[:, 0]  # (1, E)
            if self.name == "encoder":
                return embed[0].float().cpu()
            state = self.state.latent, self.state.action
            latent, post = model.rssm.sampled_step(*state, embed, self.first)
            self.state = self.state._replace(latent=latent)
            read = latent if self.name == "sample" else latent._replace(stoch=post)
            return read.feat()[0].float().cpu()

    def acted(self, action: Tensor) -> None:
        """Hear of the action (A,) that is executed at the row that was read last."""
        self.state = self.state._replace(action=action.to(self.device)[None])
        self.first = torch.zeros_like(self.first)
