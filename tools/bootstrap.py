"""Make .venv ready: the tested packages, a PyTorch that was asked for, and a headless OpenGL.

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
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "fosp-setup.json"
SOURCES = ("pyproject.toml", "setup.py", "constraints.txt", "tools/bootstrap.py")
CONSTRAINTS = ("--constraint", ROOT / "constraints.txt")
# Pins of 2023 that Python 3.11 cannot install, a PyTorch of its own, and, for the tests of other
# dataset formats, much that is not used there (JAX, PyBullet, ...).
WITHOUT_DEPENDENCIES = ("safety-gymnasium", "torchvision", "dreamerv3", "dsrl", "minari")
OLDEST, NEWEST = (3, 10), (3, 13)
TORCH = "torch==2.13.0"
CUDA = "cuda"  # the choice of whatever build the default package index has
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
GL_PACKAGES = ("libegl1", "libgl1-mesa-dri", "libopengl0")


class Stop(Exception):
    """Something the user has to decide or install."""


def main(argv: list[str]) -> int:
    """Set up; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", help="cuda, or arguments for pip install")
    parser.add_argument(
        "--this-python", action="store_true", help=".venv must hold the Python that runs this"
    )
    options = parser.parse_args(argv)
    try:
        check_python(options.this_python)
        check_choice(options.torch)
        ensure(has_gl, GL_PACKAGES, "no headless OpenGL library (EGL or OSMesa) was found")
        stamp = read_stamp()
        torch = options.torch or stamp.get("torch", "")
        if not PYTHON.exists() or stamp != {"files": digest(), "torch": torch}:
            install(torch, changed=torch != stamp.get("torch", ""))
    except Stop as stop:
        sys.stderr.write(f"error: {stop}\n")
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"error: this command failed: {' '.join(map(str, error.cmd))}\n")
        return 1
    return 0


def check_python(same: bool) -> None:
    """Refuse a Python that the pinned packages do not support, or that .venv does not hold."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        have = ".".join(map(str, sys.version_info[:3]))
        raise Stop(
            f"Python {have} is not supported, 3.10 to 3.13 are (3.11 is tested); "
            "choose one with: make setup PYTHON=python3.11"
        )
    settings = VENV / "pyvenv.cfg"
    lines = settings.read_text().splitlines() if settings.is_file() else []
    held = dict(line.split(" = ", 1) for line in lines if " = " in line).get("version", "")
    if same and held and held.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        raise Stop(f".venv holds Python {held}; to change it, remove it first: rm -r {VENV}")


def check_choice(torch: str) -> None:
    """Refuse a word that pip would take for some other package."""
    named = any(Path(word).name.startswith("torch") for word in shlex.split(torch))
    if torch and torch != CUDA and not named:
        raise Stop(f"TORCH={torch} does not name PyTorch. {choices()}")


def choices() -> str:
    """How to say which PyTorch to install."""
    return (
        "Choose, once:\n"
        "  make setup TORCH=cuda     what your package index has, CUDA packages included\n"
        '  make setup TORCH="..."    the arguments that "Get started" on pytorch.org gives for\n'
        f"                            pip install (there is a CPU choice), with {TORCH}"
    )


# System packages


def has_gl() -> bool:
    """Can OSMesa, or EGL with an OpenGL library, be loaded?"""
    if sys.platform != "linux":
        return True  # MuJoCo draws with the system's own OpenGL there
    osmesa = any(loads(name) for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"))
    return osmesa or (loads("libEGL.so.1") and (loads("libOpenGL.so.0") or loads("libGL.so.1")))


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


def read_stamp() -> dict[str, str]:
    """What the last complete set-up did."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def digest() -> str:
    """Changes when a requirement or this program does."""
    contents = [(ROOT / name).read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def install(torch: str, changed: bool) -> None:
    """Make .venv, install the tested packages there, and leave a stamp.

    `torch` is the choice of PyTorch, `changed` whether it is another one than the last time.
    """
    if not (PYTHON.exists() and PYTHON.with_name("pip").exists()):
        ensure(has_venv, (f"python3.{sys.version_info[1]}-venv",), "Python has no module ensurepip")
        say(f"creating .venv with Python {sys.version.split()[0]}")
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip("install", "pip>=22.3")  # for --dry-run with --report
    install_torch(torch, changed)
    say("installing the tested packages")
    pip("install", *CONSTRAINTS, "--no-warn-conflicts", "--editable", f"{ROOT}[dev]")
    pip("install", *CONSTRAINTS, "--no-deps", *WITHOUT_DEPENDENCIES)
    STAMP.write_text(json.dumps({"files": digest(), "torch": torch}) + "\n")
    say("ready")


def install_torch(torch: str, changed: bool) -> None:
    """Take what is there, or what the user chose; never CUDA packages by surprise."""
    version = TORCH.partition("==")[2]  # an installed one may end in +cpu or the like
    satisfied = any(VENV.glob(f"lib/python*/site-packages/torch-{version}[+.]*dist-info"))
    if satisfied and not changed:
        return
    if not torch:
        refuse_cuda(pip_plan())
    say(f"installing PyTorch ({torch or TORCH})")
    if satisfied:
        pip("uninstall", "--yes", "torch")  # another build of the same version counts as installed
    pip("install", *([TORCH] if torch in ("", CUDA) else shlex.split(torch)))


def pip_plan() -> list[str]:
    """Names of the packages that installing PyTorch would bring."""
    say("asking pip what PyTorch would bring")
    plan = [PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", TORCH]
    report = subprocess.run(plan, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [item["metadata"]["name"].lower() for item in json.loads(report)["install"]]


def refuse_cuda(names: list[str]) -> None:
    """Let the user choose between a CPU and a CUDA build where the index offers CUDA."""
    cuda = [name for name in names if name.startswith(CUDA_PREFIXES)]
    if cuda:
        raise Stop(
            f"{TORCH} from your package index brings {len(cuda)} CUDA packages, several gigabytes. "
            f"{choices()}"
        )


def pip(command: str, *arguments: str | Path) -> None:
    """Run the pip of .venv."""
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([PYTHON, "-m", "pip", command, *quiet, *arguments], check=True)


def say(text: str) -> None:
    """One line of progress."""
    print(f"[setup] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
