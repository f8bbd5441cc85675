"""What a checkpoint or a run folder may hold, and what it must never do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import eval as evaluation
import train
from dreamer.errors import UserError
from dreamer.footprint import require_memory
from fosp_ext import export
from fosp_ext.build import require_room
from fosp_ext.dataset.__main__ import main as dataset
from fosp_ext.report.__main__ import main as report
from tests.fosp_ext.dataset.test_tools import files_up_to
from tests.support.agents import make_config
from tests.support.commands import offline
from tests.support.toy_data import TOY_INFO

CPU = torch.device("cpu")
NAME = "step_000000006.pt"
EVIL = "from pathlib import Path\nPath('imported').touch()\ndef Env(): raise SystemExit(0)\n"
REFUSED = (evaluation.main, ["--checkpoint", "odd.pt", "--episodes", "1", "--out", "new"])


@pytest.fixture
def state(place, toy_run) -> dict:
    """The state in a checkpoint beside a run folder `run`."""
    shutil.copytree(toy_run, place / "run")
    return torch.load(place / "run" / "checkpoints" / NAME, weights_only=True)


def weights(state: dict) -> dict:
    return state["agent"]


def optimizer(state: dict) -> dict:
    return weights(state)["world_model.optimizer._extra_state"]


def change(path: str, value: Callable) -> Callable[[dict], None]:
    """Change the part of a state at `a/b`; of `agent/N`, the N-th weight."""

    def apply(state: dict) -> None:
        node = state
        *folders, last = path.split("/")
        for name in folders:
            node = node[name]
        key = list(node)[int(last)] if last.isdigit() else last
        node[key] = value(node.get(key))

    return apply


CHANGES = {
    "format a tensor": change("format_version", lambda _: torch.zeros(2)),
    "no agent": lambda s: s.pop("agent"),
    "no info": lambda s: s.pop("info"),
    "agent a list": change("agent", lambda _: [1]),
    "config text": change("config", lambda _: "x"),
    "step text": change("step", lambda _: "six"),
    "step negative": change("step", lambda _: -1),
    "step of 400 digits": change("step", lambda _: 10**400),
    "dataset none": change("dataset", lambda _: None),
    "left_out a number": change("left_out", lambda _: 3),
    "info with more": change("info/more", lambda _: 1),
    "info without task": lambda s: s["info"].pop("task"),
    "cameras a number": change("info/cameras", lambda _: 3),
    "size negative": change("info/size", lambda _: -64),
    "size no power of two": change("info/size", lambda _: 60),
    "size of a giant": change("info/size", lambda _: 2**20),
    "action size of a giant": change("info/action_size", lambda _: 10**12),
    "environment nested": change("info/environment", lambda _: {"a": {"b": "c"}}),
    "action scale text": change("info/environment", lambda _: {"action_scale": "a b"}),
    "weights missing": lambda s: weights(s).pop(next(iter(weights(s)))),
    "weights extra": change("agent/more", lambda _: torch.zeros(1)),
    "weights of another shape": change("agent/0", lambda x: x.flatten()),
    "weights whole numbers": change("agent/0", lambda x: x.long()),
    "weights complex": change("agent/0", lambda x: x.to(torch.complex64)),
    "weights sparse": change("agent/0", lambda x: x.flatten(1).to_sparse()),
    "weights text": change("agent/0", lambda _: "x"),
    "weights of a giant": change("agent/0", lambda _: torch.zeros(1).expand(10**12)),
    "optimiser none": change("agent/world_model.optimizer._extra_state", lambda _: None),
    "optimiser without moments": lambda s: optimizer(s).pop("state"),
    "moment of another shape": lambda s: optimizer(s)["state"][0].update(exp_avg=torch.zeros(3)),
    "steps none": lambda s: optimizer(s)["state"][0].update(step=None),
    "setting of another type": change("config/seed", lambda _: [1]),
    "setting of 400 digits": change("config/seed", lambda _: 10**400),
    "section a number": change("config/run", lambda _: 3),
    "setting unknown": change("config/more", lambda _: 3),
    "a giant's network": change("config/actor/net", lambda _: {"layers": 2, "units": 10**9}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_odd_parts_of_a_checkpoint_are_refused(state, refuse, name):
    CHANGES[name](state)
    torch.save(state, "odd.pt")
    command, words = REFUSED
    for line in (refuse(words, command), refuse(["odd.pt", "--out", "new.pt"], export.main)):
        assert len(line) <= 300


RESUMED = {
    "no random state": lambda s: s.pop("rng"),
    "random state text": change("rng", lambda _: "x"),
    "random state of torch": change("rng/torch", lambda x: x[:7]),
    "random state of numpy": change("rng/numpy", lambda _: {"key": 1, "pos": "x"}),
    "random state of python": change("rng/python", lambda _: [3, [1, 2], None]),
    "pretrain text": change("pretrain", lambda _: "x"),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_does_not_go_on_from_odd_parts(place, state, capsys, name):
    RESUMED[name](state)
    torch.save(state, place / "run" / "checkpoints" / NAME)
    assert train.main(offline(Path("data.h5"), Path("run"), "--run.updates", "7")) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("error: ") == 1


def test_the_pointer_to_the_newest_names_it(place, state, capsys):
    words = ["run/checkpoints/latest", "--out", "mine.pt"]
    assert export.main(words) == 0
    assert "mine.pt" in capsys.readouterr().out
    for content in (b"\xff\xfe", b"../../data.h5\n", b"step_000000009.pt\n", b"x" * 5000):
        (place / "run/checkpoints/latest").write_bytes(content)
        assert export.main(["run", "--out", f"{len(content)}.pt"]) == 0


def test_a_checkpoint_never_imports_code(place, state, refuse):
    (place / "evil_module.py").write_text(EVIL)
    state["info"]["task"] = "evil_module:Env"
    state["config"]["task"] = "evil_module:Env"
    torch.save(state, "odd.pt")
    torch.save(state, place / "run" / "checkpoints" / NAME)
    command, words = REFUSED
    assert "name it yourself: --task" in refuse(words, command)
    # nor does a run folder that was begun with another task
    line = refuse(["--logdir", "run", "--episodes", "1"], command)
    assert "says task 'evil_module:Env', whose module would be imported" in line
    assert not (place / "imported").exists()


def test_a_task_that_the_user_names_is_imported(place, state, capsys):
    (place / "named_module.py").write_text(EVIL)
    state["info"]["task"] = state["config"]["task"] = "named_module:Env"
    torch.save(state, "odd.pt")
    command, words = REFUSED
    with pytest.raises(SystemExit):
        command([*words, "--task", "named_module:Env"])
    assert (place / "imported").exists()


def test_a_run_of_one_s_own_says_what_it_imports(place, state, capsys):
    (place / "own_module.py").write_text(EVIL)
    state["info"]["task"] = state["config"]["task"] = "own_module:Env"
    torch.save(state, place / "run" / "checkpoints" / NAME)
    settings = place / "run" / "config.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("task: SafetyPointGoal1-v0", "task: own_module:Env"))
    with pytest.raises(SystemExit):
        evaluation.main(["--logdir", "run", "--episodes", "1"])
    said = "importing own_module for task own_module:Env of your run run"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'"x"', b"[1]", None])
def test_notes_never_block_a_run(place, state, capsys, content):
    note = place / "run" / "meta.json"
    note.unlink()
    if content is None:
        note.mkdir()
    else:
        note.write_bytes(content)
    assert train.main(offline(Path("data.h5"), Path("run"), "--run.updates", "7")) == 0
    assert "is damaged; it is kept as meta-damaged.json" in capsys.readouterr().err
    if content is not None:
        assert (place / "run" / "meta-damaged.json").read_bytes() == content
    assert export.main(["run", "--out", "mine.pt"]) == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (train.main, ["--configs", "fosp_offline", "debug", "--logdir="]),
        (evaluation.main, ["--logdir", ""]),
        (evaluation.main, ["--logdir", "run", "--out", ""]),
        (export.main, ["run", "--out", ""]),
        (report, ["run", "--out", " "]),
        (dataset, ["merge", "", "data.h5"]),
    ],
)  # fmt: skip
def test_an_empty_name_is_no_folder(place, state, capsys, command, words):
    before = sorted(path.name for path in place.iterdir())
    try:
        code = command(words)
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2
    assert "empty" in err.splitlines()[-1]
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize(
    "setting",
    [
        "run.batch_size=1000000000",
        "run.batch_length=1000000000",
        "imagination.horizon=1000000000",
        "world_model.rssm.deter=10000000",
        "actor.net.units=1000000000",
        "world_model.cnn_depth=1000000000",
        "threads=1000000",
        "seed=10000000000000000000",
        "world_model.heads.layers=100000",
    ],
)
def test_sizes_that_cannot_work_are_refused(refuse, setting):
    words = ["--configs", "fosp_offline", "debug", "--dataset.path", "data.h5", "--logdir", "run"]
    refuse([*words, f"--{setting}"])


def test_the_estimate_lets_presets_through_and_horizons_not(monkeypatch):
    free = 8 * 2**30
    monkeypatch.setattr("dreamer.footprint.free_memory", lambda: free)
    for names in (("debug",), ("cpu", "quick"), ("full", "paper")):
        require_room(make_config("fosp_offline", *names), TOY_INFO, CPU)
        require_room(make_config("bc", *names), TOY_INFO, CPU)
    config = make_config("fosp_offline", "debug", imagination__horizon="100000")
    with pytest.raises(UserError, match=r"would take more than 3.* GiB and 8.0 GiB are free"):
        require_room(config, TOY_INFO, CPU)
    monkeypatch.setattr("dreamer.footprint.free_memory", lambda: None)  # not Linux
    require_memory(config, TOY_INFO, 10**12, 10**12, CPU)


def test_a_disk_that_is_full_is_a_line(place, state, capsys):
    with files_up_to(20_000):
        assert export.main(["run", "--out", "mine.pt"]) == 2
    assert "mine.pt: writing failed; the disk is full" in capsys.readouterr().err
    with files_up_to(2000):
        assert train.main(offline(Path("data.h5"), Path("run"), "--run.updates", "7")) == 2
    err = capsys.readouterr().err
    assert "File too large" in err
    assert "Traceback" not in err
    assert not list(place.rglob("*.part"))


def test_a_name_that_is_too_long_is_a_line(refuse):
    assert "File name too long" in refuse(
        ["--configs", "fosp_offline", "debug", "--dataset.path", "x" * 300 + ".h5"]
    )
