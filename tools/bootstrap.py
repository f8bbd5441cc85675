"""Make .venv ready: Python packages, a PyTorch that was asked for, and a headless GL library.

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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "fosp-setup.json"
OLDEST, NEWEST = (3, 10), (3, 13)
OLDEST_PIP = (22, 3)  # --dry-run with --report
TORCH = "torch==2.13.0"
CUDA = "cuda"  # the choice of whatever build the default package index has
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
GL_PACKAGES = ["libegl1", "libgl1-mesa-dri", "libopengl0"]
OSMESA_PACKAGE = "libosmesa6"  # not in every newer release; EGL alone is enough
REQUIREMENTS = (
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-nodeps.txt",
    "requirements-dev-nodeps.txt",
    "constraints.txt",
)


class Stop(Exception):
    """Something the user has to decide or install."""


def main(argv: list[str]) -> int:
    """Set up; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", help="cuda, or arguments for pip install")
    parser.add_argument(
        "--this-python", action="store_true", help=".venv must hold the Python that runs this"
    )
    arguments = parser.parse_args(argv)
    try:
        check_python(arguments.this_python)
        check_choice(arguments.torch)
        ensure_gl()
        stamp = read_stamp()
        if PYTHON.exists() and stamp.get("files") == digest() and chosen(arguments.torch, stamp):
            return 0
        ensure_venv()
        install(arguments.torch, stamp)
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


# OpenGL


def ensure_gl() -> None:
    """Find a library that renders without a display, or install it as root."""
    if has_gl():
        return
    apt_install(
        [*GL_PACKAGES, OSMESA_PACKAGE], "no headless OpenGL library (EGL or OSMesa) was found"
    )
    if not has_gl():
        apt_install(GL_PACKAGES, "no headless OpenGL library (EGL or OSMesa) was found")
    if not has_gl():
        raise Stop("the OpenGL packages are installed, but neither EGL nor OSMesa can be loaded")


def has_gl() -> bool:
    """Can OSMesa, or EGL with an OpenGL library, be loaded?"""
    if sys.platform != "linux":
        return True  # MuJoCo draws with the system's own OpenGL there
    osmesa = any(loads(name) for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"))
    return osmesa or (loads("libEGL.so.1") and (loads("libOpenGL.so.0") or loads("libGL.so.1")))


def loads(library: str) -> bool:
    """Is this shared library there?"""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def apt_install(packages: list[str], reason: str) -> None:
    """Install Debian packages as root, else say what to type."""
    line = f"apt-get update && apt-get install -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise Stop(
            f"{reason}, and this is not Debian or Ubuntu; install what these hold: {packages}"
        )
    if os.geteuid() != 0:
        raise Stop(f"{reason}; as root, run: {line}")
    say(f"{reason}; running {line}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        env=environment,
        check=False,
        stdout=subprocess.DEVNULL,
    )


# Python packages


def digest() -> str:
    """Changes when a requirement or this program does."""
    files = [ROOT / name for name in REQUIREMENTS] + [Path(__file__)]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def read_stamp() -> dict:
    """What the last complete set-up did."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def chosen(torch: str, stamp: dict) -> bool:
    """Is the asked-for PyTorch the one that was installed?"""
    return not torch or torch == stamp.get("torch")


def ensure_venv() -> None:
    """Create .venv; on Debian that needs a package of its own."""
    if succeeds([PYTHON, "-m", "pip", "--version"]):
        return
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python3.{sys.version_info[1]}-venv"
        apt_install([package], "Python's venv module is incomplete")
        if importlib.util.find_spec("ensurepip") is None:
            raise Stop(f"Python's venv module is still incomplete; install {package}")
    say(f"creating .venv with Python {sys.version.split()[0]}")
    run([sys.executable, "-m", "venv", VENV])


def install(torch: str, stamp: dict) -> None:
    """Install the pinned packages, then leave a stamp."""
    version = succeeds([PYTHON, "-m", "pip", "--version"]).split()[1]
    if tuple(map(int, version.split(".")[:2])) < OLDEST_PIP:
        pip("install", "--upgrade", "pip")
    install_torch(torch, stamp)
    say("installing the pinned packages")
    limits = ["--constraint", ROOT / "constraints.txt", "--no-warn-conflicts"]
    wanted = [
        "--requirement",
        ROOT / "requirements.txt",
        "--requirement",
        ROOT / "requirements-dev.txt",
    ]
    pip("install", *limits, *wanted)
    for name in ("requirements-nodeps.txt", "requirements-dev-nodeps.txt"):
        pip("install", "--no-deps", "--requirement", ROOT / name)
    record = {"files": digest(), "torch": torch or stamp.get("torch", "")}
    STAMP.write_text(json.dumps(record) + "\n")
    say("ready")


def install_torch(torch: str, stamp: dict) -> None:
    """Take what is there, or what the user chose; never CUDA packages by surprise."""
    installed = succeeds(
        [PYTHON, "-c", "import importlib.metadata as m; print(m.version('torch'))"]
    )
    satisfied = installed.split("+")[0] == TORCH.partition("==")[2]
    if satisfied and chosen(torch, stamp):
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


def pip(*arguments: str | Path) -> None:
    """Run the pip of .venv."""
    quiet = ["--quiet", "--disable-pip-version-check"]
    run([PYTHON, "-m", "pip", *arguments[:1], *quiet, *arguments[1:]])


def run(command: list) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


def succeeds(command: list) -> str:
    """The output of a command, or nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def say(text: str) -> None:
    """One line of progress."""
    print(f"[setup] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
