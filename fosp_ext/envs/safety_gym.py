"""Safety-Gymnasium tasks as a `gymnasium.Env` with camera observations and a cost per step.

Use `fosp_ext.envs.make_env`, which prepares the imports of MuJoCo and Safety-Gymnasium.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from fosp_ext.envs.fast_layout import speed_up_layouts_
from fosp_ext.envs.fast_step import make_step
from fosp_ext.envs.privileged import read_world_state
from fosp_ext.envs.renderer import Renderer, model_camera, overhead_camera
from fosp_ext.envs.tasks import robot_of
from fosp_ext.envs.variant_world import add_noise, change_task_
from fosp_ext.envs.variants import Variant
from fosp_ext.envs.world_state import WorldState
from fosp_ext.envs.world_xml import compiled_from, edit_world, sky_last

OVERHEAD_SIZE = 256
OVERHEAD_MARGIN = 1.0  # metres shown around the area in which objects are placed
ROBOT_MARGIN = 0.3  # and at least around the robot's centre
RESET_ATTEMPTS = 100
SEEDS = 2**32  # Safety-Gymnasium seeds a numpy RandomState
NOISE = 1  # camera noise has random numbers of its own, made from the world's seed and this


class SafetyGymEnv(gymnasium.Env):
    """One Safety-Gymnasium task. Rewards and costs are those of the official environment, summed.

    Made by `fosp_ext.envs.make_env`, which checks the arguments. `terminated` is true only if the
    task itself ended; the time limit (1000 simulator steps in most tasks) is `truncated`.
    """

    def __init__(
        self,
        task: str,
        cameras: tuple[str, ...],
        size: int,
        action_repeat: int,
        render: str,
        variant: Variant,
        scale: Sequence[float],
    ) -> None:
        """Of the simulator's actions, [-1, 1] covers the share `scale` (A,) around their centre."""
        builder = importlib.import_module("safety_gymnasium.builder")
        self._resampling_error = builder.ResamplingError
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, 50 // action_repeat)}
        self.render_mode = "rgb_array"
        self.task, self.cameras, self.size = task, cameras, size
        self.action_repeat, self.render_quality, self.variant = action_repeat, render, variant
        self.robot = robot_of(task)
        with np.errstate(over="ignore"):  # of gymnasium 1, where it looks at float32 bounds
            self._world = builder.Builder(task_id=task, config={"agent_name": self.robot})
        change_task_(self._world.task, variant)
        speed_up_layouts_(self._world.task.random_generator)
        self._step = make_step(self._world)
        self._noise = np.random.default_rng(0)  # another one at each reset
        self._world.task.obs = self._forward  # its lidars, a third of a step, are not used here
        self._full_xml = ""  # what Safety-Gymnasium wrote at the last reset, before our edits
        self._renderer: Renderer | None = None
        self._eyes: list[mujoco.MjvCamera] = []
        self._overhead: Renderer | None = None

        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(cameras, image))
        low, high = self._world.action_space.low, self._world.action_space.high
        self._action_center, self._action_scale = (high + low) / 2, scale * (high - low) / 2
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, low.shape, np.float32)

    @property
    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What -1 and what 1 are to Safety-Gymnasium itself, (A,) each."""
        low, high = (self._action_center + side * self._action_scale for side in (-1, 1))
        return tuple(low.tolist()), tuple(high.tolist())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in a new world; without a seed, `np_random` draws one.

        Equal seeds give equal episodes.
        """
        super().reset(seed=seed)
        world_seed = int(self.np_random.integers(SEEDS)) if seed is None else seed
        self._noise = np.random.default_rng([world_seed, NOISE])
        with compiled_from(self._edit_world):
            self._reset_world(world_seed)
        self._step.begin()
        return self._observe(), {"cost": 0.0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat the action; reward and cost are sums over the simulator's steps."""
        action = np.asarray(action, np.float64)  # (A,)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self.action_space.shape} finite numbers, got {action}")
        action = self._action_center + self._action_scale * np.clip(action, -1.0, 1.0)
        reward, cost, goals = 0.0, 0.0, 0
        for _ in range(self.action_repeat):
            result = self._step.step(action)
            reward += float(result.reward)
            cost += float(result.cost)
            goals += int(result.info.get("goal_met", False))
            if result.terminated or result.truncated:
                break
        return (
            self._observe(),
            reward,
            bool(result.terminated),
            bool(result.truncated),
            {"cost": cost, "goals": goals},
        )

    def render(self) -> np.ndarray:  # type: ignore[override]  # always an image
        """A (256, 256, 3) uint8 image from straight above, for videos.

        It shows the area in which objects are placed, and more while the robot is further out.
        """
        if self._overhead is None:
            self._overhead = Renderer(self._scenery(sky=False), OVERHEAD_SIZE, "smooth")
        model, data = self._world.task.model, self._world.task.data
        extent = np.abs(self._world.task.placements_conf.extents).max()
        robot = np.abs(data.body("agent").xpos[:2]).max()
        camera = overhead_camera(float(max(extent + OVERHEAD_MARGIN, robot + ROBOT_MARGIN)))
        return self._overhead.draw(model, data, [camera])[0]

    def privileged(self) -> WorldState:
        """Privileged state: where everything is, for scripted policies."""
        return read_world_state(self._world.task, self.robot)

    def close(self) -> None:
        """Free textures and meshes."""
        for renderer in (self._renderer, self._overhead):
            if renderer is not None:
                renderer.close()
        self._renderer = self._overhead = None

    def _reset_world(self, seed: int) -> None:
        """Reset with `seed`, or the next one whose layout is possible and starts without cost."""
        for attempt in range(RESET_ATTEMPTS):
            try:
                self._world.reset(seed=(seed + attempt) % SEEDS)
                return
            except self._resampling_error:
                continue
            except AssertionError as error:
                if "starting cost" not in str(error):
                    raise
        raise RuntimeError(
            f"{self.task}: no possible layout for seeds {seed} and the next {attempt}"
        )

    def _edit_world(self, xml: str) -> str:
        self._full_xml = xml
        return edit_world(xml, self.robot, self.variant)

    def _scenery(self, sky: bool) -> mujoco.MjModel:
        """A model with the textures and meshes of this task, for a renderer to load."""
        full = self._full_xml
        xml = sky_last(full) if sky else edit_world(full, self.robot, self.variant)
        return mujoco.MjModel.from_xml_string(xml)

    def _observe(self) -> dict[str, np.ndarray]:
        model, data = self._world.task.model, self._world.task.data
        if self._renderer is None:
            scenery = self._scenery(sky=self.render_quality == "exact")
            self._renderer = Renderer(scenery, self.size, self.render_quality)
            # each new model of the task gives its cameras the same numbers
            self._eyes = [model_camera(model, name) for name in self.cameras]
        drawn = self._renderer.draw(model, data, self._eyes)
        images = dict(zip(self.cameras, drawn, strict=True))
        if not self.variant.pixel_noise:
            return images
        return {
            name: add_noise(image, self.variant.pixel_noise, self._noise)
            for name, image in images.items()
        }

    def _forward(self) -> dict:
        """In place of the task's `obs`: its effect on the simulation without the observation."""
        mujoco.mj_forward(self._world.task.model, self._world.task.data)
        return {}
