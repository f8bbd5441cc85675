"""Is this machine ready? `python -m fosp_ext.doctor` checks it and says how to mend what is broken.

Prints the versions, the OpenGL library in use and the cameras, and writes one rendered frame. The
exit code is 0 only if everything works. Nothing is imported before the check that is about it, so
that the doctor runs, and explains itself, where packages are missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from dreamer.boundary import Parser, guarded, named_path
from fosp_ext.commands import as_called

TASK = "SafetyPointGoal1-v0"
FRAME = Path("logdir/doctor.png")
OLDEST, NEWEST = (3, 10), (3, 13)
PACKAGES = {  # distribution: module
    "torch": "torch",
    "numpy": "numpy",
    "h5py": "h5py",
    "ruamel.yaml": "ruamel.yaml",
    "tensorboard": "tensorboard",
    "imageio": "imageio",
    "av": "av",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
    "gymnasium": "gymnasium",
}
SIMULATOR = {"mujoco": "mujoco", "xmltodict": "xmltodict", "PyYAML": "yaml", "PyOpenGL": "OpenGL"}
INSTALL_SIMULATOR = 'pip install "safety-gymnasium==1.0.0" --no-deps'


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    works: bool
    detail: str
    remedy: str = ""  # what to do if it does not work

    def __str__(self) -> str:
        text = f"{'ok    ' if self.works else 'BROKEN'}  {self.name:<18} {self.detail}"
        return text if self.works or not self.remedy else f"{text}\n{'':8}-> {self.remedy}"


def check_python() -> Finding:
    """The Python version is one we test."""
    works = OLDEST <= sys.version_info[:2] <= NEWEST
    remedy = "make the virtual environment with Python 3.11 (3.10 to 3.13 work)"
    return Finding("python", works, f"{platform.python_version()} ({platform.platform()})", remedy)


def check_package(distribution: str, module: str) -> Finding:
    """The package is installed and can be imported."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Finding(
            distribution, False, "not installed", f"make setup, or pip install {distribution}"
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package can raise anything
        detail = f"{version}, but it cannot be imported: {_one_line(error)}"
        remedy = f"mend what is broken above, or pip install --force-reinstall {distribution}"
        return Finding(distribution, False, detail, remedy)
    return Finding(distribution, True, version)


def check_device() -> Finding:
    """What torch will compute on. A machine without a GPU is fine."""
    try:
        torch = importlib.import_module("torch")
    except Exception:
        return Finding("device", False, "unknown without torch", "mend torch first")
    if not torch.cuda.is_available():
        return Finding("device", True, f"cpu, {torch.get_num_threads()} threads")
    return Finding("device", True, f"cuda, {torch.cuda.get_device_name(0)}")


def check_opengl() -> Finding:
    """Some OpenGL library can draw without a display, tried in a child process."""
    if importlib.util.find_spec("mujoco") is None:
        return Finding("opengl", False, "not tried without mujoco", "mend mujoco first")
    gl = importlib.import_module("fosp_ext.envs.gl")
    asked = os.environ.get(gl.VARIABLE)
    origin = f"{gl.VARIABLE} was set" if asked else f"chosen; set {gl.VARIABLE} to choose another"
    try:
        backend = gl.choose_backend()
    except ValueError as error:
        remedy = f"unset {gl.VARIABLE}" if asked else gl.APT_LINE
        return Finding("opengl", False, _one_line(error), remedy)
    reason = gl.probe(backend)
    if reason:
        remedy = f"unset {gl.VARIABLE} to let us choose, or {gl.APT_LINE}"
        return Finding("opengl", False, f"{backend} ({origin}): {reason}", remedy)
    return Finding("opengl", True, f"{backend} ({origin})")


def check_safety_gymnasium() -> Finding:
    """Release 1.0.0 is installed and can be imported through the shim."""
    name = "safety-gymnasium"
    try:
        version = metadata.version(name)
        importlib.import_module("fosp_ext.envs.shim").import_safety_gymnasium()
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", INSTALL_SIMULATOR)
    except Exception as error:
        remedy = f"mend what is broken above, or {INSTALL_SIMULATOR}"
        return Finding(name, False, f"cannot be imported: {_one_line(error)}", remedy)
    return Finding(name, version == "1.0.0", version, INSTALL_SIMULATOR)


def check_environment(frame: Path) -> Finding:
    """A task resets, steps and renders; its cameras are saved side by side as one image."""
    try:
        images = _play_and_draw()
        _save(images, frame)
    except Exception as error:
        return Finding("environment", False, _one_line(error), "see docs/start/troubleshooting.md")
    names = ", ".join(f"{name} {image.shape[1]}x{image.shape[0]}" for name, image in images)
    return Finding("environment", True, f"{TASK}; cameras: {names}; frame: {frame}")


def diagnose(frame: Path, report: Callable[[Finding], None]) -> bool:
    """Run the checks in order, report each at once, and return whether all work.

    A broken OpenGL driver can crash the process, so nothing is drawn here if its check failed.
    """
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        report(finding)

    add(check_python())
    for distribution, module in PACKAGES.items():
        add(check_package(distribution, module))
    add(check_device())
    learning = len(findings)
    add(check_opengl())  # before MuJoCo is imported, which reads the choice made here
    for distribution, module in SIMULATOR.items():
        add(check_package(distribution, module))
    add(check_safety_gymnasium())
    if all(finding.works for finding in findings[learning:]):
        add(check_environment(frame))
    else:
        add(
            Finding(
                "environment", False, "not tried", "mend what is broken above, then run this again"
            )
        )
    return all(finding.works for finding in findings)


def _play_and_draw() -> list[tuple[str, Any]]:
    """A few steps of the task; then every camera's name and image (height, width, 3)."""
    envs = importlib.import_module("fosp_ext.envs")
    env = envs.make_env(TASK)
    try:
        obs, _ = env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(5):
            obs, *_ = env.step(env.action_space.sample())
        images = [*obs.items(), ("overhead", env.render())]
    finally:
        env.close()
    for name, image in images:
        if image.std() < 1:
            raise RuntimeError(f"camera '{name}' draws an empty image")
    return images


def _save(images: list[tuple[str, Any]], path: Path) -> None:
    """The images in one row, the small ones enlarged to the height of the largest."""
    numpy, imageio = importlib.import_module("numpy"), importlib.import_module("imageio.v3")
    height = max(image.shape[0] for _, image in images)
    row = []
    for _, image in images:
        factor = height // image.shape[0]
        row.append(image.repeat(factor, 0).repeat(factor, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, numpy.concatenate(row, 1))


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    parser = Parser(
        prog=as_called("python -m fosp_ext.doctor"), description=as_called(__doc__).split("\n")[0]
    )
    parser.add_argument(
        "--frame", type=named_path, default=FRAME, help="where to write the rendered frame"
    )
    options = parser.parse_args(arguments)
    return guarded(partial(command, options.frame))


def command(frame: Path) -> int:
    """The checks, with the errors that lie outside of them."""
    works = diagnose(frame, print)
    print("everything works" if works else "not everything works; see the lines marked BROKEN")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
