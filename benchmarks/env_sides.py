"""The sides that `python -m benchmarks.env` measures, each in a process of its own.

A fresh process per side and task keeps their memory apart, and their OpenGL settings. The parent
asks, the child answers: the sides take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import multiprocessing
import os
import textwrap
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from fosp_ext.envs import make_env
from fosp_ext.envs.shim import import_safety_gymnasium
from fosp_ext.envs.tasks import robot_of

UPSTREAM, BARE, EXACT, FAST = "upstream", "no markers", "exact", "fast"
REPEAT, SIZE = 4, 64
MEGABYTE = 1e6
SETTLED = 50  # resets after which the memory of a process should not grow any more


class Player(Protocol):
    """An environment reduced to what is timed. Both calls include the images of two cameras."""

    def reset(self, seed: int) -> None:
        """Start the world of that seed."""

    def step(self, action: np.ndarray) -> bool:
        """One agent step: the action four times, then the images. True at the episode's end."""


class Ours:
    """This repository's environment."""

    def __init__(self, task: str, render: str) -> None:
        self._env = make_env(task, size=SIZE, action_repeat=REPEAT, render=render)
        self.action_size = self._env.action_space.shape[0]

    def reset(self, seed: int) -> None:
        self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> bool:
        _, _, terminated, truncated, _ = self._env.step(action)
        return terminated or truncated


def official_env(task: str) -> Any:
    """The environment that Safety-Gymnasium makes for this task, without wrappers."""
    builder = import_safety_gymnasium()
    _give_viewers_a_size()
    return builder.Builder(task_id=task, config={"agent_name": robot_of(task)})


def _give_viewers_a_size() -> None:
    """Let Safety-Gymnasium make viewers as gymnasium 1 wants it, with the size of their window."""
    module = importlib.import_module("safety_gymnasium.bases.underlying")
    viewer = importlib.import_module("gymnasium.envs.mujoco.mujoco_rendering").OffScreenViewer
    if "width" in inspect.signature(viewer).parameters:
        module.OffScreenViewer = functools.partial(viewer, width=SIZE, height=SIZE)


class Upstream:
    """The official environment, drawn by its own `task.render`.

    It has no back camera, so its front camera is drawn twice. By default `task.render` also draws
    the readings of the lidar as small spheres above the robot, outside the front camera's view.
    """

    def __init__(self, task: str, markers: bool) -> None:
        self._env = official_env(task)
        self._task = self._env.task
        self._task.render_conf.lidar_markers = markers
        if markers:
            _mend_markers()
        self.action_size = self._env.action_space.shape[0]

    def reset(self, seed: int) -> None:
        self._env.reset(seed=seed)
        self._draw()

    def step(self, action: np.ndarray) -> bool:
        for _ in range(REPEAT):
            *_, terminated, truncated, _ = self._env.step(action)
            if terminated or truncated:
                break
        self._draw()
        return terminated or truncated

    def _draw(self) -> None:
        for _ in range(2):
            self._task.render(SIZE, SIZE, mode="rgb_array", camera_name="vision", cost={})


def _mend_markers() -> None:
    """Let gymnasium 0.29 draw markers with this MuJoCo.

    It says that a marker has no texture in fields of its own, which MuJoCo has replaced by `matid`
    since. Its own method is used, with only these lines changed.
    """
    module = importlib.import_module("gymnasium.envs.mujoco.mujoco_rendering")
    source = textwrap.dedent(inspect.getsource(module.BaseRender._add_marker_to_scene))
    source = source.replace("g.texid", "g.matid")
    kept = [line for line in source.splitlines() if "g.tex" not in line]
    defined: dict[str, Any] = {}
    exec("\n".join(kept), vars(module), defined)
    module.BaseRender._add_marker_to_scene = defined["_add_marker_to_scene"]


class Side:
    """The parent's handle of a child process with one player."""

    def __init__(self, task: str, side: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # a forked OpenGL context would not work
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, task, side), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str, number: int = 0) -> None:
        """Start one of `reset`, `play`, `peak`, `growth` in the child."""
        self._connection.send((question, number))

    def answer(self) -> float:
        """Wait for what was asked. An error of the child ends the parent too."""
        return self._connection.recv()

    def get(self, question: str, number: int = 0) -> float:
        """Ask and wait."""
        self.ask(question, number)
        return self.answer()

    def close(self) -> None:
        """End the child."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()


def _serve(connection: Connection, task: str, side: str) -> None:
    """The child: answer questions until the parent closes the connection."""
    upstream = side in (UPSTREAM, BARE)
    player = Upstream(task, markers=side == UPSTREAM) if upstream else Ours(task, side)
    answers: dict[str, Callable[[Any, int], float]] = {
        "reset": _time_reset,
        "play": _time_steps,
        "peak": lambda *_: _memory("VmHWM"),
        "growth": _growth,
    }
    player.reset(0)  # compiles, decodes, opens OpenGL
    try:
        while True:
            question, number = connection.recv()
            connection.send(answers[question](player, number))
    except EOFError:
        return


def _time_reset(player: Player, seed: int) -> float:
    started = time.perf_counter()
    player.reset(seed)
    return time.perf_counter() - started


def _time_steps(player: Any, count: int) -> float:
    """Seconds for so many agent steps of smooth random driving, and for resets on the way."""
    noise = np.random.default_rng(count).normal(size=(count, player.action_size)) * 0.3
    actions = np.zeros_like(noise)
    for t in range(1, count):
        actions[t] = np.clip(0.9 * actions[t - 1] + noise[t], -1, 1)
    started = time.perf_counter()
    for action in actions:
        if player.step(action):
            player.reset(0)
    return time.perf_counter() - started


def _growth(player: Player, count: int) -> float:
    """MB that the process grows by over `count` resets, once the first of them are over."""
    settled = min(SETTLED, count // 2)
    for seed in range(settled):
        player.reset(seed)
    before = _memory("VmRSS")
    for seed in range(settled, count):
        player.reset(seed)
    return _memory("VmRSS") - before


def _memory(field: str) -> float:
    """MB of this process, as Linux counts them: VmRSS at present, VmHWM at most so far."""
    with open(f"/proc/{os.getpid()}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines[field].split()[0]) * 1024 / MEGABYTE
