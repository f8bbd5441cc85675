"""A folder of the agent's own episodes, so that a run can be resumed and its data reused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.hdf5 import read_episodes, write_dataset
from dreamer.errors import UserError

NAME = re.compile(r"episode_(\d{6,})_env(\d+)\.h5")


class EpisodeFolder:
    """A folder of numbered episodes, each a dataset file of its own.

    See docs/reference/data_format.md.
    """

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        """Episodes fit `info`; the folder is made with the first of them."""
        self._path, self._info = path, info

    def write(self, number: int, stream: int, episode: Episode) -> Path:
        """Write episode `number` of the run, whole or not at all; returns its file."""
        path = self._path / f"episode_{number:06d}_env{stream}.h5"
        write_dataset(path, [episode], self._info)
        return path

    def keep(self, count: int) -> None:
        """Remove what is later than the first `count` episodes: a killed run writes it again.

        Half-written files of a program that was killed go, too.
        """
        for number, (_, path) in self._files().items():
            if number >= count:
                path.unlink()
        for leftover in self._path.glob("episode_*.h5.*.part"):
            leftover.unlink()

    def read(self, count: int) -> Iterator[tuple[int, Episode]]:
        """(stream, episode) of the first `count` episodes, in order.

        A missing file, one of another task, or one of several episodes is a `UserError`.
        """
        files = self._files()
        for number in range(count):
            if number not in files:
                raise UserError(
                    f"{self._path}/episode_{number:06d}_env*.h5 is missing; "
                    f"the run needs its first {count} episodes to continue"
                )
            stream, path = files[number]
            episodes = list(read_episodes(path, expected=self._info))
            if len(episodes) != 1:
                raise UserError(f"{path} must hold one episode, it holds {len(episodes)}")
            yield stream, episodes[0]

    def _files(self) -> dict[int, tuple[int, Path]]:
        """Episode number -> (stream, file)."""
        matches = ((NAME.fullmatch(path.name), path) for path in self._path.glob("episode_*.h5"))
        return {int(match[1]): (int(match[2]), path) for match, path in matches if match}
