"""From a file to a trained, evaluated and exported agent, by the commands of data_format.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import eval as evaluation_command
import train
from dreamer.data.hdf5 import read_episodes, validate_dataset
from fosp_ext import export
from fosp_ext.dataset import __main__ as dataset_command
from fosp_ext.envs import check
from fosp_ext.run.run_folder import load_run
from tests.support import robot
from tests.support.commands import ROOT, metrics, saved
from tests.support.pages import commands

PAGE = ROOT / "docs" / "reference" / "data_format.md"
MODULE = "from tests.support.robot import WideRobot as Arm\n"
SHORT = ["--device", "cpu", "--run.updates", "2", "--run.heldout_every", "0"]
SHORT += ["--run.batch_length", "4", "--run.batch_size", "2", "--run.eval_every", "2"]


@pytest.fixture(scope="module")
def played() -> list[robot.Played]:
    """Three episodes; one number of an action lies beyond the range by rounding."""
    first, *others = robot.episodes(robot.WideRobot)
    action = first.action.copy()
    action[5, 0] = 2 * 1.0000001
    assert action[5, 0] > 2
    return [first._replace(action=action), *others]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the robot and the cost function of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_robot", "my_costs"):
        sys.modules.pop(name, None)
    (tmp_path / "my_robot.py").write_text(MODULE)
    (function,) = re.findall(r"^```python\n(def .*?)^```", PAGE.read_text(), re.S | re.M)
    (tmp_path / "my_costs.py").write_text(function)
    return tmp_path


def run_page(name: str) -> None:
    """Run the page's commands that have to do with `name`, in the debug size and briefly."""
    done = []
    for _, *words in commands(PAGE):
        if not any(name in word for word in words) and words[:2] != ["-m", "fosp_ext.envs.check"]:
            continue
        words = [word.replace("cpu", "debug") for word in words]
        done.append(" ".join(words[:2]) if words[0] == "-m" else words[0])
        if words[0] == "train.py":
            assert train.main([*words[1:], *SHORT]) == 0
        elif words[0] == "eval.py":
            assert evaluation_command.main([*words[1:], "--episodes", "1", "--videos", "1"]) == 0
        elif words[1] == "fosp_ext.dataset":
            assert dataset_command.main(words[2:]) == 0
        elif words[1] == "fosp_ext.export":
            assert export.main(words[2:]) == 0
        else:
            assert check.main(words[2:]) == 0
    assert done[-5:] == [
        "-m fosp_ext.dataset", "train.py", "eval.py", "-m fosp_ext.export", "eval.py",
    ]  # fmt: skip


def assert_trained(name: str, played: list[robot.Played], vectors: dict[str, int]) -> None:
    """The file holds what was played, and the run, its evaluation and the export what it says."""
    info = validate_dataset(f"{name}.h5")
    assert (info.cameras, info.size, info.action_size) == (("front",), 64, 2)
    assert info.action_bounds == ((-2.0, -2.0), (2.0, 2.0))
    for theirs, ours in zip(played, read_episodes(f"{name}.h5"), strict=True):
        np.testing.assert_allclose(2 * ours.action, theirs.action, atol=1e-6)
        np.testing.assert_array_equal(ours.reward, theirs.reward)
        np.testing.assert_array_equal(ours.cost, theirs.cost)
    run = Path("logdir") / name
    assert metrics(run)[-1]["eval/length"] == robot.LENGTH
    assert saved(run)["info"]["vectors"] == vectors
    (video,) = run.glob("eval/*/videos/*")
    assert video.stat().st_size > 1000
    summaries = sorted(Path("logdir").rglob("summary.json"), key=lambda path: path.stat().st_mtime)
    whole, exported = (json.loads(path.read_text()) for path in summaries)
    assert exported["length"] == whole["length"]
    # Weights that were rounded act a little otherwise, and an untrained memory lets that grow.
    assert exported["return"]["mean"] == pytest.approx(whole["return"]["mean"], abs=2)


def test_a_minari_dataset_with_joints(here, capsys, played):
    robot.write_minari(Path("reach-v0"), played)
    run_page("reach")
    out, err = capsys.readouterr()
    assert "note: actions scaled from -2 to 2 to -1 to 1, as the file says" in out
    assert "note: 1 action numbers beyond the range by rounding, clipped to it" in out
    assert "note: images of front resized from 96x96 to 64x64" in out
    assert "not used" not in err
    assert_trained("reach", played, {"joints": 3})
    line = metrics(Path("logdir/reach"))[-1]
    assert line["train/wm/vector_loss/joints"] > 0
    agent = load_run("reach-agent.pt", torch.device("cpu")).agent
    assert agent.world_model.encoder.vectors == ("joints",)


def test_a_dsrl_file(here, capsys, played):
    robot.write_dsrl(Path("theirs.hdf5"), played)
    run_page("drive")
    out, err = capsys.readouterr()
    assert "note: 1 action numbers beyond the range by rounding, clipped to it" in out
    assert "not used: observation 'joints' (float32 (3,))" in err
    assert_trained("drive", played, {})


def test_a_robomimic_file_with_a_cost_function(here, capsys, played):
    robot.write_robomimic(Path("low_dim_images.hdf5"), played, costs=False)
    with h5py.File("low_dim_images.hdf5", "a") as file:
        for demo in file["data"].values():
            for part in ("obs", "next_obs"):
                demo[f"{part}/agentview"] = demo[f"{part}/front"][()]
                demo[f"{part}/wrist"] = demo[f"{part}/front"][()]
                del demo[f"{part}/front"]
    run_page("lift")
    assert "note: 3 episodes whose observations 'wrist' were left out" in capsys.readouterr().out
    assert_trained("lift", played, {"joints": 3})


def test_recording_resizes_and_keeps_what_is_named(here, capsys):
    """`collect` in the same environment gives a file of the same form, and trains with it."""
    words = ["--task", "my_robot:Arm", "--env.cameras", "front", "--env.action_repeat", "1"]
    record = ["--configs", "collect", "debug", *words, "--dataset.mix", "random=1"]
    record += ["--dataset.workers", "1", "--dataset.episodes", "2"]
    assert train.main([*record, "--env.size", "96", "--dataset.path", "odd.h5"]) == 2
    assert "images of size 96 cannot be trained on" in capsys.readouterr().err
    assert train.main([*record, "--env.size", "32", "--dataset.path", "plain.h5"]) == 0
    assert "not used: observation 'joints'" in capsys.readouterr().err
    record += ["--env.size", "32", "--env.vectors", "joints", "--dataset.path", "own.h5"]
    assert train.main(record) == 0
    assert "not used" not in capsys.readouterr().err
    info = validate_dataset("own.h5")
    assert (info.size, info.vectors) == (32, {"joints": 3})
    assert info.action_bounds == ((-2.0, -2.0), (2.0, 2.0))
    assert "render" not in info.environment
    learn = ["--configs", "fosp_offline", "debug", *words, *SHORT, "--env.size", "32"]
    learn += ["--env.vectors", "joints", "--dataset.path", "own.h5", "--logdir", "run"]
    assert train.main(learn) == 0
    assert train.main([*learn, "--run.updates", "3"]) == 0  # it goes on
    online = ["--configs", "fosp_online", "debug", *words, "--env.size", "32", "--device", "cpu"]
    online += ["--env.vectors", "joints", "--from", "run", "--logdir", "online"]
    online += ["--online.steps", "26", "--online.envs", "1", "--run.log_every", "1"]
    online += ["--run.batch_length", "4", "--run.batch_size", "2", "--run.heldout_every", "0"]
    assert train.main(online) == 0
    kept = [each for path in Path("online/replay").glob("*.h5") for each in read_episodes(path)]
    assert kept[0].vectors["joints"].shape == (robot.LENGTH + 1, 3)
    assert saved(Path("online"))["info"]["vectors"] == {"joints": 3}
    wrong = [word.replace("joints", "joint") for word in learn]
    assert train.main([*wrong, "--logdir", "other"]) == 2
    assert "no vector 'joint' in the data; did you mean 'joints'?" in capsys.readouterr().err
