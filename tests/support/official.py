"""Safety-Gymnasium's own environments, unchanged."""

from __future__ import annotations

from benchmarks.env_sides import official_env


def official(task: str):
    """The unchanged environment of the package."""
    env = official_env(task)
    # the lidar's markers float above the robot, where the camera does not look, and gymnasium
    # cannot draw markers with this MuJoCo
    env.task.render_conf.lidar_markers = False
    return env
