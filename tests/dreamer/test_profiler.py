"""The trace of a few updates of a real run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import train
from dreamer.config import load_presets
from tests.support.agents import ROOT
from tests.support.commands import metrics, offline, online


def ranges(path: Path) -> list[str]:
    """Names of the complete events of a trace."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [event["name"] for event in events if event.get("ph") == "X"]


@pytest.mark.parametrize(
    ("count", "name", "traced"),
    [(2, "updates_000000003_to_000000004", 2), (10, "updates_000000003_to_000000006", 4)],
)
def test_so_many_updates_are_traced(toy_dataset, toy_run, tmp_path, capsys, count, name, traced):
    """Or as many as the run has; what is learned is the same."""
    folder = tmp_path / "run"
    assert train.main(offline(toy_dataset, folder, "--run.profile", str(count))) == 0
    (path,) = (folder / "profile").iterdir()
    assert path.name == f"{name}.pt.trace.json.gz"
    assert f"trace: {path}" in capsys.readouterr().out
    names = ranges(path)
    assert names.count("world model") == names.count("policy") == traced
    assert "aten::convolution" in names
    assert metrics(folder) == metrics(toy_run)


def test_online_runs_are_traced_too(brief_run, tmp_path, quick_world):
    words = ("--run.profile", "1", "--online.steps", "20", "--online.ratio", "0.2")
    words += ("--env.action_repeat", "20")
    assert train.main(online(brief_run, tmp_path / "run", *words)) == 0
    (path,) = (tmp_path / "run" / "profile").iterdir()
    assert ranges(path).count("policy") == 1


def test_the_option_asks_for_ten(capsys):
    words = ["--configs", "fosp_offline", "debug", "--print-config"]
    assert load_presets(ROOT / "configs.yaml")["defaults"]["run"]["profile"] == 0
    assert train.main([*words, "--profile"]) == 0
    assert "profile: 10" in capsys.readouterr().out
