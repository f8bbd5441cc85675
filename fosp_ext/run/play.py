"""Episodes of one or several policies, written as they are over: in this process, or in several."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import gymnasium
import torch

from dreamer.agent import Agent
from dreamer.envs.closing import closing_last
from dreamer.envs.parallel import ParallelEnvs
from dreamer.training.evaluation import (
    EpisodeResult,
    Spectator,
    VideoRecorder,
    result_row,
    run_episode,
)
from dreamer.training.parallel_evaluation import PlannedEpisode, play_together
from dreamer.training.progress import Progress
from dreamer.training.video import FPS, write_mp4
from fosp_ext.envs import is_custom

EPISODES = "episodes.jsonl"
WORKERS = 4  # on every machine alike: the number decides the last bits of a result


class Player(NamedTuple):
    """Who plays, and where its episodes are written."""

    agent: Agent
    folder: Path


class Written:
    """The episodes of one player in its folder: a line each in the order of seeds, and videos.

    Use it as a context.
    """

    def __init__(self, folder: Path) -> None:
        self.results: list[EpisodeResult] = []
        self._folder = folder
        self._early: dict[int, EpisodeResult] = {}  # over before an episode with a lower number

    def add(self, number: int, result: EpisodeResult, watched: Spectator | None) -> None:
        """Take in episode `number`, counted from 0."""
        self._early[number] = result
        while len(self.results) in self._early:
            self._write(self._early.pop(len(self.results)))
        if isinstance(watched, VideoRecorder):
            path = self._folder / "videos" / f"ep_{number:03d}.mp4"
            write_mp4(path, watched.stack(), FPS)

    def __enter__(self) -> Written:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits for an episode that will not come.

        Where the block was stopped or failed, say what there is.
        """
        for number in sorted(self._early):
            self._write(self._early.pop(number))
        if kind is not None and self.results:
            sys.stderr.write(
                f"{len(self.results)} finished episodes are kept in {self._folder / EPISODES}, "
                "until the next evaluation\n"
            )

    def _write(self, result: EpisodeResult) -> None:
        self.results.append(result)
        with (self._folder / EPISODES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(result_row(result)) + "\n")


def usual_workers(task: str, episodes: int) -> int:
    """Environments to play in at once; of a custom task, which may be a robot, one."""
    return 1 if is_custom(task) else min(episodes, WORKERS)


def open_envs(
    make: Callable[[], gymnasium.Env], workers: int
) -> AbstractContextManager[gymnasium.Env | ParallelEnvs]:
    """One environment in this process, or several of them, each in a process; for `with`."""
    return closing_last(make()) if workers == 1 else ParallelEnvs(make, workers, warn)


def play_episodes(
    players: Sequence[Player],
    envs: gymnasium.Env | ParallelEnvs,
    seeds: Sequence[int],
    videos: int,
    violation: float,
    device: torch.device,
) -> list[list[EpisodeResult]]:
    """One episode per player and seed, the first `videos` of each with video; results by player.

    In one environment they are played one after the other, in several all players play at once.
    Each episode is written when it is over.
    """
    total = len(players) * len(seeds)
    with ExitStack() as stack:
        written = [stack.enter_context(Written(player.folder)) for player in players]
        progress = stack.enter_context(Progress("playing", total, "episodes", sys.stderr))

        def finished(index: int, result: EpisodeResult, watched: Spectator | None) -> None:
            written[index // len(seeds)].add(index % len(seeds), result, watched)
            progress.advance()

        plans = [
            PlannedEpisode(player.agent, seed, VideoRecorder if number < videos else None)
            for player in players
            for number, seed in enumerate(seeds)
        ]
        if isinstance(envs, ParallelEnvs):
            play_together(envs, plans, device, finished, violation)
        else:
            for index, (agent, seed, spectator) in enumerate(plans):
                watch = None if spectator is None else spectator()
                result = run_episode(agent, envs, seed, device, watch, violation)
                finished(index, result, watch)
        return [each.results for each in written]


def warn(text: str) -> None:
    """One line for the user."""
    sys.stderr.write(f"{text}\n")
