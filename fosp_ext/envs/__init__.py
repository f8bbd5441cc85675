"""Tasks with camera observations: Safety-Gymnasium's and your own. Imports no simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dreamer.errors import UserError
from fosp_ext.envs.gl import choose_backend
from fosp_ext.envs.tasks import (
    CAMERAS,
    QUALITIES,
    action_limits,
    action_scale,
    action_size,
    check_cameras,
    check_task,
    environment_facts,
    is_custom,
    known_tasks,
    task_cameras,
    task_folder,
)
from fosp_ext.envs.variants import VARIANTS, check_variant

if TYPE_CHECKING:
    import gymnasium

    from dreamer.data.episode import DatasetInfo
    from fosp_ext.envs.custom import CustomEnv
    from fosp_ext.envs.safety_gym import SafetyGymEnv

__all__ = [
    "CAMERAS",
    "QUALITIES",
    "VARIANTS",
    "action_limits",
    "action_scale",
    "action_size",
    "check_action_size",
    "check_cameras",
    "check_task",
    "check_variant",
    "environment_facts",
    "is_custom",
    "known_tasks",
    "make_env",
    "make_run_env",
    "task_cameras",
    "task_folder",
]


def make_env(
    task: str,
    cameras: Sequence[str] = ("vision", "vision_back"),
    size: int = 64,
    action_repeat: int = 4,
    render: str = "fast",
    variant: str = "none",
    scale: Sequence[float] | None = None,
) -> SafetyGymEnv | CustomEnv:
    """A `gymnasium.Env` of the task with camera observations and `info["cost"]`.

    Wrong arguments and a missing or broken simulator are a `UserError`. `variant` is a name of
    `VARIANTS` or several joined by `+`. `scale` is the share of the simulator's range that an
    action covers, `action_scale` of the task by default. `render` and `scale` change nothing in a
    custom environment.
    """
    task, cameras = check_task(task), check_cameras(cameras, task_cameras(task))
    changes = check_variant(variant, task)
    if render not in QUALITIES:
        raise UserError(f"render must be 'fast' or 'exact', got '{render}'")
    for name, value in (("size", size), ("action_repeat", action_repeat)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    if is_custom(task):
        from fosp_ext.envs.custom import CustomEnv

        return CustomEnv(task, cameras, size, action_repeat, render)
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
    usual = action_scale(task)
    assert usual is not None, "the robots of Safety-Gymnasium are known"
    if scale is not None and len(scale) != len(usual):
        raise UserError(f"an action of the environment has {len(usual)} numbers, not {len(scale)}")
    return SafetyGymEnv(task, cameras, size, action_repeat, render, changes, scale or usual)


def make_run_env(info: DatasetInfo, variant: str) -> SafetyGymEnv | CustomEnv:
    """The environment of a run; `info` describes its observations and actions."""
    render = info.environment.get("render", "fast")
    shown = (info.cameras, info.size, info.action_repeat, render, variant)
    env = make_env(info.task, *shown, info.action_scale)
    check_action_size(env, info.action_size)
    return env


def check_action_size(env: gymnasium.Env, expected: int) -> None:
    """Refuse an environment whose action size differs from that of the data or policy."""
    have = env_action_size(env)
    if have != expected:
        raise UserError(f"an action of the environment has {have} numbers, not {expected}")


def env_action_size(env: gymnasium.Env) -> int:
    """Action size of the environment."""
    shape = env.action_space.shape
    assert shape is not None, "the actions are no box"
    return shape[0]
