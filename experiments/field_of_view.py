"""Predictions inside and outside the field of view: `python -m experiments.field_of_view RUN`.

The policy of a run plays the Point with its mean action in its task, without a variant. Before each
step the model predicts reward and cost of the coming action; the table compares them with the real
ones, apart for steps with the goal, or the nearest hazard, in the field of view of a camera and for
those without. Steps that reach a goal are left out. A model that learned from policies with
privileged state predicts too much reward outside the field of view
(docs/concepts/scripted_policies.md).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from dreamer.agent import Agent
from dreamer.data.episode import Episode
from dreamer.errors import UserError, tell_error
from dreamer.files import atomic_path
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.evaluation import run_episode
from dreamer.training.progress import Progress
from dreamer.training.run_folder import provenance
from dreamer.types import Latent
from dreamer.utils import choose_device
from experiments.diagnose_own import FIRST_SEED, Recorder, join
from fosp_ext.envs import make_run_env
from fosp_ext.envs.scripted.field_of_view import AXES, off_axis
from fosp_ext.envs.world_state import WorldState
from fosp_ext.run.run_folder import LoadedRun, load_run
from fosp_ext.world_model import SafeWorldModel

TASKS = re.compile(r"SafetyPoint[A-Z].*-v0")  # the cameras of other robots see more or less
HALF_VIEW = np.radians(45)  # of the Point's cameras
DRAWS = 16  # of each state, and of the one imagined from it
REACHED = 0.5  # a reward above it is that of a goal


@dataclass(frozen=True)
class Step:
    """Predicted and real reward and cost of a step."""

    seen: dict[str, bool]  # "goal", "hazard" (the nearest) -> was it in view before the step?
    predicted: dict[str, float]  # "reward", "cost"
    real: dict[str, float]


def views(state: WorldState, cameras: Sequence[str]) -> dict[str, bool]:
    """Whether the goal and the nearest hazard are in view; objects that a task lacks are absent."""
    places = {}
    if np.isfinite(state.goal_pos).all():
        places["goal"] = state.goal_pos
    if len(state.hazards):
        ways = np.linalg.norm(state.hazards - state.agent_pos, axis=1)
        places["hazard"] = state.hazards[ways.argmin()]
    if not places:
        return {}
    seen = off_axis(state, np.stack([*places.values()]), cameras) < HALF_VIEW
    return dict(zip(places, seen.tolist(), strict=True))


class ViewRecorder(Recorder):
    """Recorder that also notes what was in view before each step."""

    def __init__(self, env: gymnasium.Env, cameras: Sequence[str]):
        super().__init__(env)
        self.cameras = cameras

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin a new episode; the recording of the last one is dropped."""
        self.seen: list[dict[str, bool]] = []
        return super().reset(seed=seed, options=options)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        self.seen.append(views(self.env.privileged(), self.cameras))
        return super().step(action)


@torch.no_grad()
def predict(agent: Agent, episode: Episode, device: torch.device) -> dict[str, np.ndarray]:
    """Mean reward and cost, each (T,), that the model predicts for each action."""
    store, model = join([episode]), agent.world_model
    batch = store.windows([0], len(store)).to(device)  # the last row took no action
    drawn = {"reward": [], "cost": []}
    with fixed_randomness(device), agent.autocast(device):
        for _ in range(DRAWS):
            before = Latent(*(x[0, :-1] for x in model.follow(batch)))
            after = model.predict(model.rssm.img_step(before, batch.action[0, :-1]).feat())
            for name, values in drawn.items():
                values.append(getattr(after, name).float().cpu().numpy())
    return {name: np.mean(values, axis=0) for name, values in drawn.items()}


def play(loaded: LoadedRun, env: ViewRecorder, seed: int, device: torch.device) -> list[Step]:
    """All steps of one episode."""
    run_episode(loaded.agent, env, seed, device)
    episode = env.episode()
    predicted = predict(loaded.agent, episode, device)
    real = {"reward": episode.reward, "cost": episode.cost}
    return [
        Step(seen, *({name: float(x[t]) for name, x in told.items()} for told in (predicted, real)))
        for t, seen in enumerate(env.seen)
    ]


def compare(steps: Sequence[Step]) -> list[dict[str, float | str | bool]]:
    """One row for each object, in view and not, with the means over its steps."""
    steps = [step for step in steps if step.real["reward"] < REACHED]
    rows = []
    for thing, signal in (("goal", "reward"), ("hazard", "cost")):
        for seen in (True, False):
            chosen = [step for step in steps if step.seen.get(thing) is seen]
            if chosen:
                rows.append(
                    {
                        "thing": thing,
                        "in view": seen,
                        "share": len(chosen) / len(steps),
                        "signal": signal,
                        "predicted": float(np.mean([step.predicted[signal] for step in chosen])),
                        "real": float(np.mean([step.real[signal] for step in chosen])),
                    }
                )
    return rows


def measure(path: Path, episodes: int, device: torch.device) -> list[dict[str, float | str | bool]]:
    """The rows of the table for the newest checkpoint of a run."""
    loaded = load_run(path, device)
    info = loaded.info
    if not TASKS.fullmatch(info.task) or not set(info.cameras) <= set(AXES):
        raise UserError(
            f"{path} is of {info.task} with {', '.join(info.cameras)}; "
            f"needed is a task of the Point with no camera but {', '.join(AXES)}"
        )
    if not isinstance(loaded.agent.world_model, SafeWorldModel):
        raise UserError(f"{path} has no cost head: dreamerv3 cannot be measured")
    env, steps = ViewRecorder(make_run_env(info, "none"), info.cameras), []
    with Progress("playing", episodes, "episodes", sys.stderr) as progress:
        for seed in range(FIRST_SEED, FIRST_SEED + episodes):
            steps += play(loaded, env, seed, device)
            progress.advance()
    env.close()
    return compare(steps)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.field_of_view",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of train.py")
    parser.add_argument("--episodes", type=int, default=5, metavar="N", help="default %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args(argv)
    try:
        if options.episodes < 1:
            raise UserError(f"--episodes must be at least 1, got {options.episodes}")
        rows = measure(options.run, options.episodes, choose_device(options.device))
    except UserError as error:
        return tell_error(error)
    print(
        "| in view | share of steps | signal | predicted per step | real |\n|---|---|---|---|---|"
    )
    for row in rows:
        seen = f"{row['thing']}{'' if row['in view'] else ' not'}"
        print(
            f"| {seen} | {row['share']:.2f} | {row['signal']} "
            f"| {row['predicted']:.4f} | {row['real']:.4f} |"
        )
    if options.json:
        with atomic_path(options.json) as part:
            whole = {"run": str(options.run), "rows": rows, "provenance": provenance()}
            part.write_text(json.dumps(whole, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
