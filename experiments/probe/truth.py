"""Privileged truth beside recorded rows: episodes simulated again from their seeds.

A recording keeps the seed and the actions of each episode, from which the simulator gives the same
worlds again. The truth is for probes and tests alone; nothing that is trained to act reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import fingerprint
from dreamer.data.layout import open_dataset, text
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.training.progress import Progress
from fosp_ext.envs import make_env
from fosp_ext.envs.safety_gym import SafetyGymEnv
from fosp_ext.envs.scripted.field_of_view import off_axis
from fosp_ext.envs.world_state import WorldState

SEEN = np.radians(45)  # the cameras of the Point show 45 degrees to either side
SMALLEST = 8  # pixels of images that nobody looks at


@dataclass(frozen=True)
class Truth:
    """The rows of E episodes of equal length R; positions in metres, in the robot's frame."""

    hazards: np.ndarray  # (E, R, n, 2) all hazards, the nearest first: forward, left
    hazard_seen: np.ndarray  # (E, R) bool: the nearest is in view of one of the cameras
    goal: np.ndarray  # (E, R, 2)
    goal_seen: np.ndarray  # (E, R) bool
    motion: np.ndarray  # (E, R, 3) metres per second forward and left, yaw rate (left, 1/s)
    cost: np.ndarray  # (E, R), received on arriving at the row
    action: np.ndarray  # (E, R, A) chosen there; zero on the last row
    policy: np.ndarray  # (E,) text: who acted

    @property
    def hazard(self) -> np.ndarray:
        """The nearest hazard, (E, R, 2)."""
        return self.hazards[..., 0, :]


def load_truth(path: Path, info: DatasetInfo, episodes: Sequence[int]) -> Truth:
    """The truth of these episodes of a dataset, simulated once and kept beside the file.

    A world that comes out otherwise than it was recorded, one without hazards, and episodes of
    unequal lengths are a `UserError`.
    """
    kept = path.with_name(f"{path.stem}-truth-{fingerprint(path)}.npz")
    known = _known(kept)
    names = Truth.__annotations__
    missing = [k for k in episodes if any(f"{k}/{name}" not in known for name in names)]
    if missing:
        found = _simulate(path, info, missing)
        known = _known(kept) | found  # another process may have kept more in the meantime
        with atomic_path(kept) as part, part.open("wb") as file:
            np.savez_compressed(file, **known)
    columns = {name: [known[f"{index}/{name}"] for index in episodes] for name in names}
    if len({len(rows) for rows in columns["cost"]}) != 1:
        raise UserError(f"the episodes of {path} have unequal lengths; probes need equal ones")
    return Truth(**{name: np.stack(rows) for name, rows in columns.items()})


def _known(kept: Path) -> dict[str, np.ndarray]:
    return dict(np.load(kept)) if kept.exists() else {}


def _simulate(path: Path, info: DatasetInfo, episodes: Sequence[int]) -> dict[str, np.ndarray]:
    variant = info.environment.get("variant", "none")
    shown = (("vision",), SMALLEST, info.action_repeat, "fast", variant)
    env = make_env(info.task, *shown, info.action_scale)
    if not isinstance(env, SafetyGymEnv):
        raise UserError(f"{info.task}: only Safety-Gymnasium tasks tell where things are")
    found: dict[str, np.ndarray] = {}
    with (
        open_dataset(path) as file,
        Progress("simulating again", len(episodes), "episodes", sys.stderr) as progress,
    ):
        for index in episodes:
            rows = _play_again(env, file, index, info.cameras)
            found |= {f"{index}/{name}": value for name, value in rows.items()}
            progress.advance()
    env.close()
    return found


def _play_again(
    env: SafetyGymEnv, file: h5py.File, index: int, cameras: Sequence[str]
) -> dict[str, np.ndarray]:
    """The rows of one episode; it must bring the recorded rewards and costs."""
    starts = file["episode_starts"]
    end = starts[index + 1] if index + 1 < len(starts) else len(file["rewards"])
    steps = slice(int(starts[index]), int(end))
    actions, costs = file["actions"][steps], file["costs"][steps]  # (T, A), (T,)
    env.reset(seed=int(file["episode_seeds"][index]))
    states, rewards, again = [env.privileged()], [], []
    for action in actions:
        _, reward, _, _, info = env.step(action)
        states.append(env.privileged())
        rewards.append(reward)
        again.append(info["cost"])
    recorded = np.stack([file["rewards"][steps], costs])
    if not np.allclose(np.array([rewards, again], np.float32), recorded, atol=1e-5):
        raise UserError(f"episode {index} came out differently when it was simulated again")
    if not len(states[0].hazards):
        raise UserError(f"{env.task} has no hazards to look for")
    policies = [text(name) for name in file.attrs["policies"]]
    seen = [_in_view(state, cameras) for state in states]
    around = [surroundings(state) for state in states]
    return {
        **{name: np.stack([each[name] for each in around]) for name in around[0]},
        "hazard_seen": np.array([each[0] for each in seen]),
        "goal_seen": np.array([each[1] for each in seen]),
        "cost": np.append(0, costs).astype(np.float32),
        "action": np.concatenate([actions, np.zeros_like(actions[:1])]).astype(np.float32),
        "policy": np.array(policies[file["episode_policies"][index]]),
    }


def surroundings(state: WorldState) -> dict[str, np.ndarray]:
    """`hazards` (n, 2), `goal` (2,) and `motion` (3,) as in `Truth`, float32."""
    velocity = _turned(state, state.agent_vel)
    return {
        "hazards": _turned(state, _by_distance(state) - state.agent_pos),
        "goal": _turned(state, state.goal_pos - state.agent_pos),
        "motion": np.append(velocity, np.float32(state.agent_yaw_rate)),
    }


def _by_distance(state: WorldState) -> np.ndarray:
    """The hazards in the world frame, the nearest first, (n, 2)."""
    return state.hazards[np.linalg.norm(state.hazards - state.agent_pos, axis=1).argsort()]


def _in_view(state: WorldState, cameras: Sequence[str]) -> tuple[bool, bool]:
    """Whether the nearest hazard, and the goal, are in view."""
    places = np.stack([_by_distance(state)[0], state.goal_pos])
    hazard, goal = off_axis(state, places, cameras) < SEEN
    return bool(hazard), bool(goal)


def _turned(state: WorldState, way: np.ndarray) -> np.ndarray:
    """Vectors (..., 2) of the world frame in the robot's: forward and left, float32."""
    forward = np.array([np.cos(state.agent_heading), np.sin(state.agent_heading)])
    left = np.array([-forward[1], forward[0]])
    return np.stack([way @ forward, way @ left], -1).astype(np.float32)
