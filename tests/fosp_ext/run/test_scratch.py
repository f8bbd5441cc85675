"""Online runs without an offline one: they learn from their own episodes alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from fosp_ext.policy_set import PolicySet
from fosp_ext.run.run_folder import load_run
from tests.support.commands import metrics, saved

WORDS = ("--device", "cpu", "--run.log_every", "1", "--run.heldout_every", "8")


def scratch(preset: str, logdir: Path, *words: str) -> list[str]:
    """A run whose two environments have episodes of 8 steps."""
    few = ("--online.prefill", "20", "--online.steps", "40", "--online.ratio", "0.5")
    return ["--configs", preset, "debug", *WORDS, *few, "--logdir", str(logdir), *words]


@pytest.mark.parametrize("preset", ["fosp_scratch", "safedreamer_scratch", "dreamerv3_scratch"])
def test_every_method_learns_from_its_own_episodes(tmp_path, quick_world, capsys, preset):
    assert train.main(scratch(preset, tmp_path)) == 0
    assert "no --from: learning from scratch" in capsys.readouterr().err
    rows = [row for row in metrics(tmp_path) if "train/wm/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 12))  # 1 + floor(0.5 * (40 - 20))
    assert rows[0]["step/env"] == 20
    state = saved(tmp_path)
    assert (state["dataset"], state["info"]["action_size"]) == ("", 2)
    facts = {"render": "fast", "variant": "none", "action_scale": "0.05 1"}
    assert state["info"]["environment"] == facts
    run = load_run(tmp_path, next(iter(state["agent"].values())).device)
    assert not isinstance(run.agent.policy, PolicySet)
    assert train.main(scratch(preset, tmp_path, "--online.steps", "60")) == 0
    assert saved(tmp_path)["step"] == 21


def test_what_needs_an_offline_run_or_has_no_use_for_a_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused = {
        ("fosp_online",): "take the preset fosp_scratch",
        ("bc_online",): "bc imitates a dataset",
        ("fosp_scratch", "--dataset.path", "x.h5"): "a run from scratch has no dataset",
    }
    for (preset, *words), message in refused.items():
        assert train.main(scratch(preset, tmp_path / "run", *words)) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
