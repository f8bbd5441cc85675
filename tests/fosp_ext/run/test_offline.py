"""Training from a dataset: exact resume after every kind of stop, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from dreamer.config import to_dict
from dreamer.data.hdf5 import write_dataset
from dreamer.training.offline import OfflineRun
from dreamer.yaml_file import read_yaml
from fosp_ext.config import load_config
from tests.support.commands import (
    after_update,
    assert_same,
    metrics,
    offline,
    saved,
    snapshot,
    start,
)
from tests.support.toy_data import TOY_INFO, toy_episode

NO_SIMULATOR = """
import sys, train
code = train.main(sys.argv[1:])
loaded = {"mujoco", "safety_gymnasium"} & sys.modules.keys()
sys.exit(f"imported {loaded}" if loaded else code)
"""


@pytest.fixture
def copied_run(toy_run: Path, tmp_path: Path) -> Path:
    """The finished run, free to be changed."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


def test_a_frozen_world_model_is_the_pretrained_one(toy_dataset, tmp_path):
    alone, frozen = tmp_path / "alone", tmp_path / "frozen"
    model = ("--run.pretrain", "1", "--run.updates", "3")
    assert train.main(offline(toy_dataset, alone, *model)) == 0
    half = ("--run.pretrain", "0.5", "--run.updates", "6", "--run.freeze", "true")
    assert train.main(offline(toy_dataset, frozen, *half)) == 0
    one, other = (saved(path)["agent"] for path in (alone, frozen))
    for name, value in one.items():
        if name.startswith("world_model.") and isinstance(value, torch.Tensor):
            assert value.equal(other[name]), name
    assert not other["policy.actor.mlp.0.weight"].equal(one["policy.actor.mlp.0.weight"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--run.freeze", "true"), "run.freeze needs a pretrained world model"),
        (("--world_model.context", "7"), "leaves fewer than two rows of windows of"),
    ],
)
def test_windows_and_models_that_cannot_be_learned_from(toy_dataset, tmp_path, capsys, words, told):
    assert train.main(offline(toy_dataset, tmp_path / "run", *words)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Going on


@pytest.mark.invariant(34)
@pytest.mark.invariant(37)
def test_three_updates_and_three_more_equal_six(toy_dataset, toy_run, tmp_path, capsys):
    """The first three run in another process, which must not need the simulator."""
    logdir = tmp_path / "run"
    first = start(offline(toy_dataset, logdir, "--run.updates", "3"), NO_SIMULATOR)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert saved(logdir)["step"] == 3
    assert train.main(offline(toy_dataset, logdir)) == 0
    assert "has 3 updates behind it; 3 are left" in capsys.readouterr().err
    one, other = saved(toy_run), saved(logdir)
    assert one["step"] == other["step"] == 6
    assert_same(one["agent"], other["agent"])
    assert_same(one["rng"], other["rng"])
    assert metrics(toy_run) == metrics(logdir)
    assert [line["step"] for line in metrics(logdir)] == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_goes_on(toy_dataset, tmp_path):
    logdir, latest = tmp_path / "run", tmp_path / "run" / "checkpoints" / "latest"
    enough = "step_000000004.pt"
    words = ("--run.heldout_every", "0", "--run.save_every", "1")
    process = start(offline(toy_dataset, logdir, *words, "--run.updates", "100000"))
    try:
        deadline = time.monotonic() + 60
        while not latest.exists() or latest.read_text() < enough:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = saved(logdir)["step"]
    argv = offline(toy_dataset, logdir, *words, "--run.updates", str(done + 2))
    assert train.main(argv) == 0
    assert saved(logdir)["step"] == done + 2
    assert [line["step"] for line in metrics(logdir)] == list(range(1, done + 3))
    assert len(list((logdir / "checkpoints").iterdir())) == 3  # two checkpoints and the pointer


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_stops(
    toy_dataset, toy_run, tmp_path, monkeypatch, capsys, number, code
):
    logdir, before = tmp_path / "run", signal.getsignal(number)
    argv = offline(toy_dataset, logdir, "--run.heldout_every", "0")
    with monkeypatch.context() as patch:
        after_update(patch, 2, lambda _: os.kill(os.getpid(), number))
        assert train.main(argv) == code
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err.endswith("stopped; the same command continues\n")
    assert saved(logdir)["step"] == 2
    assert train.main(argv) == 0
    assert_same(saved(toy_run)["agent"], saved(logdir)["agent"])
    for one, other in zip(metrics(toy_run), metrics(logdir), strict=True):
        assert other.items() <= one.items()  # the straight run had held-out metrics too


def test_a_signal_during_held_out_metrics_is_not_lost(toy_dataset, tmp_path, monkeypatch):
    def log_heldout(self: OfflineRun, step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(OfflineRun, "log_heldout", log_heldout)
    assert train.main(offline(toy_dataset, tmp_path, "--run.save_every", "100")) == 143
    assert saved(tmp_path)["step"] == 3


def test_a_finished_run_says_so(toy_dataset, copied_run, capsys):
    before = snapshot(copied_run / "checkpoints"), metrics(copied_run)
    for updates in ("6", "5"):
        assert train.main(offline(toy_dataset, copied_run, "--run.updates", updates)) == 0
        assert "the run is finished, raise run.updates to go on" in capsys.readouterr().err
    assert (snapshot(copied_run / "checkpoints"), metrics(copied_run)) == before
    more = ("--run.updates", "7", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, copied_run, *more)) == 0
    assert saved(copied_run)["step"] == 7


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [
        ("seed", "1", "0"),
        ("actor.entropy", "0.5", "0.0003"),
        ("run.batch_size", "2", "4"),
        ("dataset.holdout", "0.4", "0.1"),
        ("method", "dreamerv3", "'fosp'"),
    ],
)
def test_other_settings_are_refused(toy_dataset, copied_run, capsys, key, value, before):
    files = snapshot(copied_run)
    assert train.main(offline(toy_dataset, copied_run, f"--{key}", value)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"error: {copied_run} holds a run with {key} {before}, this command says"
    )
    assert snapshot(copied_run) == files


def test_other_data_are_refused_and_a_copy_is_not(toy_dataset, copied_run, tmp_path, capsys):
    files = snapshot(copied_run)
    other = tmp_path / "other.h5"
    write_dataset(other, (toy_episode(seed=k) for k in range(1, 7)), TOY_INFO)
    assert train.main(offline(other, copied_run)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {copied_run} was trained on other data than {other}")
    assert snapshot(copied_run) == files
    same = shutil.copy(toy_dataset, tmp_path / "moved.h5")
    assert train.main(offline(same, copied_run)) == 0


def test_a_run_with_another_action_scale_is_refused(toy_dataset, copied_run, monkeypatch, capsys):
    """Older runs covered the robot's whole range; their settings do not say so."""
    monkeypatch.setattr("fosp_ext.envs.tasks._ACTION_SCALES", {})
    files = snapshot(copied_run)
    assert train.main(offline(toy_dataset, copied_run)) == 2
    assert "holds a run whose actions have another scale" in capsys.readouterr().err
    assert snapshot(copied_run) == files


def test_a_setting_that_is_newer_than_the_run_has_its_value_from_before(
    toy_dataset, copied_run, capsys
):
    config = read_yaml(copied_run / "config.yaml")
    del config["world_model"]["rssm"]["read"]
    with (copied_run / "config.yaml").open("w") as file:
        YAML().dump(config, file)
    assert train.main(offline(toy_dataset, copied_run)) == 2
    assert "world_model.rssm.read 'sample', this command says 'probabilities'" in (
        capsys.readouterr().err
    )


# Numbers that are not finite


@pytest.mark.parametrize("log_every", ["1", "100"])
def test_nan_stops_before_it_is_saved(toy_dataset, tmp_path, monkeypatch, capsys, log_every):
    words = ("--run.log_every", log_every, "--run.save_every", "2", "--run.heldout_every", "0")
    argv = offline(toy_dataset, tmp_path, *words)
    with monkeypatch.context() as patch:
        after_update(patch, 3, lambda result: result.update({"wm/loss": torch.tensor(torch.nan)}))
        assert train.main(argv) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"error: not finite.*: train/wm/loss; the last checkpoint is intact", line
    ), line
    assert saved(tmp_path)["step"] == 2
    assert train.main(argv) == 0
    assert saved(tmp_path)["step"] == 6


# What a run leaves behind


def test_tensorboard_has_scalars_histograms_and_videos(toy_run):
    events = EventAccumulator(str(toy_run)).Reload()
    tags = events.Tags()
    written = metrics(toy_run)[-1]
    assert set(tags["scalars"]) >= written.keys() - {"step"}
    wanted = {"train/wm/loss", "train/actor/loss", "heldout/cost_recall", "time/update_s"}
    assert set(tags["scalars"]) >= wanted
    losses = events.Scalars("train/wm/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[-1].value == pytest.approx(written["train/wm/loss"])
    names = ("action", "value", "cost_value", "violation_probability")
    assert set(tags["histograms"]) >= {f"heldout/{name}" for name in names}
    for camera in TOY_INFO.cameras:
        videos = events.Images(f"openl_{camera}")
        assert [video.step for video in videos] == [3, 6]
        image = Image.open(BytesIO(videos[-1].encoded_image_string))
        assert (image.format, image.n_frames) == (
            "GIF",
            41,
        )  # shorter than 45: the episode ends
        file = toy_run / "open_loop" / f"openl_{camera}_000000006.gif"
        assert file.read_bytes() == videos[-1].encoded_image_string


def test_the_folder_says_what_made_it(toy_dataset, copied_run):
    more = ("--run.updates", "7", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, copied_run, *more)) == 0
    config = load_config(copied_run / "config.yaml")
    assert (config.size, config.run.updates, config.dataset.path) == ("debug", 7, str(toy_dataset))
    state = saved(copied_run)
    assert state["config"] == to_dict(config)
    environment = {**TOY_INFO.environment, "action_scale": "0.05 1"}  # to which it converts
    wanted = {**vars(TOY_INFO), "cameras": list(TOY_INFO.cameras), "environment": environment}
    assert state["info"] == wanted
    starts = json.loads((copied_run / "meta.json").read_text())
    assert len(starts) == 2
    assert starts[1].keys() == {
        *(
            "time",
            "command",
            "commit",
            "machine",
            "processor",
            "gpu",
            "python",
            "versions",
            "processes",
        )
    }
    assert starts[1]["versions"]["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown|fosp-pytorch .*", starts[1]["commit"])


def test_storage_decides_nothing_and_the_seed_does(toy_dataset, toy_run, tmp_path):
    short = ("--run.updates", "2", "--run.heldout_every", "0")
    for name, words in {"disk": ("--dataset.storage", "disk"), "other": ("--seed", "1")}.items():
        assert train.main(offline(toy_dataset, tmp_path / name, *short, *words)) == 0
    straight, disk, other = (
        metrics(x)[:2] for x in (toy_run, tmp_path / "disk", tmp_path / "other")
    )
    assert straight == disk
    assert straight != other


def test_at_first_only_the_world_model_learns(toy_dataset, tmp_path):
    words = ("--run.updates", "4", "--run.pretrain", "0.5", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, tmp_path, *words)) == 0
    assert ["train/actor/loss" in line for line in metrics(tmp_path)] == [False, False, True, True]
    longer = ("--run.updates", "12", *words[2:])  # half of 12 would be six
    assert train.main(offline(toy_dataset, tmp_path, *longer)) == 0
    learned = ["train/actor/loss" in line for line in metrics(tmp_path)]
    assert learned == [False, False, *[True] * 10]


@pytest.fixture(scope="module")
def pretrained_model(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates of world-model pretraining."""
    logdir = tmp_path_factory.mktemp("model") / "run"
    words = ("--run.updates", "2", "--run.pretrain", "1", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, logdir, *words)) == 0
    return logdir


def test_a_model_that_another_run_learned_is_as_good_as_own(
    toy_dataset, pretrained_model, tmp_path, capsys
):
    words = ("--run.updates", "4", "--run.pretrain", "0.5", "--run.heldout_every", "0")
    assert train.main(offline(toy_dataset, tmp_path / "whole", *words)) == 0
    taken = ("--from", str(pretrained_model))
    assert train.main(offline(toy_dataset, tmp_path / "taken", *words, *taken)) == 0
    assert f"the world model of {pretrained_model}: 2 updates" in capsys.readouterr().err
    assert_same(saved(tmp_path / "taken")["agent"], saved(tmp_path / "whole")["agent"])
    assert metrics(tmp_path / "taken") == metrics(tmp_path / "whole")[2:]


@pytest.mark.parametrize("method", ["safedreamer", "bc"])
def test_another_method_takes_the_model_once(toy_dataset, pretrained_model, tmp_path, method):
    """A run that has a checkpoint of its own does not need the other one any more."""
    source = Path(shutil.copytree(pretrained_model, tmp_path / "model"))
    words = ("--configs", method, "--from", str(source), "--run.pretrain", "0.5")
    argv = offline(toy_dataset, tmp_path / "run", *words, "--run.heldout_every", "0")
    assert train.main([*argv, "--run.updates", "4"]) == 0
    assert [line["step"] for line in metrics(tmp_path / "run")] == [3, 4]
    shutil.rmtree(source)
    assert train.main([*argv, "--run.updates", "5"]) == 0
    assert saved(tmp_path / "run")["step"] == 5


def test_a_model_of_other_data_is_refused(toy_dataset, pretrained_model, tmp_path, capsys):
    write_dataset(tmp_path / "other.h5", (toy_episode(seed=90 + k) for k in range(4)), TOY_INFO)
    words = ("--run.pretrain", "0.5", "--from", str(pretrained_model))
    assert train.main(offline(tmp_path / "other.h5", tmp_path / "run", *words)) == 2
    assert "was trained on other data than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--seed", "1"), "was trained with seed 0, this command says 1"),
        (("--world_model.free_nats", "2"), "was trained with world_model.free_nats 1.0"),
        (("--configs", "dreamerv3"), "is of fosp; only that method has its world model"),
        (("--run.pretrain", "0.25"), "has 2 updates behind it; of run.updates 4"),
        (("--from", "nowhere"), "nowhere does not exist"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    toy_dataset, pretrained_model, tmp_path, capsys, words, wrong
):
    usual = ("--run.updates", "4", "--run.pretrain", "0.5", "--from", str(pretrained_model))
    assert train.main(offline(toy_dataset, tmp_path / "run", *usual, *words)) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_short_episodes_and_the_plain_dreamer(toy_dataset, tmp_path):
    """One held-out episode is shorter than a window; DreamerV3 has no cost decoder."""
    words = ("--configs", "dreamerv3", "--run.batch_length", "64", "--run.updates", "1")
    assert train.main(offline(toy_dataset, tmp_path, *words)) == 0
    (line,) = metrics(tmp_path)
    assert "heldout/image_loss/vision" in line
    assert not any("cost_recall" in tag or "lagrange" in tag for tag in line)


def test_without_a_dataset_a_default_one_is_recorded(toy_dataset, tmp_path, monkeypatch, capsys):
    def record(path: Path, settings: object, _: object) -> tuple:
        assert settings.episodes == 4
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_dataset, path)
        return ()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fosp_ext.run.data.collect_dataset", record)
    argv = ["--configs", "fosp_offline", "debug", "--run.updates", "1", "--run.heldout_every", "0"]
    assert train.main(argv) == 0
    assert "no dataset yet: recording 4 episodes" in capsys.readouterr().err
    task = tmp_path / "logdir" / "SafetyPointGoal1-v0"
    assert (task / "dataset.h5").exists()
    assert saved(task / "fosp_offline-debug-paper" / "seed0")["step"] == 1
