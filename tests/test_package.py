"""The package as people install it, away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path

import pytest

from fosp_ext import commands

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "configs.yaml")
COMMANDS = {"train", "eval", "dataset", "report", "export", "doctor"}
OPTIONAL = ("mujoco", "safety_gymnasium", "imageio", "xmltodict", "yaml", "av", "matplotlib")
EXTRAS = {"sim", "video", "plots", "onnx", "runtime", "wandb", "hub", "notebook"} | {
    "all",
    "docs",
    "dev",
}
WORLD = ("--task", "dreamer.envs.counting:CountingEnv", "--env.action_repeat", "1")


def call(*words: str | Path, cwd: Path, code: int = 0) -> str:
    """What a command says; it ends with the expected code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a source distribution of a copy, so that the repository stays as it is."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for package in ("dreamer", "fosp_ext"):
        shutil.copytree(ROOT / package, folder / package)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "test_docs.py", folder / "tests")
    call(
        *(sys.executable, "-c", "from setuptools import build_meta as b; b.build_sdist('dist')"),
        cwd=folder,
    )
    (source,) = (folder / "dist").iterdir()
    call(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", "wheels", source),
        cwd=folder,
    )
    (file,) = (folder / "wheels").iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in a new virtual environment with what `pip install` brings.

    The dependencies are those of this environment; packages of the extras are out of reach.
    """
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", place / "bin" / "python")
    call(*pip, "install", "--no-deps", "--no-index", wheel, cwd=place)
    paths = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    absent = f"import sys; sys.modules.update(dict.fromkeys({(*OPTIONAL, 'torchvision')}))"
    (site,) = (place / "lib").glob("python*/site-packages")
    (site / "of_the_tests.pth").write_text("\n".join([*paths, absent]) + "\n")
    return place / "bin"


def test_the_wheel_holds_the_two_packages_and_their_data(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        presets = file.read("fosp_ext/configs.yaml")
    assert presets == (ROOT / "configs.yaml").read_bytes()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dreamer", "fosp_ext"}
    files = {
        str(path.relative_to(ROOT))
        for package in ("dreamer", "fosp_ext")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"dreamer/py.typed", "fosp_ext/py.typed"} < files
    copies = {"fosp_ext/configs.yaml"}
    assert {name for name in names if ".dist-info/" not in name} == files | copies


def test_the_wheel_names_the_commands_and_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as file:
        texts = {Path(name).name: name for name in file.namelist() if ".dist-info/" in name}
        entries = ConfigParser()
        entries.read_string(file.read(texts["entry_points.txt"]).decode())
        about = message_from_string(file.read(texts["METADATA"]).decode())
    assert set(entries["console_scripts"]) == {f"fosp-{name}" for name in COMMANDS}
    needed = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert not any(line.startswith(("torchvision", "safety-gymnasium")) for line in needed)
    assert set(about.get_all("Provides-Extra")) == EXTRAS


def test_every_command_knows_its_name(installed, tmp_path):
    for name in COMMANDS:
        usage = call(installed / f"fosp-{name}", "--help", cwd=tmp_path)
        assert usage.startswith(f"usage: fosp-{name} "), usage
        assert not any(name in usage for name in commands.INSTALLED), usage


def test_names_in_the_repository_stay(monkeypatch):
    text = "python train.py --configs fosp_offline      train\n\n  python eval.py --logdir RUN\n"
    assert commands.as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fosp-train"])
    assert commands.as_called(text) == (
        "fosp-train --configs fosp_offline           train\n\n  fosp-eval --logdir RUN\n"
    )


def test_record_train_and_play_away_from_the_repository(installed, tmp_path):
    """With no package but the required ones."""
    record = ("--dataset.mix", "random=1", "--dataset.episodes", "12", "--dataset.workers", "1")
    train = installed / "fosp-train"
    call(train, "--configs", "collect", *WORLD, *record, "--dataset.path", "toy.h5", cwd=tmp_path)
    words = ("--dataset.path", "toy.h5", "--logdir", "run", "--run.updates", "2")
    call(train, "--configs", "fosp_offline", "debug", *WORLD, *words, cwd=tmp_path)
    assert list((tmp_path / "run" / "open_loop").glob("*.gif"))
    assert '"commit": "fosp-pytorch ' in (tmp_path / "run" / "meta.json").read_text()
    said = call(
        *(installed / "fosp-eval", "--logdir", "run", "--episodes", "1", "--videos", "1"),
        cwd=tmp_path,
    )
    assert "return            55.000" in said  # 1 + 2 + ... + 10
