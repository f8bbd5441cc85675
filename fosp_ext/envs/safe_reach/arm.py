"""Control of the arm: tool places to joint angles, with the gripper pointing down."""

from __future__ import annotations

import mujoco
import numpy as np

JOINTS = 7
HOME = np.array([0.0, -0.25, 0.0, -2.6, 0.0, 2.35, 0.785])  # posture that the null space tends to
DOWN = np.diag([1.0, -1.0, -1.0])  # orientation of the tool
DAMPING, POSTURE_GAIN, LARGEST_TURN = 1e-3, 0.05, 0.15  # of one iteration


class ArmControl:
    """Inverse kinematics by damped least squares on a copy of the scene's state."""

    def __init__(self, model: mujoco.MjModel):
        self._model, self._data = model, mujoco.MjData(model)
        self._tool = model.site("tool").id
        self._low, self._high = model.jnt_range[:JOINTS].T
        self._linear, self._angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))

    def joints_at(self, place: np.ndarray, joints: np.ndarray, iterations: int = 2) -> np.ndarray:
        """Joint angles (7,) that bring the tool towards `place` (3,), starting from `joints`."""
        for _ in range(iterations):
            joints = joints + self._turn(place, joints)
        return np.clip(joints, self._low, self._high)

    def _turn(self, place: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """One step (7,) towards place and orientation; what is free to choose tends to HOME."""
        model, data = self._model, self._data
        data.qpos[:JOINTS] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._linear, self._angular, self._tool)
        axes = data.site_xmat[self._tool].reshape(3, 3)
        tilt = 0.5 * np.cross(axes.T, DOWN.T).sum(0)  # rotation vector to DOWN, for small angles
        error = np.concatenate([place - data.site_xpos[self._tool], tilt])  # (6,)
        jacobian = np.vstack([self._linear[:, :JOINTS], self._angular[:, :JOINTS]])  # (6, 7)
        damped = jacobian @ jacobian.T + DAMPING * np.eye(6)
        home = POSTURE_GAIN * (HOME - joints)
        turn = home + jacobian.T @ np.linalg.solve(damped, error - jacobian @ home)
        return np.clip(turn, -LARGEST_TURN, LARGEST_TURN)
