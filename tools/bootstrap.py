"""Make .venv ready: the tested packages, a PyTorch that suits the machine, a headless OpenGL.

`make setup`, `make demo` and `make test` run this first. It uses the standard library only. When
nothing has changed since the last time it returns at once. Exit code 2: something that only the
user can decide or install, said in the last lines.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from packages import Packages
from torch_build import VERSION, is_choice, torch_arguments

ROOT = Path(__file__).resolve().parents[1]
STAMP = "fosp-setup.json"
SOURCES = ("pyproject.toml", "setup.py", "constraints.txt")
PROGRAMS = ("tools/bootstrap.py", "tools/packages.py", "tools/torch_build.py")
CONSTRAINTS = ("--constraint", ROOT / "constraints.txt")
# Pins of 2023 that Python 3.11 cannot install, a PyTorch of its own, and, for the tests of other
# dataset formats, much that is not used there (JAX, PyBullet, ...).
WITHOUT_DEPENDENCIES = ("safety-gymnasium", "torchvision", "dreamerv3", "dsrl", "minari")
OLDEST, NEWEST = (3, 10), (3, 13)
GL = "MUJOCO_GL"  # the user's choice of what draws the cameras
GL_PACKAGES = {  # backend -> Debian packages
    "": ("libegl1", "libgl1-mesa-dri", "libopengl0"),
    "egl": ("libegl1", "libgl1-mesa-dri", "libopengl0"),
    "osmesa": ("libosmesa6",),
}
OSMESA = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
DRAW = """
from fosp_ext.envs import gl
reason = gl.probe(gl.choose_backend())
if reason: raise SystemExit(reason)
"""


class Stop(Exception):
    """Something the user has to decide or install."""


def main(argv: list[str]) -> int:
    """Set up; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to install")
    parser.add_argument("--torch", default="", help="cpu, cuda, or arguments for pip install")
    parser.add_argument("--installer", default="pip", choices=("pip", "uv"))
    parser.add_argument(
        "--this-python", action="store_true", help=".venv must hold the Python that runs this"
    )
    options = parser.parse_args(argv)
    try:
        check_python(options.venv, options.this_python)
        if not is_choice(options.torch):
            raise Stop(f'TORCH={options.torch} does not name PyTorch; say cpu, cuda or "torch ..."')
        backend = os.environ.get(GL, "").strip().lower()
        ensure(lambda: has_gl(backend), GL_PACKAGES.get(backend, ()), missing_gl(backend))
        set_up(options.venv, options.torch, backend, find_uv(options.installer))
    except Stop as stop:
        sys.stderr.write(f"error: {stop}\n")
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"error: this command failed: {' '.join(map(str, error.cmd))}\n")
        return 1
    return 0


def set_up(venv: Path, torch: str, backend: str, uv: str) -> None:
    """Install what is missing, try the OpenGL of `backend`, and leave a stamp."""
    stamp = read_stamp(venv)
    before = stamp.get("torch", "")
    wanted = {"files": digest(), "torch": torch or before, "gl": backend}
    if python_of(venv).exists() and stamp == wanted:
        return
    if not python_of(venv).exists() or stamp | {"gl": backend} != wanted:
        install(venv, wanted["torch"], wanted["torch"] != before, uv)
    check_drawing(venv, backend)
    (venv / STAMP).write_text(json.dumps(wanted) + "\n")
    say("ready")


def check_python(venv: Path, same: bool) -> None:
    """Refuse a Python that the pinned packages do not support, or that `venv` does not hold."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        have = ".".join(map(str, sys.version_info[:3]))
        raise Stop(
            f"Python {have} is not supported, 3.10 to 3.13 are; "
            "choose one with: make setup PYTHON=python3.11"
        )
    settings = venv / "pyvenv.cfg"
    lines = settings.read_text().splitlines() if settings.is_file() else []
    held = dict(line.split(" = ", 1) for line in lines if " = " in line).get("version", "")
    if same and held and held.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        raise Stop(f"{venv.name} holds Python {held}; to change it, remove it first: rm -r {venv}")


def find_uv(installer: str) -> str:
    """The program uv where it was asked for, else nothing."""
    uv = shutil.which("uv") if installer == "uv" else ""
    if uv is None:
        raise Stop("INSTALLER=uv: there is no program uv; pip install uv, or leave INSTALLER out")
    return uv


# System packages


def has_gl(backend: str) -> bool:
    """Can the library of this backend be loaded? Without one: OSMesa, or EGL with OpenGL."""
    if sys.platform != "linux":
        return True  # MuJoCo draws with the system's own OpenGL there
    osmesa = any(loads(name) for name in OSMESA)
    egl = loads("libEGL.so.1") and (loads("libOpenGL.so.0") or loads("libGL.so.1"))
    return {"osmesa": osmesa, "egl": egl, "": osmesa or egl}.get(backend, True)


def missing_gl(backend: str) -> str:
    """What to say where it cannot."""
    if not backend:
        return "no headless OpenGL library (EGL or OSMesa) was found"
    return f"{GL}={backend} is set and the library of {backend} was not found"


def check_drawing(venv: Path, backend: str) -> None:
    """Draw an empty scene with what the cameras will be drawn with."""
    command = [python_of(venv), "-c", DRAW]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        (*_, reason) = done.stderr.strip().splitlines() or ["no reason given"]
        unset = f"; unset {GL} to let us choose" if backend else ""
        raise Stop(f"the cameras cannot be drawn: {reason}{unset}")


def has_venv() -> bool:
    """Can this Python make virtual environments? On Debian that is a package of its own."""
    return importlib.util.find_spec("ensurepip") is not None


def loads(library: str) -> bool:
    """Is this shared library there?"""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def ensure(works: Callable[[], bool], packages: tuple[str, ...], reason: str) -> None:
    """Where something does not work, install Debian packages as root, else say what to type."""
    if works():
        return
    line = f"apt-get update && apt-get install -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise Stop(f"{reason}; this is not Debian or Ubuntu: install what {packages} hold there")
    if os.geteuid() != 0:
        raise Stop(f"{reason}; as root, run: {line}")
    say(f"{reason}; running {line}")
    for words in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        subprocess.run(["apt-get", "-qq", *words], check=False, stdout=subprocess.DEVNULL)
    if not works():
        raise Stop(f"{reason}, although this was run: {line}")


# Python packages


def python_of(venv: Path) -> Path:
    """The Python in a virtual environment."""
    return venv / "bin" / "python"


def read_stamp(venv: Path) -> dict[str, str]:
    """What the last complete set-up did."""
    try:
        return json.loads((venv / STAMP).read_text())
    except (OSError, ValueError):
        return {}


def digest() -> str:
    """Changes when a requirement or this program does."""
    contents = [(ROOT / name).read_bytes() for name in (*SOURCES, *PROGRAMS)]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def install(venv: Path, torch: str, changed: bool, uv: str) -> None:
    """Make the virtual environment and install the tested packages there.

    `torch` is the choice of PyTorch, `changed` whether it is another one than the last time.
    """
    python = python_of(venv)
    if not (python.exists() and python.with_name("pip").exists()):
        ensure(has_venv, (f"python3.{sys.version_info[1]}-venv",), "Python has no module ensurepip")
        say(f"creating {venv.name} with Python {sys.version.split()[0]}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    packages = Packages(python, uv)
    packages.prepare()
    install_torch(venv, packages, torch, changed)
    say("installing the tested packages")
    packages.install(*CONSTRAINTS, "--editable", f"{ROOT}[dev]")
    packages.install(*CONSTRAINTS, "--no-deps", *WITHOUT_DEPENDENCIES)


def install_torch(venv: Path, packages: Packages, torch: str, changed: bool) -> None:
    """Keep the PyTorch that is there, unless there is another choice."""
    # an installed version may end in +cpu or the like
    satisfied = any(venv.glob(f"lib/python*/site-packages/torch-{VERSION}[+.]*dist-info"))
    if satisfied and not changed:
        return
    words = torch_arguments(torch, packages, say)
    say(f"installing {' '.join(words)}")
    if satisfied:
        packages.remove("torch")  # another build of the same version counts as installed
    packages.install(*words)


def say(text: str) -> None:
    """One line of progress."""
    print(f"[setup] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
