"""What the tests of conversions share: a dataset of ours, the command, comparisons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dreamer.data.episode import Episode
from dreamer.data.hdf5 import read_episodes, validate_dataset, write_dataset
from fosp_ext.dataset.__main__ import main
from tests.support.toy_data import TOY_INFO, toy_episode

LABELS = ["--task", "SafetyPointGoal1-v0", "--action-repeat", "4"]
INFO = replace(TOY_INFO, environment={"render": "fast", "variant": "night"})


def write_own(path: str | Path) -> None:
    """A dataset file of 4 episodes of different lengths; the third one truly ended."""
    lengths = (7, 12, 5, 9)
    episodes = [toy_episode(T, 30 + k, terminated=k == 2) for k, T in enumerate(lengths)]
    write_dataset(path, episodes, INFO)


def convert(*words: str, code: int = 0) -> None:
    assert main(["convert", *words]) == code


def assert_same(one: Episode, other: Episode) -> None:
    for name in ("action", "reward", "cost", "terminated", "policy", "seed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert list(one.images) == list(other.images)
    for camera, frames in one.images.items():
        np.testing.assert_array_equal(frames, other.images[camera], err_msg=camera)


def assert_same_files(one: str | Path, other: str | Path) -> None:
    assert validate_dataset(one) == validate_dataset(other)
    for pair in zip(read_episodes(one), read_episodes(other), strict=True):
        assert_same(*pair)
