"""Choice of the OpenGL library that draws the cameras: EGL, or OSMesa where EGL does not work.

MuJoCo reads `MUJOCO_GL` when it is imported, so the choice is made before that, and only if the
user made none. It is kept in the environment variable, which worker processes inherit. A candidate
is tried in a short child process, because a broken driver can crash or hang the one that loads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

from dreamer.errors import UserError

VARIABLE = "MUJOCO_GL"
DEVICE = "MUJOCO_EGL_DEVICE_ID"  # the number of a GPU as EGL counts them
BACKENDS = ("egl", "osmesa", "glfw")
CANDIDATES = ("egl", "osmesa")  # glfw needs a display
APT_LINE = "apt-get install -y libegl1 libgl1-mesa-dri libopengl0 libosmesa6"
PROBE_SECONDS = 60.0

_PROBE = """
import importlib, os
import mujoco, numpy
context = importlib.import_module("mujoco." + os.environ["MUJOCO_GL"]).GLContext(8, 8)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
render = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, render)
scene, viewport = mujoco.MjvScene(model, 10), mujoco.MjrRect(0, 0, 8, 8)
mujoco.mjr_render(viewport, scene, render)
mujoco.mjr_readPixels(numpy.zeros((8, 8, 3), numpy.uint8), None, viewport, render)
print("drawn", flush=True)
"""


@cache
def probe(backend: str, seconds: float = PROBE_SECONDS, gpu: int | None = None) -> str:
    """Draw an empty scene in a child process. Returns "" if that works, else why it does not."""
    environment = {**os.environ, VARIABLE: backend}
    if gpu is not None:
        environment[DEVICE] = str(gpu)
    command = [sys.executable, "-c", _PROBE]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no image within {seconds:.0f} s"
    if "drawn" in child.stdout:
        return ""  # a driver that only fails while shutting down is good enough
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"the child process ended with code {child.returncode}"


def choose_backend() -> str:
    """The backend in use: the user's `MUJOCO_GL`, else the first candidate that can draw.

    Sets `MUJOCO_GL` in the second case. Call it before MuJoCo is imported.
    """
    backend = os.environ.get(VARIABLE, "").strip().lower()
    if backend:
        if backend not in BACKENDS:
            raise UserError(
                f"{VARIABLE}={backend} cannot draw the cameras; use one of {', '.join(BACKENDS)}, "
                "or unset it to let us choose"
            )
        return backend
    reasons = []
    for candidate in CANDIDATES:
        reason = probe(candidate)
        if not reason:
            os.environ[VARIABLE] = candidate
            return candidate
        reasons.append(f"{candidate}: {reason}")
    raise UserError(
        f"no OpenGL library can draw without a display ({'; '.join(reasons)}); run: {APT_LINE}"
    )


def choose_gpu(number: int) -> str:
    """Let EGL, if it is in use, draw on the GPU of this number; a choice of the user's stays.

    Returns "", or why EGL cannot draw there; then it takes the first GPU where it can. Sets
    `MUJOCO_EGL_DEVICE_ID`, which worker processes inherit. Call it before anything is drawn.
    """
    if choose_backend() != "egl" or DEVICE in os.environ:
        return ""
    reason = probe("egl", gpu=number)
    if not reason:
        os.environ[DEVICE] = str(number)
    return reason
