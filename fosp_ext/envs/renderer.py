"""Camera images from MuJoCo, all through one OpenGL context for the life of the process.

Safety-Gymnasium builds a new model at every reset. A context made anew for each of them costs up to
a second and leaks memory on some drivers. But MuJoCo's part of a context holds only textures and
meshes, which do not change within a task: one is kept per renderer, and each new model is drawn
through it, to the same pixels. The OpenGL context below it is shared by all renderers, so all
environments of a process must be used from the same thread.
"""

from __future__ import annotations

import atexit
import importlib
import os
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import mujoco
import numpy as np

from dreamer.errors import UserError
from fosp_ext.envs.gl import choose_backend

MAX_GEOMS = 1000
QUALITIES = ("fast", "smooth", "exact")
SHOWN, HIDDEN = 0, mujoco.mjNGROUP - 1  # groups of objects, of which we draw only the first
FAST_STACKS = 8  # rings of triangles of a cylinder or sphere; MuJoCo's own number is 16
SLACK = 1.01  # by which an object is taken to be larger than it is
THREADS = "LP_NUM_THREADS"  # of Mesa's software driver: none beside the one that draws
SMALL = 64  # pixels; the context's own window is not drawn into


class Renderer:
    """Draws square images of any model that shares textures and meshes with the first one.

    `quality="exact"` gives the pixels of Safety-Gymnasium's own viewer, if `model` has the sky.
    `quality="smooth"` leaves out the sky and the reflections on the floor, `quality="fast"` the
    smoothing of edges as well, and it builds round objects from half as many triangles.
    """

    def __init__(self, model: mujoco.MjModel, size: int, quality: str) -> None:
        assert quality in QUALITIES, quality
        self.size = size
        model.vis.global_.offwidth = size
        model.vis.global_.offheight = size
        if quality == "fast":
            model.vis.quality.offsamples = 0
            model.vis.quality.numstacks = FAST_STACKS
        self._context = _open_context(model)
        self._free = weakref.finalize(self, _free, self._context)
        atexit.register(self._free)  # must run before the library's own clean-up at exit
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        if quality != "exact":
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[SHOWN] = 1
        self._perturbation = mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.zeros((size, size, 3), np.uint8)

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, cameras: Sequence[mujoco.MjvCamera]
    ) -> list[np.ndarray]:
        """A fresh (size, size, 3) uint8 image from each camera.

        Every kind of object is drawn, as Safety-Gymnasium does, unless the camera cannot see it.
        """
        _opengl().make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        groups = model.geom_group.copy()  # which kind of object each one is; lent to us meanwhile
        everything = mujoco.mjtCatBit.mjCAT_ALL
        images = []
        for camera in cameras:
            model.geom_group[:] = np.where(_may_be_seen(model, data, camera), SHOWN, HIDDEN)
            mujoco.mjv_updateScene(
                model, data, self._options, self._perturbation, camera, everything, self._scene
            )
            mujoco.mjr_render(self._viewport, self._scene, self._context)
            mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
            images.append(self._pixels[::-1].copy())  # OpenGL counts rows from the bottom
        model.geom_group[:] = groups
        return images

    def close(self) -> None:
        """Free textures and meshes. A second call does nothing."""
        self._free()
        atexit.unregister(self._free)


@cache
def _opengl() -> Any:
    """The process's OpenGL context, opened at the first call and freed at exit."""
    os.environ.setdefault(THREADS, "0")  # they cost more than they bring at our sizes
    backend = choose_backend()
    context = importlib.import_module(f"mujoco.{backend}").GLContext(SMALL, SMALL)
    atexit.register(context.free)
    return context


def _open_context(model: mujoco.MjModel) -> mujoco.MjrContext:
    try:
        _opengl().make_current()
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    except Exception as error:  # each library fails in its own way
        raise UserError(
            f"MUJOCO_GL={choose_backend()} cannot draw ({type(error).__name__}: {error}); "
            "run: python -m fosp_ext.doctor"
        ) from error


def _free(context: mujoco.MjrContext) -> None:
    """Another library's context may be current: without ours, its textures would go."""
    _opengl().make_current()
    context.free()


def _may_be_seen(
    model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera
) -> np.ndarray:
    """(geoms,) bool: false for objects outside the camera's field of view, which leave no pixel.

    The software driver spends as much on each of them as on a small visible one. An object is in
    view if a sphere around it is not wholly beyond one of the four planes through the camera's
    position and the borders of its image. The sphere also holds the object's mirror image in the
    floor. Objects without a size, such as the floor, and those before a free camera are all kept.
    """
    if camera.type != mujoco.mjtCamera.mjCAMERA_FIXED:
        return np.ones(model.ngeom, bool)
    index = camera.fixedcamid
    centers = data.geom_xpos.copy()  # (geoms, 3)
    radii = (model.geom_rbound + np.abs(centers[:, 2])) * SLACK  # (geoms,)
    centers[:, 2] = 0.0
    half = np.radians(model.cam_fovy[index] / 2)
    inward = np.array(_BORDERS) * (np.cos(half), np.cos(half), np.sin(half))  # (4, 3)
    planes = inward @ data.cam_xmat[index].reshape(3, 3).T  # (4, 3) in the world
    beyond = (centers - data.cam_xpos[index]) @ planes.T < -radii[:, None]  # (geoms, 4)
    return ~beyond.any(axis=1) | (model.geom_rbound == 0)


# of a camera that looks along -z: normals of its image's borders, for half a right angle
_BORDERS = ((1.0, 0.0, -1.0), (-1.0, 0.0, -1.0), (0.0, 1.0, -1.0), (0.0, -1.0, -1.0))


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
