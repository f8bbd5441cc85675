"""Safety-Gymnasium's own environments, unchanged."""

from __future__ import annotations


def official(task: str):
    """The unchanged environment of the package."""
    from fosp_ext.envs.shim import import_safety_gymnasium

    env = import_safety_gymnasium().make(task)
    # the lidar's markers float above the robot, where the camera does not look, and gymnasium 0.29
    # cannot draw markers with this MuJoCo
    env.unwrapped.task.render_conf.lidar_markers = False
    return env
