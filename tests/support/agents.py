"""Small agents and batches for the tests of the maths."""

from __future__ import annotations

from pathlib import Path

import torch

from dreamer.agent import Agent
from dreamer.config import load_presets
from dreamer.envs.counting import CountingEnv
from dreamer.training.run_folder import RunFolder
from dreamer.types import Batch
from fosp_ext.build import build_agent
from fosp_ext.config import Config, resolve_config
from tests.support.toy_data import TOY_INFO as INFO

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"render": "fast", "variant": "none"}


def make_config(*names: str, **overrides: str) -> Config:
    """A configuration; dots of overrides are written as double underscores."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve_config(load_presets(ROOT / "configs.yaml"), list(names), dotted)


def make_agent(*names: str, **overrides: str) -> Agent:
    """A seeded agent on the CPU, by default FOSP in the debug size."""
    torch.manual_seed(0)
    config = make_config(*(names or ("fosp_offline", "debug")), **overrides)
    return build_agent(config, INFO, torch.device("cpu"))


def written_run(folder: Path, agent: Agent, *names: str, **overrides: str) -> Path:
    """A run folder as presets and settings make it, with this agent saved after 7 updates."""
    run = RunFolder(folder, make_config(*names, logdir=str(folder), **overrides), 2)
    run.open()
    run.save(agent, INFO, 7, "fingerprint")
    return folder


def counting_env(*_: object) -> CountingEnv:
    """An environment with episodes of 6 steps for the agents of `make_agent`."""
    return CountingEnv(6, None, INFO.cameras, INFO.size, INFO.action_size)


def make_batch(B: int = 4, T: int = 8, seed: int = 0) -> Batch:
    """Images of random tiles with costs, an episode end in row 1 and a true end in row 2."""
    g = torch.Generator().manual_seed(seed)
    obs = {}
    for camera in INFO.cameras:
        tiles = torch.randint(0, 256, (B, T, 4, 4, 3), dtype=torch.uint8, generator=g)
        obs[camera] = tiles.repeat_interleave(16, 2).repeat_interleave(16, 3)
    first, last, terminal = torch.zeros(B, T), torch.zeros(B, T), torch.zeros(B, T)
    first[:, 0] = 1
    last[1, 3] = first[1, 4] = 1
    last[2, 5] = first[2, 6] = terminal[2, 5] = 1
    return Batch(
        obs=obs,
        action=torch.rand(B, T, 2, generator=g) * 2 - 1,
        reward=torch.randn(B, T, generator=g),
        cost=(torch.rand(B, T, generator=g) < 0.3).float() * 2,
        is_first=first,
        is_last=last,
        is_terminal=terminal,
    )


def same_batch(one: Batch, other: Batch) -> bool:
    """Are all numbers of two batches equal?"""
    cameras = all(torch.equal(one.obs[key], other.obs[key]) for key in one.obs)
    return cameras and all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
