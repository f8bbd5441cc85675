"""Camera pictures from MuJoCo with one OpenGL context for the life of an environment.

Safety-Gymnasium builds a new model at every reset. A context made anew for each of them costs up to
a second and leaks memory on some drivers. But a context holds only textures and meshes, which do
not change within a task: one is kept, and each new model is drawn through it, to the same pixels.
"""

from __future__ import annotations

import atexit
import importlib
import weakref
from typing import Any

import mujoco
import numpy as np

from dreamer.errors import UserError
from fosp_ext.envs.gl import choose_backend

MAX_GEOMS = 1000
QUALITIES = ("fast", "smooth", "exact")


class Renderer:
    """Draws square pictures of any model that shares textures and meshes with the first one.

    `quality="exact"` gives the pixels of Safety-Gymnasium's own viewer, if `model` has the sky.
    `quality="smooth"` leaves out the sky and the reflections on the floor, `quality="fast"` the
    smoothing of edges as well.
    """

    def __init__(self, model: mujoco.MjModel, size: int, quality: str) -> None:
        assert quality in QUALITIES, quality
        self.size = size
        model.vis.global_.offwidth = size
        model.vis.global_.offheight = size
        if quality == "fast":
            model.vis.quality.offsamples = 0
        self._gl, self._context = _open_context(model, size)
        self._free = weakref.finalize(self, _free, self._gl, self._context)
        atexit.register(self._free)  # must run before the library's own clean-up at exit
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        if quality != "exact":
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 1  # as Safety-Gymnasium does: draw every kind of object
        self._perturbation = mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.zeros((size, size, 3), np.uint8)

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera
    ) -> np.ndarray:
        """A fresh (size, size, 3) uint8 picture."""
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            model, data, self._options, self._perturbation, camera, everything, self._scene
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return self._pixels[::-1].copy()  # OpenGL counts rows from the bottom

    def close(self) -> None:
        """Free the OpenGL context. A second call does nothing."""
        self._free()
        atexit.unregister(self._free)


def _open_context(model: mujoco.MjModel, size: int) -> tuple[Any, mujoco.MjrContext]:
    backend = choose_backend()
    try:
        gl = importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
        gl.make_current()
        return gl, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    except Exception as error:  # each library fails in its own way
        raise UserError(
            f"MUJOCO_GL={backend} cannot draw ({type(error).__name__}: {error}); "
            "run: python -m fosp_ext.doctor"
        ) from error


def _free(gl: Any, context: mujoco.MjrContext) -> None:
    """Free in the right order: with another context current, that one's textures would go."""
    gl.make_current()
    context.free()
    gl.free()


def model_camera(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    """The camera of that name in the model. Unknown names are an error, never the free camera."""
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        raise KeyError(f"the model has no camera '{name}'")
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = index
    return camera


def overhead_camera(half_width: float) -> mujoco.MjvCamera:
    """Straight down on the origin: +x right, +y up, `half_width` metres to each border."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = 0.0
    camera.azimuth, camera.elevation = 90.0, -90.0
    camera.distance = half_width / np.tan(
        np.radians(45.0 / 2)
    )  # MuJoCo's free camera sees 45 degrees
    return camera
