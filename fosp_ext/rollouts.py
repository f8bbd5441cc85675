"""What eval.py does: episodes of a trained agent into a folder of numbers and films."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import gymnasium
import torch

from dreamer.errors import UserError
from dreamer.evaluation import EpisodeResult, Film, result_row, run_episode, summarize
from dreamer.files import atomic_path
from dreamer.utils import choose_device
from dreamer.video import FPS, write_mp4
from fosp_ext.envs import check_action_size, check_task, check_variant, make_env
from fosp_ext.envs.variants import NONE
from fosp_ext.progress import Progress
from fosp_ext.run_folder import LoadedRun, load_run, provenance


@dataclass(frozen=True)
class RolloutSettings:
    """What to play and where to write it."""

    source: Path  # run folder or checkpoint file
    episodes: int
    seed: int
    videos: int
    task: str | None
    variant: str | None  # None: the one that the run names
    device: str
    out: Path | None


def play(settings: RolloutSettings) -> Path:
    """Play the episodes; returns the folder with summary.json, episodes.jsonl and videos."""
    device = choose_device(settings.device)
    run = load_run(settings.source, device)
    check_trained_for(run, settings)
    info = run.info
    variant = check_variant(settings.variant or run.config.env.variant, info.task).name
    env = make_env(info.task, info.cameras, info.size, info.action_repeat, info.render, variant)
    check_action_size(env, info.action_size)
    folder = new_folder(settings.out or default_folder(settings.source, run.updates, variant))
    results = play_episodes(run, env, settings, folder, device, sys.stderr)
    env.close()
    summary = {
        **summarize(results),
        "task": info.task,
        "variant": variant,
        "updates": run.updates,
        "checkpoint": str(settings.source),
        **provenance(),
    }
    with atomic_path(folder / "summary.json") as part:
        part.write_text(json.dumps(summary, indent=2) + "\n")
    report(summary, folder, sys.stdout)
    return folder


def play_episodes(
    run: LoadedRun,
    env: gymnasium.Env,
    settings: RolloutSettings,
    folder: Path,
    device: torch.device,
    stream: TextIO,
) -> list[EpisodeResult]:
    """One episode per seed, each noted as soon as it is over; the first ones are filmed."""
    results = []
    with Progress("playing", settings.episodes, "episodes", stream) as progress:
        for index in range(settings.episodes):
            film = Film() if index < settings.videos else None
            result = run_episode(run.agent, env, settings.seed + index, device, film)
            results.append(result)
            with (folder / "episodes.jsonl").open("a") as file:
                file.write(json.dumps(result_row(result)) + "\n")
            if film is not None:
                write_mp4(folder / "videos" / f"ep_{index:03d}.mp4", film.stack(), FPS)
            progress.advance()
    return results


def check_trained_for(run: LoadedRun, settings: RolloutSettings) -> None:
    """Refuse a checkpoint of another task than the one asked for."""
    if settings.task and check_task(settings.task) != run.info.task:
        asked = check_task(settings.task)
        raise UserError(f"{settings.source} was trained for {run.info.task}, not for {asked}")


def default_folder(source: Path, updates: int, variant: str = NONE.name) -> Path:
    """RUN/eval/<updates>, also for a file in RUN/checkpoints; <updates>-<variant> in a variant."""
    run = source if source.is_dir() else source.resolve().parent
    run = run.parent if run.name == "checkpoints" else run
    name = f"{updates:09d}" if variant == NONE.name else f"{updates:09d}-{variant}"
    return run / "eval" / name


def new_folder(path: Path) -> Path:
    """The folder itself, or path-2, path-3, ... where it exists: nothing is overwritten."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    candidate.mkdir(parents=True)
    return candidate


def report(summary: dict, folder: Path, stream: TextIO) -> None:
    """The result in a few lines."""
    variant = "" if summary["variant"] == NONE.name else f" ({summary['variant']})"
    stream.write(
        f"{summary['task']}{variant}, {summary['updates']} updates, "
        f"{summary['episodes']} episodes\n"
    )
    for name in ("return", "cost", "length", "violation_rate"):
        row = summary[name]
        low, high = row["ci95"]
        stream.write(
            f"  {name:<15} {row['mean']:8.3f} +- {row['std']:.3f}   95 % interval of the mean "
            f"[{low:.3f}, {high:.3f}]\n"
        )
    stream.write(f"  {'safe_episodes':<15} {summary['safe_episodes']:8.3f}\n")
    for name in ("summary.json", "episodes.jsonl", "videos"):
        if (folder / name).exists():
            stream.write(f"{name}: {folder / name}\n")
