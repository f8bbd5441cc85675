"""Closing environments, which may fail: by then everything that counts is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gymnasium


def close(env: gymnasium.Env, warn: Callable[[str], object] | None = None) -> None:
    """Close an environment; of an error that it raises, `warn` (or stderr) gets one line."""
    try:
        env.close()
    except Exception as error:  # of the environment, whatever it is
        text = " ".join(str(error).split())
        line = f"the environment failed when it was closed: {type(error).__name__}: {text:.200}"
        (warn or _say)(f"{line}; nothing is lost by that")


@contextmanager
def closing_last(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """Close an environment behind the block, however the block ends."""
    try:
        yield env
    finally:
        close(env)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
