"""An episode of a scripted policy as GIF or MP4: `python -m experiments.scripted_video`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dreamer.errors import UserError, tell_error
from dreamer.files import atomic_path
from dreamer.training.video import FPS, to_gif, write_mp4
from fosp_ext.envs import check_task, env_action_size, make_env
from fosp_ext.envs.scripted import make_scripted_policy

SIDE = 144  # pixels of each view


def main(argv: list[str]) -> int:
    """Play and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="SafeReach-v0")
    parser.add_argument("--policy", default="safe")
    parser.add_argument("--variant", default="none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".gif or .mp4")
    options = parser.parse_args(argv)
    try:
        if options.out.suffix not in (".gif", ".mp4"):
            raise UserError(f"{options.out} must end in .gif or .mp4")
        frames = play(check_task(options.task), options.policy, options.variant, options.seed)
        if options.out.suffix == ".mp4":
            write_mp4(options.out, frames, FPS)
        else:
            with atomic_path(options.out) as part:
                part.write_bytes(to_gif(frames, FPS))
    except UserError as error:
        return tell_error(error)
    print(f"{options.out}: {len(frames)} frames, {options.out.stat().st_size / 1000:.0f} kB")
    return 0


def play(task: str, policy: str, variant: str, seed: int) -> np.ndarray:
    """One episode: the view of videos and the cameras, (T+1, SIDE, SIDE * views, 3) uint8."""
    env = make_env(task, variant=variant)
    rng = np.random.default_rng(seed)
    actor = make_scripted_policy(policy, task, rng, action_size=env_action_size(env))
    actor.reset()
    obs, _ = env.reset(seed=seed)
    frames, over = [_panel([env.render(), *obs.values()])], False
    while not over:
        obs, _, terminated, truncated, _ = env.step(actor.act(env.privileged()))
        frames.append(_panel([env.render(), *obs.values()]))
        over = terminated or truncated
    env.close()
    return np.stack(frames)


def _panel(views: list[np.ndarray]) -> np.ndarray:
    resized = [Image.fromarray(view).resize((SIDE, SIDE)) for view in views]
    return np.concatenate([np.asarray(view) for view in resized], 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
