"""Safety-Gymnasium tasks with camera observations. Importing this imports no simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs.gl import choose_backend

if TYPE_CHECKING:
    from fosp_ext.envs.safety_gym import SafetyGymEnv

CAMERAS = ("vision", "vision_back", "fixednear", "fixedfar", "track")
QUALITIES = ("fast", "exact")
PREFIX = "safetygym_"  # the spelling of SafeDreamer's and FOSP's own configs

_ROBOTS = {"Point": 2, "Car": 2, "Racecar": 2, "Doggo": 12, "Ant": 8}  # robot -> action size
_LEVELS = {
    "Goal": 3,
    "Button": 3,
    "Push": 3,
    "Circle": 3,
    "Run": 1,
    "FadingEasy": 3,
    "FadingHard": 3,
}


def known_tasks() -> tuple[str, ...]:
    """Every task id that `make_env` accepts: the single-agent navigation tasks of release 1.0.0.

    Race is missing because the package lacks its textures. Ids with `Vision` or `Debug` name the
    same tasks and are not needed: the cameras are a setting here.
    """
    return tuple(
        f"Safety{robot}{kind}{level}-v0"
        for kind, levels in _LEVELS.items()
        for robot in _ROBOTS
        for level in range(levels)
    )


def check_task(task: str) -> str:
    """The task's id without the optional prefix `safetygym_`. Unknown tasks are a `UserError`."""
    name = task.removeprefix(PREFIX)
    if name not in known_tasks():
        hint = did_you_mean(name, known_tasks())
        raise UserError(f"unknown task '{task}'{hint or '; for example SafetyPointGoal1-v0'}")
    return name


def check_cameras(cameras: Sequence[str]) -> tuple[str, ...]:
    """The cameras as a tuple, each known and named once."""
    for camera in cameras:
        if camera not in CAMERAS:
            hint = did_you_mean(camera, CAMERAS)
            raise UserError(f"unknown camera '{camera}'{hint} (known: {', '.join(CAMERAS)})")
    if not cameras or len(set(cameras)) < len(cameras):
        raise UserError(f"cameras must name at least one camera, each once; got {list(cameras)}")
    return tuple(cameras)


def action_size(task: str) -> int:
    """How many numbers an action of the task has, known without the simulator."""
    robots = [robot for robot in _ROBOTS if task.startswith(f"Safety{robot}")]
    return _ROBOTS[robots[0]]


def make_env(
    task: str,
    cameras: Sequence[str] = ("vision", "vision_back"),
    size: int = 64,
    action_repeat: int = 4,
    render: str = "fast",
) -> SafetyGymEnv:
    """A `gymnasium.Env` of the task with camera observations and `info["cost"]`.

    Wrong arguments and a missing or broken simulator are a `UserError`.
    """
    task, cameras = check_task(task), check_cameras(cameras)
    if render not in QUALITIES:
        raise UserError(f"render must be 'fast' or 'exact', got '{render}'")
    for name, value in (("size", size), ("action_repeat", action_repeat)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    choose_backend()  # before MuJoCo is imported
    try:
        from fosp_ext.envs.safety_gym import SafetyGymEnv
        from fosp_ext.envs.shim import import_safety_gymnasium

        import_safety_gymnasium()
    except Exception as error:  # a missing OpenGL library is an AttributeError, for example
        raise UserError(
            f"the simulator cannot be imported ({type(error).__name__}: {error}); "
            "run: python -m fosp_ext.doctor"
        ) from error
    return SafetyGymEnv(task, cameras, size, action_repeat, render)
