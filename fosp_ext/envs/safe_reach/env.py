"""SafeReach as a `gymnasium.Env`: camera observations, a cost per step, success and toppled.

Use `fosp_ext.envs.make_env`, which prepares the import of MuJoCo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from fosp_ext.envs.renderer import Renderer, model_camera
from fosp_ext.envs.safe_reach.arm import HOME, JOINTS, ArmControl
from fosp_ext.envs.safe_reach.layout import draw_layout
from fosp_ext.envs.safe_reach.scene import build_model, obstacle_sizes
from fosp_ext.envs.safe_reach.space import GOAL_HEIGHT, HIGH, LOW, START, SUCCESS, USUAL
from fosp_ext.envs.safe_reach.state import ReachState
from fosp_ext.envs.tasks import REACH_SPEED
from fosp_ext.envs.variant_world import add_noise
from fosp_ext.envs.variants import Variant

PERIOD = 0.1  # seconds between actions
TIME_LIMIT = 100  # actions, repeated ones counted
LEAD = 0.05  # metres that the commanded place may be ahead of the tool, along each axis
PROGRESS = 5.0  # reward per metre
TOPPLED = np.cos(np.pi / 4)  # upright component of an obstacle's axis below which it has fallen
OVERVIEW_SIZE = 256
SEEDS = 2**32
NOISE, COUNT = 100, 101  # random streams of a seed, beside those of its layout


class Scene:
    """A compiled scene with so many obstacles, and its state."""

    def __init__(self, variant: Variant, obstacles: int):
        self.model = build_model(variant, obstacles)
        self.data = mujoco.MjData(self.model)
        self.control = ArmControl(self.model)
        self.start = self.control.joints_at(START, HOME, iterations=200)  # (7,)
        self.tool = self.model.site("tool").id
        self.sizes = obstacle_sizes(variant)[:obstacles]  # (n, 3)
        self.bodies = np.array([self.model.body(f"obstacle{k}").id for k in range(obstacles)])
        of_obstacle = np.isin(self.model.geom_bodyid, self.bodies)  # (geoms,)
        of_arm = (self.model.geom_contype == 1) & ~of_obstacle
        self._kind = np.select([of_arm, of_obstacle], [1, 2], 0)

    def place(self, goal: np.ndarray, obstacles: np.ndarray) -> None:
        """Begin anew with `goal` (2,) and `obstacles` (n, 2) at these places."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        data.qpos[:JOINTS] = data.ctrl[:] = self.start
        free = data.qpos[JOINTS:].reshape(-1, 7)
        free[:, :2], free[:, 2] = obstacles, self.sizes[:, 2]
        free[:, 3:] = (1, 0, 0, 0)
        data.mocap_pos[0, :2] = goal
        mujoco.mj_forward(model, data)

    def move(self, begin: np.ndarray, end: np.ndarray, steps: int) -> bool:
        """Turn the joints from `begin` to `end` (7,); whether the arm touched an obstacle."""
        touched = False
        for step in range(1, steps + 1):
            self.data.ctrl[:] = begin + (end - begin) * (step / steps)
            mujoco.mj_step(self.model, self.data)
            if not touched and self.data.ncon:
                touched = bool((self._kind[self.data.contact.geom].sum(1) == 3).any())
        mujoco.mj_kinematics(self.model, self.data)  # of where the last step has led
        mujoco.mj_camlight(self.model, self.data)
        return touched

    @property
    def tool_place(self) -> np.ndarray:
        """A copy, (3,)."""
        return self.data.site_xpos[self.tool].copy()

    @property
    def obstacle_places(self) -> np.ndarray:
        """A copy, (n, 2)."""
        return self.data.xpos[self.bodies, :2]

    def any_toppled(self) -> bool:
        """Whether an obstacle lies on its side."""
        return bool((self.data.xmat[self.bodies, 8] < TOPPLED).any())


class SafeReachEnv(gymnasium.Env):
    """Move the tool to the goal without touching obstacles. See docs/reference/safe_reach.md.

    Made by `fosp_ext.envs.make_env`, which checks the arguments. `terminated` is true on success.
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
        """Of the tool's speed, actions of [-1, 1] cover the share `scale` (3,)."""
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / PERIOD)}
        self.render_mode = "rgb_array"
        self.task, self.cameras, self.size = task, cameras, size
        self.action_repeat, self.render_quality, self.variant = action_repeat, render, variant
        self._stride = REACH_SPEED * PERIOD * np.asarray(scale, np.float64)  # (3,) metres
        self._scenes: dict[int, Scene] = {}  # by their number of obstacles
        self._scene = self._scene_of(USUAL)
        self._target, self._aim, self._joints = START, START, self._scene.start
        self._distance, self._steps = 0.0, 0
        self._noise = np.random.default_rng(0)  # another one at each reset
        self._renderer: Renderer | None = None
        self._overview: Renderer | None = None
        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(cameras, image))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in the layout of the seed; without one, `np_random` draws it.

        Equal seeds give equal episodes, and in every variant the same layout.
        """
        super().reset(seed=seed)
        layout_seed = int(self.np_random.integers(SEEDS)) if seed is None else seed
        self._noise = np.random.default_rng([layout_seed, NOISE])
        layout = draw_layout(layout_seed)
        least, most = self.variant.obstacles_added
        added = np.random.default_rng([layout_seed, COUNT]).integers(least, most + 1)
        count = USUAL + int(added)
        self._scene = self._scene_of(count)
        self._scene.place(layout.goal, layout.obstacles[:count])
        self._target = np.append(layout.goal, GOAL_HEIGHT)
        self._aim, self._joints = self._scene.tool_place, self._scene.start
        self._distance, self._steps = self._way_left(), 0
        return self._observe(), {"cost": 0.0, **self._outcome()}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat the action; reward and cost are sums over the repetitions."""
        action = np.asarray(action, np.float64)  # (3,)
        if action.shape != (3,) or not np.isfinite(action).all():
            raise ValueError(f"an action is (3,) finite numbers, got {action}")
        reward, cost = 0.0, 0.0
        for _ in range(self.action_repeat):
            cost += self._move(np.clip(action, -1.0, 1.0) * self._stride)
            self._steps += 1
            before, self._distance = self._distance, self._way_left()
            outcome = self._outcome()
            reward += PROGRESS * (before - self._distance) + outcome["success"]
            truncated = self._steps >= TIME_LIMIT and not outcome["success"]
            if outcome["success"] or truncated:
                break
        return self._observe(), reward, outcome["success"], truncated, {"cost": cost, **outcome}

    def render(self) -> np.ndarray:  # type: ignore[override]  # always an image
        """A (256, 256, 3) uint8 image of the whole scene, for videos."""
        model, data = self._scene.model, self._scene.data
        if self._overview is None:
            self._overview = Renderer(model, OVERVIEW_SIZE, "smooth")
        return self._overview.draw(model, data, [model_camera(model, "overview")])[0]

    def privileged(self) -> ReachState:
        """Privileged state: where everything is, for scripted policies."""
        scene = self._scene
        half = scene.sizes[:, :2].copy()
        return ReachState(scene.tool_place, self._target.copy(), scene.obstacle_places, half)

    def close(self) -> None:
        """Free textures and meshes."""
        for renderer in (self._renderer, self._overview):
            if renderer is not None:
                renderer.close()
        self._renderer = self._overview = None

    def _scene_of(self, obstacles: int) -> Scene:
        if obstacles not in self._scenes:
            self._scenes[obstacles] = Scene(self.variant, obstacles)
        return self._scenes[obstacles]

    def _move(self, way: np.ndarray) -> float:
        """Move the tool by `way` (3,), within its walls; returns the cost."""
        scene, tool = self._scene, self._scene.tool_place
        aim = np.clip(self._aim + way, LOW, HIGH)
        self._aim = tool + np.clip(aim - tool, -LEAD, LEAD)  # an arm that is held up waits
        begin, self._joints = self._joints, scene.control.joints_at(self._aim, self._joints)
        touched = scene.move(begin, self._joints, round(PERIOD / scene.model.opt.timestep))
        return float(touched)

    def _way_left(self) -> float:
        return float(np.linalg.norm(self._scene.tool_place - self._target))

    def _outcome(self) -> dict[str, bool]:
        return {"success": self._distance < SUCCESS, "toppled": self._scene.any_toppled()}

    def _observe(self) -> dict[str, np.ndarray]:
        model, data = self._scene.model, self._scene.data
        if self._renderer is None:
            self._renderer = Renderer(model, self.size, self.render_quality)
        eyes = [model_camera(model, name) for name in self.cameras]
        images = dict(zip(self.cameras, self._renderer.draw(model, data, eyes), strict=True))
        if not self.variant.pixel_noise:
            return images
        return {
            name: add_noise(image, self.variant.pixel_noise, self._noise)
            for name, image in images.items()
        }
