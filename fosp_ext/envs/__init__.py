"""Tasks with camera observations: Safety-Gymnasium's, SafeReach, your own. Imports no simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dreamer.errors import UserError
from fosp_ext.envs.gl import choose_backend
from fosp_ext.envs.tasks import (
    CAMERAS,
    QUALITIES,
    REACH,
    action_limits,
    action_scale,
    action_size,
    check_cameras,
    check_task,
    check_vectors,
    environment_facts,
    is_custom,
    known_tasks,
    task_cameras,
    task_folder,
    usual_action_repeat,
    usual_cameras,
)
from fosp_ext.envs.variants import VARIANTS, check_variant, fitting_variants

if TYPE_CHECKING:
    import gymnasium

    from dreamer.data.episode import DatasetInfo
    from fosp_ext.envs.custom import CustomEnv
    from fosp_ext.envs.safe_reach.env import SafeReachEnv
    from fosp_ext.envs.safety_gym import SafetyGymEnv

    TaskEnv = SafetyGymEnv | SafeReachEnv | CustomEnv

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
    "env_action_size",
    "environment_facts",
    "fitting_variants",
    "is_custom",
    "known_tasks",
    "make_env",
    "make_run_env",
    "task_cameras",
    "task_folder",
]


def make_env(
    task: str,
    cameras: Sequence[str] | None = None,
    size: int = 64,
    action_repeat: int | None = None,
    render: str = "fast",
    variant: str = "none",
    scale: Sequence[float] | None = None,
    vectors: Sequence[str] = (),
    needs_cost: bool = True,
) -> TaskEnv:
    """A `gymnasium.Env` of the task with camera observations and `info["cost"]`.

    Wrong arguments and a missing or broken simulator are a `UserError`. `cameras` and
    `action_repeat` are those that are usual for the task unless they are named. `variant` is a name
    of `VARIANTS` or several joined by `+`. `scale` is the share of the simulator's range that an
    action covers, `action_scale` of the task by default. `render` and `scale` change nothing in a
    custom environment. That alone has `vectors`, and may be without costs where none are needed.
    """
    task = check_task(task)
    cameras = check_cameras(usual_cameras(task) if cameras is None else cameras, task_cameras(task))
    repeat = usual_action_repeat(task) if action_repeat is None else action_repeat
    check_vectors(vectors, task)
    changes = check_variant(variant, task)
    if render not in QUALITIES:
        raise UserError(f"render must be 'fast' or 'exact', got '{render}'")
    for name, value in (("size", size), ("action_repeat", repeat)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    if is_custom(task):
        from fosp_ext.envs.custom import CustomEnv

        return CustomEnv(task, cameras, size, repeat, render, vectors, needs_cost)
    simulated = _simulated_env(task)
    usual = action_scale(task)
    assert usual is not None, "the robots of built-in tasks are known"
    if scale is not None and len(scale) != len(usual):
        raise UserError(f"an action of the environment has {len(usual)} numbers, not {len(scale)}")
    return simulated(task, cameras, size, repeat, render, changes, scale or usual)


def _simulated_env(task: str) -> Any:
    """The class of a built-in task, its simulator imported."""
    choose_backend()  # before MuJoCo is imported
    try:
        if task == REACH:
            from fosp_ext.envs.safe_reach.env import SafeReachEnv

            return SafeReachEnv
        from fosp_ext.envs.safety_gym import SafetyGymEnv
        from fosp_ext.envs.shim import import_safety_gymnasium

        import_safety_gymnasium()
        return SafetyGymEnv
    except Exception as error:  # a missing OpenGL library is an AttributeError, for example
        raise UserError(
            f"the simulator cannot be imported ({type(error).__name__}: {error}); "
            "run: python -m fosp_ext.doctor"
        ) from error


def make_run_env(info: DatasetInfo, variant: str) -> TaskEnv:
    """The environment of a run; `info` describes its observations and actions.

    One whose actions or vectors are others than those of the data is refused: the same numbers
    would mean something else.
    """
    render = info.environment.get("render", "fast")
    shown = (info.cameras, info.size, info.action_repeat, render, variant)
    vectors = tuple(info.vectors)
    env = make_env(info.task, *shown, info.action_scale, vectors, needs_cost=info.has_costs)
    check_action_size(env, info.action_size)
    if is_custom(info.task):
        cast("CustomEnv", env).require(info)
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
