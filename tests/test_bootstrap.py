from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from ruamel.yaml import YAML

from fosp_ext import doctor

ROOT = Path(__file__).resolve().parents[1]
APT_LINE = "apt-get update && apt-get install -y libegl1 libgl1-mesa-dri libopengl0"


@pytest.fixture
def bootstrap(tmp_path, monkeypatch) -> ModuleType:
    """The program with an empty place for .venv, OpenGL found, and no command allowed to run."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path)
    monkeypatch.setattr(module, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(module, "loads", lambda library: True)
    monkeypatch.setattr(
        module, "subprocess", SimpleNamespace(CalledProcessError=OSError, DEVNULL=None)
    )
    return module


def only(*libraries: str):
    return lambda library: library in libraries


@pytest.mark.parametrize(
    ("libraries", "found"),
    [
        ((), False),
        (("libOSMesa.so.8",), True),
        (("libEGL.so.1",), False),
        (("libEGL.so.1", "libOpenGL.so.0"), True),
        (("libEGL.so.1", "libGL.so.1"), True),
        (("libOpenGL.so.0", "libGL.so.1"), False),
    ],
)
def test_which_libraries_are_enough(bootstrap, monkeypatch, libraries, found):
    monkeypatch.setattr(bootstrap, "loads", only(*libraries))
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    assert bootstrap.has_gl() == found


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
    wanted = (bootstrap.has_gl, bootstrap.GL_PACKAGES, "no library was found")
    with pytest.raises(bootstrap.Stop, match="no library was found, although this was run"):
        bootstrap.ensure(*wanted)
    assert [words[2] for words in commands] == ["update", "install"]
    assert commands[1][-3:] == ["libegl1", "libgl1-mesa-dri", "libopengl0"]
    there.extend(["libEGL.so.1", "libOpenGL.so.0"])
    bootstrap.ensure(*wanted)
    assert len(commands) == 2


@pytest.mark.parametrize(("version", "good"), [((3, 9, 18), 0), ((3, 10, 0), 1), ((3, 14, 0), 0)])
def test_supported_pythons(bootstrap, monkeypatch, version, good):
    monkeypatch.setattr(bootstrap.sys, "version_info", version)
    if good:
        bootstrap.check_python(same=False)
    else:
        with pytest.raises(bootstrap.Stop, match=r"is not supported, 3\.10 to 3\.13 are"):
            bootstrap.check_python(same=False)


def test_a_venv_of_another_python_is_kept(bootstrap, tmp_path, monkeypatch):
    (tmp_path / "pyvenv.cfg").write_text("home = /usr\nversion = 3.11.7\n")
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 12, 1))
    bootstrap.check_python(same=False)
    with pytest.raises(bootstrap.Stop, match=r"holds Python 3\.11\.7"):
        bootstrap.check_python(same=True)


def test_the_second_time_nothing_runs(bootstrap):
    """Any command would raise: the fixture took `subprocess` away."""
    bootstrap.PYTHON.touch()
    bootstrap.STAMP.write_text(json.dumps({"files": bootstrap.digest(), "torch": "torch"}))
    assert bootstrap.main([]) == 0
    assert bootstrap.main(["--torch", "torch"]) == 0
    with pytest.raises(AttributeError):
        bootstrap.main(["--torch", "cuda"])
    bootstrap.STAMP.write_text("torn")
    with pytest.raises(AttributeError):
        bootstrap.main([])


def test_cuda_is_the_users_choice(bootstrap):
    bootstrap.refuse_cuda(["torch", "filelock", "sympy"])
    for name in ("nvidia-cublas", "cuda-bindings", "triton"):
        with pytest.raises(bootstrap.Stop, match="brings 1 CUDA packages") as stop:
            bootstrap.refuse_cuda(["torch", name])
        assert "make setup TORCH=cuda" in str(stop.value)
        assert 'make setup TORCH="..."' in str(stop.value)


@pytest.mark.parametrize(
    ("torch", "good"),
    [
        ("", True),
        ("cuda", True),
        ("torch==2.13.0 --index-url https://example.org/cpu", True),
        ("wheels/torch-2.13.0-cp311-cp311-linux_x86_64.whl --no-deps", True),
        ("cpu", False),
        ("--index-url https://example.org/torch-mirror/cpu", False),
    ],
)
def test_the_choice_must_name_torch(bootstrap, torch, good):
    """`pip install cpu` would fetch some other package."""
    if good:
        bootstrap.check_choice(torch)
    else:
        with pytest.raises(bootstrap.Stop, match="does not name PyTorch"):
            bootstrap.check_choice(torch)


@pytest.mark.parametrize(
    ("torch", "installed", "changed", "calls"),
    [
        ("", "2.13.0+cpu", False, []),
        ("", "", False, [["install", "torch==2.13.0"]]),
        ("", "2.12.1", False, [["install", "torch==2.13.0"]]),
        ("cuda", "", True, [["install", "torch==2.13.0"]]),
        ("cuda", "2.13.0+cpu", False, []),
        ("cuda", "2.13.0", True, [["uninstall", "--yes", "torch"], ["install", "torch==2.13.0"]]),
        ("./torch.whl --no-deps", "", True, [["install", "./torch.whl", "--no-deps"]]),
    ],
)
def test_which_torch_is_installed(
    bootstrap, tmp_path, monkeypatch, torch, installed, changed, calls
):
    done = []
    (tmp_path / f"lib/python3.11/site-packages/torch-{installed}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(bootstrap, "pip_plan", lambda: ["torch"])
    monkeypatch.setattr(bootstrap, "pip", lambda *arguments: done.append(list(arguments)))
    bootstrap.install_torch(torch, changed)
    assert done == calls


def test_a_choice_is_kept_until_there_is_another(bootstrap, monkeypatch):
    done = []
    monkeypatch.setattr(bootstrap, "install", lambda torch, changed: done.append((torch, changed)))
    bootstrap.STAMP.write_text(json.dumps({"files": "of another version", "torch": "cuda"}))
    for words in ([], ["--torch", "cuda"], ["--torch", "torch==2.13.0"]):
        assert bootstrap.main(words) == 0
    assert done == [("cuda", False), ("cuda", False), ("torch==2.13.0", True)]


def test_all_agree_on_the_pythons(bootstrap):
    oldest, newest = bootstrap.OLDEST, bootstrap.NEWEST
    assert (oldest, newest) == (doctor.OLDEST, doctor.NEWEST)
    bounds = f'requires-python = ">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"'
    assert bounds in (ROOT / "pyproject.toml").read_text().splitlines()


def test_every_package_without_dependencies_is_pinned(bootstrap):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0]: line for line in lines if "==" in line}
    assert pins["torch"] == bootstrap.TORCH
    assert set(bootstrap.WITHOUT_DEPENDENCIES) <= set(pins)


def test_make_lists_its_targets():
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    targets = {"help", "setup", "demo", "test", "lint", "format", "docs", "check"}
    assert targets == {line.split()[1] for line in done.stdout.splitlines()}


def test_hooks_do_what_make_does():
    """Before a commit: the checks of `make lint`, mended as `make format` does."""
    (repository,) = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
    makefile = (ROOT / "Makefile").read_text().replace("$(RUN)", ".venv/bin/python")
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(entries) == 3
    assert all(f"@{entry}" in makefile for entry in entries)
