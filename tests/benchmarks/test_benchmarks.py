"""The benchmarks run and print their numbers; the speed of this machine is not tested."""

from __future__ import annotations

import json
import re
from operator import attrgetter
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

import dreamer.world_model
from benchmarks import latency, reach, startup, update, update_parts
from benchmarks.targets import Target
from tests.support.agents import make_agent, make_batch


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The debug size for the shapes."""
    sizes = {f"{part}.net.units": "16" for part in ("actor", "critic", "cost_critic")}
    tiny = {"world_model.rssm.deter": "16", "world_model.rssm.hidden": "16"}
    shape = update.Shape(1, 2, 4, {**sizes, **tiny, "world_model.cnn_depth": "2"})
    monkeypatch.setitem(update.SHAPES, "full", shape)


def test_latency_in_parts(tmp_path, capsys):
    path = tmp_path / "out.json"
    words = ["--actions", "4", "--precision", "float32", "--json", str(path)]
    assert latency.main(words) in (0, 1)
    (result,) = json.loads(path.read_text())["results"]
    rows = result["milliseconds"]
    assert list(rows) == [
        "whole action", "encoder", "RSSM step", "choice between two policies", "everything else",
    ]  # fmt: skip
    assert all(len(row) == 4 for row in rows.values())
    assert all(value > 0 for name, row in rows.items() for value in row)
    assert "full float32" in capsys.readouterr().out


def test_the_median_and_the_slowest_actions():
    milliseconds = {latency.WHOLE: [float(k) for k in range(1, 101)]}
    result = latency.Result("full", "float32", "cpu", 1, milliseconds)
    assert result.median() == 50.5
    assert 95 <= result.p95() <= 96
    assert latency.targets([result]) == [Target("full float32", 50.5, most=12, unit="ms")]
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


@pytest.mark.sim
def test_the_speed_of_safe_reach(tmp_path, capsys):
    path = tmp_path / "out.json"
    words = ["--episodes", "1", "--variants", "none", "--json", str(path)]
    assert reach.main(words) in (0, 1)
    (result,) = json.loads(path.read_text())["results"]
    assert result["steps"] > 10
    assert 0 < result["resets"][1] < result["all"][1]
    assert "SafeReach-v0 (none), two cameras" in capsys.readouterr().out
    assert reach.main(["--variants", "belt"]) == 2


@pytest.fixture
def one_thread():
    """Afterwards, as `conftest.py` sets it."""
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_update_says_so(compiled, monkeypatch):
    asked = []
    monkeypatch.setattr(update, "compile_agent", lambda agent, when, device: asked.append(when))
    monkeypatch.setattr(update, "PRODUCT", 8)
    options = SimpleNamespace(device="cpu", updates=1, compile=compiled, threads=[1], peer=None)
    (result,) = update.measure("dreamerv3", "full", "float32", options)
    assert asked == ["on"] * compiled
    assert (", compiled" in update.describe(result)) == compiled


@pytest.mark.usefixtures("one_thread")
def test_updates_are_measured_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(update, "PRODUCT", 8)
    path = tmp_path / "out.json"
    words = ["--preset", "bc", "--shape", "full", "--precision", "float32", "--threads", "2,1"]
    assert update.main([*words, "--updates", "3", "--json", str(path)]) in (0, 1)
    written = json.loads(path.read_text())
    assert written["provenance"]
    assert [row["threads"] for row in written["results"]] == [1, 2]
    for row in written["results"]:
        assert sorted(row["seconds"])[1] == row["median"]
        assert row["ratio"] is None
        speed = row["flop"] / 1e9 / row["median"]
        assert row["efficiency"] == pytest.approx(speed / row["own_gflops"])
        assert row["parts"][0].keys() == {"name", "forward", "backward"}
    out = capsys.readouterr().out
    shares = re.findall(r"\| (\d+) %", out)
    assert len(shares) == sum(len(row["parts"]) for row in written["results"])
    assert sum(map(int, shares)) == pytest.approx(200, abs=len(shares) / 2)
    assert out.count("bc full float32, two threads: ") == 1


def test_an_unknown_method_is_one_line(capsys):
    assert update.main(["--preset", "bc,fosq"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: no method 'fosq'; there are ")
    assert err.count("\n") == 1


def test_an_update_is_judged_beside_a_peer_and_by_a_second_thread():
    result = update.Result(
        method="dreamerv3", shape="tiny", precision="float32", device="cpu", threads=1,
        compiled=False, seconds=[1.0, 3.0, 8.0], own_gflops=100.0, flop=6e10, memory=1.0, rows=512,
        parts=[], peer=[3.0, 6.0, 40.0],
    )  # fmt: skip
    assert result.ratio == 3, "the median of 3, 2 and 5"
    assert "6.000 s per update of the peer in float32, 3.00 times as long" in update.describe(
        result
    )
    name = "dreamerv3 tiny float32, beside the peer"
    bound = Target(name, 3.0, least=2.3, unit="times as fast")
    assert update.targets([result]) == [bound]
    others = (result._replace(threads=2), result._replace(device="cuda:0"))
    assert update.targets([*others, result._replace(method="bc", peer=[])]) == []
    two = result._replace(threads=2, seconds=[2.5], peer=[])
    gain = Target("dreamerv3 tiny float32, two threads", 1.2, least=1.5, unit="times as fast")
    assert update.targets([result, two, result._replace(threads=3)]) == [bound, gain]


PEER = """
import torch
class WorldModel:
    def __init__(self, space, actions, step, config):
        assert config.dyn_deter == config.dyn_hidden == 16 and config.encoder["cnn_depth"] == 2
        assert space.spaces["image"].shape == (64, 64, 3) and torch.get_num_threads() == 1
        print("not for the benchmark")
    def _train(self, data):
        assert data["image"].shape == (2, 4, 64, 64, 3)
        return "start", {}, {}
class ImagBehavior:
    def __init__(self, config, model):
        pass
    def _train(self, start, reward):
        assert start == "start"
"""


@pytest.mark.usefixtures("one_thread")
def test_a_peer_takes_its_turn(tmp_path, capfd, monkeypatch):
    """A program of the same interface, which learns nothing."""
    monkeypatch.setattr(update, "PRODUCT", 8)
    words = ["--preset", "dreamerv3", "--shape", "full", "--precision", "float32", "--updates", "2"]
    assert update.main([*words, "--peer", str(tmp_path)]) == 2
    assert "no models.py in" in capfd.readouterr().err
    for name in ("networks.py", "tools.py"):
        (tmp_path / name).touch()
    (tmp_path / "models.py").write_text(PEER)
    (tmp_path / "configs.yaml").write_text("defaults: {encoder: {}, decoder: {}}")
    assert update.main([*words, "--peer", str(tmp_path)]) in (0, 1)
    out = capfd.readouterr().out
    assert "s per update of the peer in float32" in out
    assert "dreamerv3 full float32, beside the peer: " in out
    assert "not for the benchmark" not in out


def test_numbers_of_threads(capsys):
    assert update.thread_counts("2,1,2") == [1, 2]
    for text in ("0", "1,", "two"):
        with pytest.raises(SystemExit):
            update.main(["--threads", text])
        assert f"invalid thread_counts value: '{text}'" in capsys.readouterr().err


def test_each_part_of_an_update_goes_forward_and_backward():
    parts = update_parts.measured_parts(make_agent(), make_batch(), 1, lambda: None)
    named = {update_parts.REST, update_parts.OPTIMISERS, "imagination"}
    assert {part.name for part in parts} == named | set(update_parts.PARTS.values())
    assert all(part.forward > 0 for part in parts)
    assert [part.name for part in parts if not part.backward] == [update_parts.OPTIMISERS]


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("world_model.encoder.embed", "encoder"),
        ("world_model.rssm._follow", "RSSM"),
        ("kl_losses", "rest of the world model"),
        ("world_model.decoder.pixels", "decoder"),
        ("world_model.head_losses", "heads"),
        ("world_model.rssm.imagine_step", "imagination"),
        ("policy.rollout_values", "critics on rollouts"),
        ("policy.in_sample_loss", "actor"),
        ("policy.reward_critic.real_losses", "critics"),
    ],
)
def test_time_belongs_to_the_part_that_takes_it(place, part, monkeypatch):
    """By a clock that moves only where something is called, and where its gradient is asked for."""
    spent, agent = {"forward": 0, "backward": 0}, make_agent()

    def spend(direction):
        spent[direction] += 1

    def slow(function):
        def call(*args):
            spend("forward")
            result = function(*args)
            for x in filter(is_learnt, tree_leaves(result)):
                x.register_hook(lambda _: spend("backward"))
            return result

        return call

    def is_learnt(x):
        return isinstance(x, torch.Tensor) and x.requires_grad

    clock = SimpleNamespace(perf_counter=lambda: sum(spent.values()))
    monkeypatch.setattr(update_parts, "time", clock)
    path, _, name = place.rpartition(".")
    owner = attrgetter(path)(agent) if path else dreamer.world_model
    monkeypatch.setattr(owner, name, slow(getattr(owner, name)))
    rows = update_parts.measured_parts(agent, make_batch(), 1, lambda: None)
    spending = [row for row in rows if row.forward or row.backward]
    assert spending == [(part, spent["forward"], spent["backward"])]
    assert min(spent.values()) > 0
