"""A faster simulator step of Safety-Gymnasium, equal to the official one bit for bit.

Most of an official step is not physics. Three things that images do not need are left out
(`fast_rules.py` has a fourth, the look-ups by name):

1. The lidar. It is an observation, and ours are images.
2. Repeated work. The official step calls `mj_forward` three times at its end, and the next
   `mj_step` does the same once more. But `mj_forward` is a function of positions, speeds, controls
   and the solver's starting point, and changes none of them. So one call does, and even that is
   needed by halves: `mj_step1`, which places the bodies and finds the contacts, at the end of a
   step, and `mj_step2`, which goes on from there with the next action's controls.
3. The official `Builder.step` around it: its counters are kept up to date here.

Random numbers are drawn where the official step draws them, so that later goals are the same.
Tasks with rules of their own (Circle, Run) take the official step, without its lidar.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import mujoco
import numpy as np

from fosp_ext.envs.fast_rules import (
    ButtonRules,
    GoalRules,
    PushRules,
    Scene,
    cost_rules,
)

RULES = {
    "GoalLevel0": GoalRules,  # the class that defines the reward of the Goal and Fading tasks
    "ButtonLevel0": ButtonRules,
    "PushLevel0": PushRules,
}


class StepResult(NamedTuple):
    """Result of one simulator step: the official one without the observation."""

    reward: float
    cost: float
    terminated: bool
    truncated: bool
    info: dict[str, float | bool]  # cost_* by kind of object, and `goal_met` on that step


class OfficialStep:
    """`Builder.step` itself. Its observation is whatever `world.task.obs` was replaced by."""

    def __init__(self, world: Any) -> None:
        self._world = world

    def begin(self) -> None:
        """Nothing to prepare."""

    def step(self, action: np.ndarray) -> StepResult:
        """One simulator step with an action in the task's own units."""
        return StepResult(*self._world.step(action)[1:])


class FastStep:
    """The step of one task. `begin` must be called after each reset of the world.

    After a change of the model or the state between two steps, `mj_forward` must be called.
    """

    def __init__(self, world: Any, rules: type) -> None:
        common = importlib.import_module("safety_gymnasium.utils.common_utils")
        self._resampling_error = common.ResamplingError
        self._world, self._task, self._make_rules = world, world.task, rules

    def begin(self) -> None:
        """Look up the names in the model of the new episode."""
        task = self._task
        self._model, self._data = task.model, task.data
        self._scene = Scene(task)
        self._rules = self._make_rules(task, self._scene)
        self._costs = cost_rules(task, self._scene)
        self._low, self._high = self._model.actuator_ctrlrange.T.copy()
        mujoco.mj_step1(self._model, self._data)

    def step(self, action: np.ndarray) -> StepResult:
        """One simulator step with an action in the task's own units."""
        world, task = self._world, self._task
        assert not world.done, "reset the environment before stepping it"
        self._simulate(action)
        reward = self._clipped(self._rules.reward())
        info: dict[str, float | bool] = {}
        for rule in self._costs:
            info.update(rule())
        cost = info["cost_sum"] = float(any(info.values()))
        task.specific_step()
        if self._rules.achieved():
            info["goal_met"] = True
            self._next_goal()
        world.terminated = world.terminated or not task.agent.is_alive()
        world.steps += 1
        world.truncated = world.steps >= task.num_steps
        return StepResult(reward, cost, world.terminated, world.truncated, info)

    def _simulate(self, action: np.ndarray) -> None:
        """Ten steps of MuJoCo."""
        task, model, data = self._task, self._model, self._data
        np.minimum(np.maximum(action, self._low), self._high, out=data.ctrl)
        chance = task.sim_conf
        count = task.random_generator.binomial(chance.frameskip_binom_n, chance.frameskip_binom_p)
        if task._mocaps:  # they move before each step
            for _ in range(count):
                self._move_gremlins()
                mujoco.mj_step(model, data)
        elif model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:  # cannot be split
            mujoco.mj_step(model, data, count)
        else:
            mujoco.mj_step2(model, data)
            mujoco.mj_step(model, data, count - 1)
        mujoco.mj_step1(model, data)
        self._scene.moved()

    def _move_gremlins(self) -> None:
        """On circles around where they started, all in the same phase."""
        gremlins, phase = self._task.gremlins, self._data.time
        x, y = np.sin(phase) * gremlins.travel, np.cos(phase) * gremlins.travel
        self._data.mocap_pos[:] = (x, y, gremlins.size)

    def _clipped(self, reward: float) -> float:
        limit = self._task.reward_conf.reward_clip
        return float(min(max(reward, -limit), limit))

    def _next_goal(self) -> None:
        self._task.update_layout()
        try:
            self._task.update_world()
        except self._resampling_error:
            self._world.terminated = True


def make_step(world: Any) -> FastStep | OfficialStep:
    """The fast step if this `Builder`'s task has rules that we know, else the official one."""
    kind = type(world.task).calculate_reward.__qualname__.split(".")[0]
    return FastStep(world, RULES[kind]) if kind in RULES else OfficialStep(world)
