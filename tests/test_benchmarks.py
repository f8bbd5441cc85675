"""The measurements run, and say what they are asked; how fast this machine is, no test decides."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from benchmarks import latency, startup, update
from benchmarks.targets import Target


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The debug size for the shapes."""
    sizes = {f"{part}.net.units": "16" for part in ("actor", "critic", "cost_critic")}
    tiny = {"world_model.rssm.deter": "16", "world_model.rssm.hidden": "16"}
    shape = update.Shape(1, 2, 4, {**sizes, **tiny, "world_model.cnn_depth": "2"})
    monkeypatch.setitem(update.SHAPES, "fosp", shape)


def test_latency_in_parts(tmp_path, capsys):
    path = tmp_path / "out.json"
    words = ["--answers", "4", "--precision", "float32", "--json", str(path)]
    assert latency.main(words) in (0, 1)
    (result,) = json.loads(path.read_text())["results"]
    rows = result["milliseconds"]
    assert list(rows) == [
        "whole answer", "encoder", "RSSM step", "choice between two policies", "everything else",
    ]  # fmt: skip
    assert all(len(row) == 4 for row in rows.values())
    assert all(value > 0 for name, row in rows.items() for value in row)
    assert "fosp float32" in capsys.readouterr().out


def test_the_median_and_the_slowest_answers():
    milliseconds = {latency.WHOLE: [float(k) for k in range(1, 101)]}
    result = latency.Result("fosp", "float32", "cpu", 1, milliseconds)
    assert result.median() == 50.5
    assert 95 <= result.p95() <= 96
    assert latency.targets([result]) == [Target("fosp float32", 50.5, most=12, unit="ms")]
    others = (result._replace(threads=2), result._replace(device="cuda"))
    assert latency.targets(others) == []


def test_a_start_ends_with_the_first_update(toy_dataset, tmp_path, capsys):
    path = tmp_path / "out.json"
    words = ["--dataset", str(toy_dataset), "--configs", "fosp_offline", "debug", "--helps", "1"]
    assert startup.main([*words, "--starts", "1", "--json", str(path)]) in (0, 1)
    seconds = json.loads(path.read_text())["seconds"]
    assert 0 < seconds["train.py --help"][0] < seconds["start to first update"][0]


def test_a_start_that_fails_says_why(tmp_path, capsys, monkeypatch):
    assert startup.main(["--dataset", str(tmp_path / "no.h5")]) == 2
    assert "no dataset" in capsys.readouterr().err
    (tmp_path / "no.h5").write_text("nothing")
    script = tmp_path / "train.py"
    script.write_text("print('error: it does not work')")
    monkeypatch.setattr(startup, "TRAIN", script)
    assert startup.main(["--dataset", str(tmp_path / "no.h5"), "--helps", "1"]) == 2
    expected = "train.py ended before its first update: error: it does not work"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_update_says_so(compiled, monkeypatch):
    asked = []
    monkeypatch.setattr(update, "compile_agent", lambda agent, when, device: asked.append(when))
    monkeypatch.setattr(update, "PRODUCT", 8)
    options = SimpleNamespace(device="cpu", updates=1, compile=compiled)
    result = update.measure("dreamerv3", "fosp", "float32", options)
    assert asked == ["on"] * compiled
    assert (", compiled" in update.describe(result)) == compiled
