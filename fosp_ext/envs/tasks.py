"""Names of tasks and cameras. Nothing here imports a simulator or makes an environment.

A task is the id of a Safety-Gymnasium task, `SafeReach-v0`, or `MODULE:NAME`, a custom environment
(docs/reference/custom_environments.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamer.errors import UserError, did_you_mean

CAMERAS = ("vision", "vision_back", "fixednear", "fixedfar", "track")  # of Safety-Gymnasium
REACH = "SafeReach-v0"
REACH_CAMERAS = ("front", "wrist")
REACH_ACTIONS = 3  # velocity of the tool
REACH_SPEED = 0.2  # m/s of the tool for an action of 1, along each axis
QUALITIES = ("fast", "exact")
PREFIX = "safetygym_"  # the spelling of SafeDreamer's and FOSP's own configs

_ROBOTS = {"Point": 2, "Car": 2, "Racecar": 2, "Doggo": 12, "Ant": 8}  # robot -> action size
# Share of the action's range in which the simulator answers: beyond it a motor is at its limit.
_ACTION_SCALES = {"Point": (0.05, 1.0), "Car": (0.02, 0.02)}
_ACTION_LIMITS = {"Racecar": (20.0, 0.785)}  # of the others 1; the lowest are minus these
_LEVELS = {
    "Goal": 3,
    "Button": 3,
    "Push": 3,
    "Circle": 3,
    "Run": 1,
    "FadingEasy": 3,
    "FadingHard": 3,
}
_CUSTOM = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[\w./-]+")


def known_tasks() -> tuple[str, ...]:
    """Every built-in task."""
    return (*safety_gymnasium_tasks(), REACH)


def safety_gymnasium_tasks() -> tuple[str, ...]:
    """Every Safety-Gymnasium id that `make_env` accepts: the navigation tasks of release 1.0.0.

    Race is missing because the package lacks its textures. Ids with `Vision` or `Debug` name the
    same tasks and are not needed: the cameras are a setting here.
    """
    return tuple(
        f"Safety{robot}{kind}{level}-v0"
        for kind, levels in _LEVELS.items()
        for robot in _ROBOTS
        for level in range(levels)
    )


def is_custom(task: str) -> bool:
    """Whether `task` names a custom environment, `MODULE:NAME`."""
    return ":" in task


def check_task(task: str) -> str:
    """The task's id without the optional prefix `safetygym_`. Unknown tasks are a `UserError`.

    Of a custom environment only the spelling is checked: its module may be on another machine.
    """
    if is_custom(task):
        if not _CUSTOM.fullmatch(task):
            raise UserError(
                f"task '{task}' is not MODULE:NAME; for example my_package.envs:MyEnv-v0"
            )
        return task
    name = task.removeprefix(PREFIX)
    if name not in known_tasks():
        hint = did_you_mean(name, known_tasks())
        raise UserError(
            f"unknown task '{task}'"
            f"{hint or '; for example SafetyPointGoal1-v0, or MODULE:NAME of your own'}"
        )
    return name


def check_cameras(cameras: Sequence[str], known: Sequence[str] | None = CAMERAS) -> tuple[str, ...]:
    """The cameras as a tuple, each named once and each in `known` (None: any name will do)."""
    for camera in cameras:
        if known is not None and camera not in known:
            hint = did_you_mean(camera, known)
            raise UserError(f"unknown camera '{camera}'{hint} (known: {', '.join(known)})")
    if not cameras or len(set(cameras)) < len(cameras):
        raise UserError(f"cameras must name at least one camera, each once; got {list(cameras)}")
    return tuple(cameras)


def task_cameras(task: str) -> tuple[str, ...] | None:
    """The cameras of a task, or None for a custom environment, which alone knows its own."""
    if is_custom(task):
        return None
    return REACH_CAMERAS if task == REACH else CAMERAS


def usual_cameras(task: str) -> tuple[str, ...]:
    """The cameras of an environment for which none are named."""
    return REACH_CAMERAS if task == REACH else CAMERAS[:2]


def usual_action_repeat(task: str) -> int:
    """Simulator steps per agent step of an environment for which none are named."""
    return 1 if task == REACH else 4


def action_rate(task: str, action_repeat: int) -> float | None:
    """Agent steps per second of simulated time; None for custom environments."""
    if is_custom(task):
        return None
    return (10 if task == REACH else 50) / action_repeat


def check_vectors(vectors: Sequence[str], task: str) -> tuple[str, ...]:
    """The names of vectors as a tuple, each once; only a custom environment has some."""
    if vectors and not is_custom(task):
        raise UserError(f"{task} shows images alone, it has no vector '{vectors[0]}'")
    if len(set(vectors)) < len(vectors):
        raise UserError(f"vectors must be named once each; got {list(vectors)}")
    return tuple(vectors)


def action_size(task: str) -> int | None:
    """Action size, known without the simulator; None for custom environments."""
    if is_custom(task):
        return None
    return REACH_ACTIONS if task == REACH else _ROBOTS[robot_of(task)]


def action_scale(task: str) -> tuple[float, ...] | None:
    """Share of the simulator's range that an action of [-1, 1] covers, per component.

    The motors of some robots are at their limit long before the end of that range: of the Point's
    thrust beyond 0.05 of it, nothing changes any more. Scaled, every number of an action counts,
    and the same trajectories are possible. None for custom environments: their bounds say it.
    """
    size = action_size(task)
    if size is None:
        return None
    return (1.0,) * size if task == REACH else _ACTION_SCALES.get(robot_of(task), (1.0,) * size)


def action_limits(task: str) -> tuple[float, ...] | None:
    """The highest actions in the environment's own units; None for custom environments."""
    size = action_size(task)
    if task == REACH:
        return (REACH_SPEED,) * REACH_ACTIONS
    return None if size is None else _ACTION_LIMITS.get(robot_of(task), (1.0,) * size)


def robot_of(task: str) -> str:
    """The robot of a Safety-Gymnasium task."""
    return next(robot for robot in _ROBOTS if task.startswith(f"Safety{robot}"))


def environment_facts(
    render: str | None,
    variant: str = "none",
    scale: Sequence[float] | None = None,
    bounds: tuple[Sequence[float], Sequence[float]] | None = None,
) -> dict[str, str]:
    """`DatasetInfo.environment` of episodes drawn like this in this variant of their task.

    `render` is None for a custom environment, which has no such choice. `scale` is that of their
    actions; None: they cover the environment's whole range, which `bounds` are if it is custom.
    """
    from dreamer.data import episode  # here: names of tasks are known without numpy

    facts = {"variant": variant} if render is None else {"render": render, "variant": variant}
    if scale is not None:
        facts[episode.ACTION_SCALE] = " ".join(f"{x:g}" for x in scale)
    if bounds is not None:
        for fact, numbers in zip((episode.ACTION_LOW, episode.ACTION_HIGH), bounds, strict=True):
            facts[fact] = " ".join(f"{x:.9g}" for x in numbers)
    return facts


def task_folder(task: str) -> str:
    """The task as the name of a folder: a colon would end a host's name for scp and rsync."""
    return re.sub("[:/]", "-", task)
