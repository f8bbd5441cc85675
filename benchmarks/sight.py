"""Is a model too hopeful about what no picture shows? `python -m benchmarks.sight RUN`.

The policy of a run plays with its mean action in a task of Safety-Gymnasium that has a goal. Before
each step the model says what the coming action will earn and cost; the table sets this beside what
came, apart for rows whose goal, or nearest hazard, a camera had in view and for those where none
had. Rows in which a goal was reached are left out. A model that learned from behaviours that knew
more than their cameras showed promises too much where nothing is seen (docs/behaviours.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.diagnose_own import FIRST_SEED
from dreamer.agent import AgentState
from dreamer.errors import UserError, tell_error
from dreamer.files import atomic_path
from dreamer.types import Latent
from dreamer.utils import choose_device
from fosp_ext.envs import is_custom, make_run_env
from fosp_ext.envs.behaviours.sight import AXES
from fosp_ext.envs.safety_gym import SafetyGymEnv
from fosp_ext.envs.world_state import WorldState
from fosp_ext.progress import Progress
from fosp_ext.run_folder import LoadedRun, load_run, provenance
from fosp_ext.world_model import SafeWorldModel

HALF_VIEW = np.radians(45)  # of the robot's cameras
DRAWS = 16  # states imagined for each step
REACHED = 0.5  # a reward above it is that of a goal


@dataclass(frozen=True)
class Step:
    """What a step was expected to come to, and came to."""

    seen: dict[str, bool]  # "goal", "hazard" (the nearest) -> was it in view before the step?
    predicted: dict[str, float]  # "reward", "cost"
    real: dict[str, float]


def in_view(state: WorldState, place: np.ndarray, cameras: Sequence[str]) -> bool:
    """Whether the middle of a thing at `place` (2,) is before one of the robot's own cameras."""
    way = place - state.agent_pos
    bearing = np.arctan2(way[1], way[0]) - state.agent_heading
    offs = [(bearing - AXES[camera] + np.pi) % (2 * np.pi) - np.pi for camera in cameras]
    return bool(np.abs(offs).min() < HALF_VIEW)


def views(state: WorldState, cameras: Sequence[str]) -> dict[str, bool]:
    """Which of the goal and the nearest hazard are in view; things that a task lacks are absent."""
    places = {}
    if np.isfinite(state.goal_pos).all():
        places["goal"] = state.goal_pos
    if len(state.hazards):
        ways = np.linalg.norm(state.hazards - state.agent_pos, axis=1)
        places["hazard"] = state.hazards[ways.argmin()]
    return {name: in_view(state, place, cameras) for name, place in places.items()}


@torch.no_grad()
def expected(model: SafeWorldModel, state: AgentState) -> dict[str, float]:
    """Mean reward and cost that the model foresees for the action of `state` (one row)."""
    drawn = Latent(*(x.expand(DRAWS, *x.shape[1:]) for x in state.latent))
    foreseen = model.predict(model.rssm.img_step(drawn, state.action.expand(DRAWS, -1)).feat())
    return {name: float(getattr(foreseen, name).mean()) for name in ("reward", "cost")}


def play(loaded: LoadedRun, env: SafetyGymEnv, seed: int, device: torch.device) -> list[Step]:
    """All steps of one episode."""
    torch.manual_seed(seed)
    agent, steps, over = loaded.agent, [], False
    obs, _ = env.reset(seed=seed)
    state, first = agent.initial(1), torch.ones(1, device=device)
    while not over:
        pictures = {name: torch.from_numpy(x).unsqueeze(0).to(device) for name, x in obs.items()}
        action, state, _ = agent.act(pictures, first, state, explore=False)
        first = torch.zeros_like(first)
        seen = views(env.privileged(), loaded.info.cameras)
        predicted = expected(agent.world_model, state)
        obs, reward, terminated, truncated, info = env.step(action[0].float().cpu().numpy())
        steps.append(Step(seen, predicted, {"reward": float(reward), "cost": float(info["cost"])}))
        over = terminated or truncated
    return steps


def compare(steps: Sequence[Step]) -> list[dict[str, float | str | bool]]:
    """One row for each thing, in view and not, with the means over its steps."""
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
    if is_custom(loaded.info.task) or not set(loaded.info.cameras) <= set(AXES):
        raise UserError(
            f"{path} is of {loaded.info.task} with {', '.join(loaded.info.cameras)}; "
            f"needed is a task of Safety-Gymnasium with no camera but {', '.join(AXES)}"
        )
    if not isinstance(loaded.agent.world_model, SafeWorldModel):
        raise UserError(f"{path} has no cost head; dreamerv3 and bc cannot be asked")
    env, steps = make_run_env(loaded.info, "none"), []
    with Progress("playing", episodes, "episodes", sys.stderr) as progress:
        for seed in range(FIRST_SEED, FIRST_SEED + episodes):
            steps += play(loaded, env, seed, device)
            progress.advance()
    env.close()
    return compare(steps)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sight",
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
