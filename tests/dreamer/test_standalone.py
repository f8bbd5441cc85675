"""`python -m dreamer`: learns from scratch, goes on exactly, and refuses what it cannot do."""

from __future__ import annotations

import json
import os
import signal
import statistics
from pathlib import Path

import pytest

from dreamer.__main__ import main
from dreamer.config import load_yaml
from dreamer.training.config import OfflineConfig, OnlineConfig
from tests.support.commands import after_update, assert_same, metrics, saved, snapshot

REACH = ("--env.id", "dreamer.envs.reach:Reach")
DEBUG = ("--configs", "debug", "--device", "cpu", "--precision", "float32")
SMALL = (  # words: what learns the task in some 700 updates
    "--configs cpu --device cpu --precision float32 --threads 1 --env.size 16 "
    "--run.batch_length 16 --run.heldout_every 0 --run.eval_every 0 --run.save_every 1000 "
    "--online.steps 3300 --online.prefill 400 --online.ratio 0.25 --imagination.horizon 10 "
    "--world_model.rssm.deter 64 --world_model.rssm.hidden 64 --world_model.rssm.stoch 8 "
    "--world_model.rssm.classes 8 --world_model.heads.units 64 --world_model.cnn_depth 8 "
    "--actor.net.units 64 --critic.net.units 64"
)


def test_a_small_task_is_learned_from_scratch(tmp_path):
    """An episode has 25 steps and earns 1 for each that ends at the place."""
    assert main([*SMALL.split(), *REACH, "--logdir", str(tmp_path)]) == 0
    scores = [row["episode/score"] for row in metrics(tmp_path) if "episode/score" in row]
    first, last = statistics.mean(scores[:20]), statistics.mean(scores[-20:])
    assert first < 5
    assert last > 12


def online(logdir: Path, *words: str) -> list[str]:
    return [*DEBUG, *REACH, "--logdir", str(logdir), *words]


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    assert main(online(tmp_path / "straight")) == 0
    with monkeypatch.context() as patch:
        after_update(patch, 2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert main(online(tmp_path / "stopped")) == 128 + signal.SIGTERM
    assert saved(tmp_path / "stopped")["step"] == 2
    assert main(online(tmp_path / "stopped")) == 0
    one, other = saved(tmp_path / "straight"), saved(tmp_path / "stopped")
    for key in ("agent", "rng", "online", "step", "info", "dataset"):
        assert_same(one[key], other[key])
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "stopped")
    for name in ("episodes.jsonl", "config.yaml"):
        text = (tmp_path / "straight" / name).read_text().replace("straight", "stopped")
        assert text == (tmp_path / "stopped" / name).read_text()


def test_what_an_online_run_leaves_behind(tmp_path):
    words = ("--run.eval_every", "4", "--online.steps", "80", "--online.prefill", "30")
    assert main(online(tmp_path, *words)) == 0
    rows = metrics(tmp_path)
    updates = [row for row in rows if "train/wm/loss" in row]
    assert [row["step"] for row in updates] == [1, 2, 3, 4, 5, 6]  # 1 + floor(0.1 * (80 - 30))
    assert updates[0]["step/env"] >= 50  # the first two episodes have 25 steps each
    assert any("eval/score" in row for row in rows)
    assert any("training_rows/image_loss/image" in row for row in rows)  # of own episodes
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 2
    assert len(list((tmp_path / "replay").iterdir())) == 2
    assert len(list((tmp_path / "open_loop").iterdir())) > 0
    assert isinstance(load_yaml(OnlineConfig, tmp_path / "config.yaml"), OnlineConfig)
    assert json.loads((tmp_path / "meta.json").read_text())[0]["versions"]["torch"]


def test_a_dataset_is_enough(toy_dataset, tmp_path, capsys):
    words = [*DEBUG, "--dataset.path", str(toy_dataset), "--logdir", str(tmp_path)]
    assert main(words) == 0
    assert saved(tmp_path)["step"] == 6
    assert any("heldout/image_loss/vision" in row for row in metrics(tmp_path))
    assert load_yaml(OfflineConfig, tmp_path / "config.yaml").dataset.path == str(toy_dataset)
    assert main([*words, "--run.updates", "8"]) == 0
    assert "6 updates behind it; 2 are left" in capsys.readouterr().err
    assert saved(tmp_path)["step"] == 8


def test_too_few_steps_to_learn_anything_are_told(tmp_path, capsys):
    assert main(online(tmp_path, "--online.steps", "30")) == 2
    assert "nothing was learned; raise online.steps" in capsys.readouterr().err
    assert main(online(tmp_path, "--online.steps", "60")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 1", "name an environment, --env.id ID, or recorded episodes"),
        (
            "--env.id Pendulm-v1",
            "no Gymnasium environment 'Pendulm-v1'; did you mean 'Pendulum-v1'",
        ),
        ("--env.id CartPole-v1", "the action space is Discrete(2): discrete actions are not"),
        ("--env.id nowhere:Env", "no module 'nowhere'"),
        ("--env.id dreamer.envs.reach:Reech", "did you mean 'Reach'"),
        ("--env.id dreamer.envs.reach:Reach --env.cameras left", "no camera 'left'"),
        ("--env.id dreamer.envs.reach:Reach --env.size 24", "a power of two"),
        ("--env.id dreamer.envs.reach:Reach --online.step 9", "did you mean 'online.steps'"),
        ("--env.id dreamer.envs.reach:Reach --run.updates 9", "not read by online; it is for off"),
        ("--dataset.path x.h5 --online.steps 9", "not read by offline; it is for online"),
        ("--dataset.path x.h5", "no dataset file x.h5"),
        ("--configs paper --env.id X-v0", "'paper' is not a preset"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main([*DEBUG, *words.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err.splitlines()[-1]
    assert not out
    assert not snapshot(tmp_path)


def test_another_seed_does_not_go_on(tmp_path, capsys):
    assert main(online(tmp_path)) == 0
    assert main(online(tmp_path, "--seed", "1")) == 2
    assert "holds a run with seed 0, this command says 1" in capsys.readouterr().err


def test_help_and_the_printed_configuration(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for word in ("usage: python -m dreamer", "presets:", " cpu debug", "--help SECTION"):
        assert word in said
    assert main(["--help", "online", "dataset"]) == 0
    said = capsys.readouterr().out
    assert "--online.prefill" in said
    assert "[offline]" in said
    assert main([*DEBUG, "online.steps", "3"]) == 2
    assert "two dashes, --online.steps VALUE" in capsys.readouterr().err
    assert main([*DEBUG, *REACH, "--print-config"]) == 0
    said = capsys.readouterr().out
    assert "logdir: logdir/dreamer/dreamer.envs.reach-Reach/seed0" in said
    assert "# env.size: 16 (preset debug)" in said
