from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from fosp_ext import doctor

ROOT = Path(__file__).resolve().parents[1]
APT_LINE = "apt-get update && apt-get install -y libegl1 libgl1-mesa-dri libopengl0"


@pytest.fixture
def bootstrap(monkeypatch) -> ModuleType:
    """The program with OpenGL found, and no command allowed to run."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    module = importlib.import_module("bootstrap")
    monkeypatch.setattr(module, "loads", lambda library: True)
    monkeypatch.setattr(
        module, "subprocess", SimpleNamespace(CalledProcessError=OSError, DEVNULL=None)
    )
    return module


@pytest.fixture
def builds(bootstrap, monkeypatch) -> ModuleType:
    """The module that chooses a build of PyTorch, on a machine without a GPU."""
    module = importlib.import_module("torch_build")
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    return module


class Index(SimpleNamespace):
    """Packages: `brings` is what PyTorch would, `installable` holds the words that succeed."""

    uv = ""

    def plan(self, *words: str) -> list[Any]:
        assert words == ("torch==2.13.0",)
        return self.brings

    def can_install(self, *words: str) -> bool:
        return words in self.installable


def only(*libraries: str):
    return lambda library: library in libraries


@pytest.mark.parametrize(
    ("libraries", "backend", "found"),
    [
        ((), "", False),
        (("libOSMesa.so.8",), "", True),
        (("libOSMesa.so.8",), "osmesa", True),
        (("libOSMesa.so.8",), "egl", False),
        (("libEGL.so.1",), "", False),
        (("libEGL.so.1", "libOpenGL.so.0"), "", True),
        (("libEGL.so.1", "libOpenGL.so.0"), "egl", True),
        (("libEGL.so.1", "libOpenGL.so.0"), "osmesa", False),
        (("libEGL.so.1", "libGL.so.1"), "", True),
        (("libOpenGL.so.0", "libGL.so.1"), "", False),
        ((), "glfw", True),  # drawn with a display, tried after the installation
    ],
)
def test_which_libraries_are_enough(bootstrap, monkeypatch, libraries, backend, found):
    monkeypatch.setattr(bootstrap, "loads", only(*libraries))
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    assert bootstrap.has_gl(backend) == found


def test_the_backend_that_was_chosen_is_the_one_that_is_asked_for(bootstrap, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(bootstrap, "loads", only("libEGL.so.1", "libOpenGL.so.0"))
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert bootstrap.main([]) == 2
    said = capsys.readouterr().err
    assert "MUJOCO_GL=osmesa is set and the library of osmesa was not found" in said
    assert "apt-get update && apt-get install -y libosmesa6" in said


def test_a_backend_that_cannot_draw_is_not_ready(bootstrap, monkeypatch, tmp_path):
    """The library is there and does not work: found out with the Python that will draw."""
    monkeypatch.setattr(bootstrap, "subprocess", subprocess)
    (tmp_path / "bin").mkdir()
    bootstrap.python_of(tmp_path).symlink_to(sys.executable)
    monkeypatch.setenv("MUJOCO_GL", "rubber")
    with pytest.raises(bootstrap.Stop, match=r"cannot be drawn: .*rubber.* unset MUJOCO_GL"):
        bootstrap.check_drawing(tmp_path, "rubber")


def test_without_gl_a_user_gets_the_line_to_type(bootstrap, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "loads", only())
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert bootstrap.main([]) == 2
    assert APT_LINE in capsys.readouterr().err


def test_without_gl_root_gets_the_packages(bootstrap, monkeypatch):
    commands, there = [], []
    monkeypatch.setattr(bootstrap, "loads", lambda library: library in there)
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        bootstrap.subprocess, "run", lambda words, **_: commands.append(words), raising=False
    )
    packages = bootstrap.GL_PACKAGES[""]
    wanted = (lambda: bootstrap.has_gl(""), packages, "no library was found")
    with pytest.raises(bootstrap.Stop, match="no library was found, although this was run"):
        bootstrap.ensure(*wanted)
    assert [words[2] for words in commands] == ["update", "install"]
    assert commands[1][-3:] == ["libegl1", "libgl1-mesa-dri", "libopengl0"]
    there.extend(["libEGL.so.1", "libOpenGL.so.0"])
    bootstrap.ensure(*wanted)
    assert len(commands) == 2


@pytest.mark.parametrize(("version", "good"), [((3, 9, 18), 0), ((3, 10, 0), 1), ((3, 14, 0), 0)])
def test_supported_pythons(bootstrap, tmp_path, monkeypatch, version, good):
    monkeypatch.setattr(bootstrap.sys, "version_info", version)
    if good:
        bootstrap.check_python(tmp_path, same=False)
    else:
        with pytest.raises(bootstrap.Stop, match=r"is not supported, 3\.10 to 3\.13 are"):
            bootstrap.check_python(tmp_path, same=False)


def test_a_venv_of_another_python_is_kept(bootstrap, tmp_path, monkeypatch):
    (tmp_path / "pyvenv.cfg").write_text("home = /usr\nversion = 3.11.7\n")
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 12, 1))
    bootstrap.check_python(tmp_path, same=False)
    with pytest.raises(bootstrap.Stop, match=r"holds Python 3\.11\.7"):
        bootstrap.check_python(tmp_path, same=True)


def stamp(bootstrap, venv: Path, **values: str) -> None:
    """Leave a virtual environment that was set up with these values."""
    bootstrap.python_of(venv).parent.mkdir(exist_ok=True)
    bootstrap.python_of(venv).touch()
    content = {"files": bootstrap.digest(), "torch": "", "gl": "", **values}
    (venv / bootstrap.STAMP).write_text(json.dumps(content))


def test_the_second_time_nothing_runs(bootstrap, tmp_path, monkeypatch):
    """Any command would raise: the fixture took `subprocess` away."""
    venv = ["--venv", str(tmp_path)]
    stamp(bootstrap, tmp_path, torch="torch")
    assert bootstrap.main(venv) == 0
    assert bootstrap.main([*venv, "--torch", "torch"]) == 0
    with pytest.raises(AttributeError):
        bootstrap.main([*venv, "--torch", "cuda"])
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(AttributeError):
        bootstrap.main(venv)
    monkeypatch.delenv("MUJOCO_GL")
    (tmp_path / bootstrap.STAMP).write_text("torn")
    with pytest.raises(AttributeError):
        bootstrap.main(venv)


def test_another_backend_is_tried_without_installing(bootstrap, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(bootstrap, "check_drawing", lambda venv, backend: tried.append(backend))
    stamp(bootstrap, tmp_path)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert bootstrap.main(["--venv", str(tmp_path)]) == 0
    assert bootstrap.main(["--venv", str(tmp_path)]) == 0
    assert tried == ["osmesa"]


CUDA = [("torch", "file:///torch"), ("nvidia-cublas", "file:///cublas"), ("triton", "file:///tri")]
PLAIN = [("torch", "file:///torch"), ("sympy", "file:///sympy")]


@pytest.mark.parametrize(
    ("choice", "gpu", "brings", "arguments", "said"),
    [
        ("", False, PLAIN, ["torch==2.13.0"], "without CUDA"),
        ("cpu", True, PLAIN, ["torch==2.13.0"], "without CUDA"),
        ("", False, CUDA, ["torch==2.13.0"], "3 packages, 0 MB. To take another: make set"),
        ("cpu", False, CUDA, ["torch==2.13.0"], "3 packages"),
        ("", True, CUDA, ["torch===2.13.0"], "the CUDA build"),
        ("cuda", False, CUDA, ["torch===2.13.0"], "the CUDA build"),
        ("./torch.whl --no-deps", False, None, ["./torch.whl", "--no-deps"], ""),
    ],
)
def test_which_build_is_taken(builds, monkeypatch, choice, gpu, brings, arguments, said):
    """It never stops: where only a CUDA build can be had, that is taken, and its size said."""
    monkeypatch.setattr(builds, "has_gpu", lambda: gpu)
    monkeypatch.setattr(builds, "_size", lambda url: 1000)
    installable = {("torch===2.13.0",)}
    plan = [builds.Planned(*each) for each in brings or []]
    lines: list[str] = []
    taken = builds.torch_arguments(
        choice, Index(brings=plan, installable=installable), lines.append
    )
    assert taken == arguments
    assert said in " ".join(lines)
    assert len(lines) <= 2


def test_an_index_without_a_cuda_build_of_that_name(builds):
    index = Index(installable=set())
    assert builds.torch_arguments("cuda", index, print) == ["torch==2.13.0"]


def test_uv_takes_its_cpu_build_where_it_can(builds):
    cpu = ("torch==2.13.0", "--torch-backend", "cpu")
    index = Index(uv="/usr/bin/uv", installable={cpu})
    lines: list[str] = []
    assert builds.torch_arguments("", index, lines.append) == list(cpu)
    index = Index(uv="/usr/bin/uv", installable=set())
    assert builds.torch_arguments("", index, lines.append) == ["torch==2.13.0"]
    assert len(lines) == 1
    assert "make setup TORCH=" in lines[0]


def test_how_much_there_is_to_fetch(builds, tmp_path):
    (tmp_path / "a b.whl").write_bytes(b"0" * 3_000_000)
    there = builds.Planned("a", (tmp_path / "a b.whl").as_uri())
    gone = builds.Planned("b", (tmp_path / "gone.whl").as_uri())
    assert builds.megabytes([there, there]) == "6 MB"
    assert builds.megabytes([there, gone]) == "more than 3 MB"
    assert builds.megabytes([gone]) == "several gigabytes"


@pytest.mark.parametrize(
    ("torch", "good"),
    [
        ("", True),
        ("cuda", True),
        ("cpu", True),
        ("torch==2.13.0 --index-url https://example.org/cpu", True),
        ("wheels/torch-2.13.0-cp311-cp311-linux_x86_64.whl --no-deps", True),
        ("gpu", False),
        ("--index-url https://example.org/torch-mirror/cpu", False),
    ],
)
def test_the_choice_must_name_torch(bootstrap, tmp_path, capsys, torch, good):
    """`pip install gpu` would fetch some other package."""
    stamp(bootstrap, tmp_path, torch=torch)
    assert bootstrap.main(["--venv", str(tmp_path), f"--torch={torch}"]) == (0 if good else 2)
    assert good or "does not name PyTorch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("installed", "changed", "calls"),
    [
        ("2.13.0+cpu", False, []),
        ("", False, [("install", "torch==2.13.0")]),
        ("2.12.1", False, [("install", "torch==2.13.0")]),
        ("2.13.0", True, [("remove", "torch"), ("install", "torch==2.13.0")]),
    ],
)
def test_which_torch_is_installed(bootstrap, builds, tmp_path, installed, changed, calls):
    done: list[tuple[str, ...]] = []
    (tmp_path / f"lib/python3.11/site-packages/torch-{installed}.dist-info").mkdir(parents=True)
    index = Index(
        brings=[],
        install=lambda *words: done.append(("install", *words)),
        remove=lambda name: done.append(("remove", name)),
    )
    bootstrap.install_torch(tmp_path, index, "", changed)
    assert done == calls


def test_a_choice_is_kept_until_there_is_another(bootstrap, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(
        bootstrap, "install", lambda venv, torch, changed, uv: done.append((torch, changed))
    )
    monkeypatch.setattr(bootstrap, "check_drawing", lambda venv, backend: None)
    for words in ([], ["--torch", "cuda"], ["--torch", "torch==2.13.0"]):
        stamp(bootstrap, tmp_path, files="of another version", torch="cuda")
        assert bootstrap.main(["--venv", str(tmp_path), *words]) == 0
    assert done == [("cuda", False), ("cuda", False), ("torch==2.13.0", True)]


def test_uv_has_to_be_there(bootstrap, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert bootstrap.main(["--venv", str(tmp_path), "--installer", "uv"]) == 2
    assert "there is no program uv" in capsys.readouterr().err


def test_all_agree_on_the_pythons(bootstrap):
    oldest, newest = bootstrap.OLDEST, bootstrap.NEWEST
    assert (oldest, newest) == (doctor.OLDEST, doctor.NEWEST)
    bounds = f'requires-python = ">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"'
    assert bounds in (ROOT / "pyproject.toml").read_text().splitlines()


def test_every_package_without_dependencies_is_pinned(bootstrap):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0]: line for line in lines if "==" in line}
    assert pins["torch"] == f"torch=={bootstrap.VERSION}"
    assert set(bootstrap.WITHOUT_DEPENDENCIES) <= set(pins)


def test_make_lists_its_targets():
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    targets = {
        "help",
        "setup",
        "demo",
        "test",
        "matrix",
        "campaign",
        "lint",
        "format",
        "docs",
        "check",
    }
    assert targets == {line.split()[1] for line in done.stdout.splitlines()}


def test_hooks_do_what_make_does():
    """Before a commit: the checks of `make lint`, mended as `make format` does."""
    (repository,) = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
    makefile = (ROOT / "Makefile").read_text().replace("$(RUN)", ".venv/bin/python")
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(entries) == 3
    assert all(f"@{entry}" in makefile for entry in entries)


def test_the_image_has_the_packages_of_set_up(bootstrap):
    """No Docker here: what can be compared is compared."""
    text = (ROOT / "Dockerfile").read_text()
    words = set(text.split())
    assert set(bootstrap.GL_PACKAGES["egl"]) <= words
    assert {"make", "python3-venv", "build-essential"} <= words
    assert 'make setup TORCH="${TORCH}"' in text
    assert re.findall(r"^ARG (\w+)=", text, re.M) == ["BASE", "TORCH"]
