from __future__ import annotations

import importlib
import subprocess
import sys

import imageio.v3 as imageio
import pytest

from fosp_ext import doctor
from fosp_ext.envs import gl


@pytest.mark.sim
def test_all_works_here(tmp_path, capsys):
    frame = tmp_path / "folder" / "frame.png"
    assert doctor.main(["--frame", str(frame)]) == 0
    out = capsys.readouterr().out
    assert "BROKEN" not in out
    assert "everything works" in out
    for word in ("python", "torch", "mujoco", "safety-gymnasium", "1.0.0", "opengl", "vision_back"):
        assert word in out
    image = imageio.imread(frame)
    assert image.shape == (256, 768, 3)
    assert all(image[:, 256 * k : 256 * (k + 1)].std() > 10 for k in range(3))


def test_it_survives_a_python_without_any_package(tmp_path):
    command = [sys.executable, "-S", "-m", "fosp_ext.doctor", "--frame", str(tmp_path / "f.png")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == ""
    for package in ("torch", "mujoco", "safety-gymnasium"):
        assert f"BROKEN  {package:<18} not installed\n        -> " in result.stdout
    assert not (tmp_path / "f.png").exists()


def test_a_broken_opengl_is_named_and_nothing_is_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gl, "probe", lambda backend: "no driver")
    monkeypatch.setenv("MUJOCO_GL", "")
    assert doctor.main(["--frame", str(tmp_path / "f.png")]) == 1
    lines = capsys.readouterr().out.splitlines()
    broken = next(k for k, line in enumerate(lines) if line.startswith("BROKEN  opengl"))
    assert gl.APT_LINE in lines[broken + 1]
    assert any(line.startswith("BROKEN  environment        not tried") for line in lines)
    assert not (tmp_path / "f.png").exists()


def test_a_package_that_cannot_be_imported_is_named(monkeypatch):
    def fail(name):
        raise OSError("libhdf5.so: cannot open shared object file\nmore")

    monkeypatch.setattr(importlib, "import_module", fail)
    finding = doctor.check_package("h5py", "h5py")
    assert not finding.works
    assert "libhdf5.so: cannot open shared object file" in str(finding)
    assert "more" not in str(finding)
    assert "--force-reinstall h5py" in str(finding)


def test_a_frame_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(doctor, "_play_and_draw", lambda: [])
    finding = doctor.check_environment(tmp_path / "file" / "f.png")
    assert not finding.works
    assert "see docs/start/troubleshooting.md" in str(finding)
