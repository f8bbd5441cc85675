"""A second start in a place that is in use: one line, exit code 2, and the first one goes on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

import eval as evaluation_command
import fosp_ext.dataset.collect
import fosp_ext.report.material
import train
from dreamer.__main__ import main as dreamer_main
from dreamer.envs.counting import CountingEnv
from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint
from fosp_ext import export
from fosp_ext.dataset.collect import collect_dataset, parts_folder
from fosp_ext.report.__main__ import main as report_main
from tests.fosp_ext.dataset.test_collect import SETTINGS, settings
from tests.support.agents import make_agent, written_run
from tests.support.commands import after_update, assert_same, metrics, offline, online, saved
from tests.support.reports import add_evaluation, make_run
from tests.support.toy_data import TOY_INFO

IN_USE = r"error: (run folder )?\S+ is in use by process \d+ on \S+ since .+; wait until it ends\n"


@pytest.fixture
def refused(capsys):
    """Call a command that must refuse to begin beside the one that runs."""

    def call(command, argv: list[str]) -> None:
        capsys.readouterr()
        assert command(argv) == 2
        said = capsys.readouterr()
        assert not said.out
        assert re.fullmatch(IN_USE, said.err.splitlines(keepends=True)[-1]), said.err
        tries.append(argv)

    tries: list[list[str]] = []
    yield call
    assert tries, "the second start was not even tried"


def test_a_second_offline_start(toy_dataset, toy_run, tmp_path, monkeypatch, refused):
    argv = offline(toy_dataset, tmp_path)
    after_update(monkeypatch, 2, lambda _: refused(train.main, argv))
    assert train.main(argv) == 0
    assert_same(saved(toy_run)["agent"], saved(tmp_path)["agent"])
    assert metrics(toy_run) == metrics(tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_a_second_online_start(toy_run, tmp_path, quick_world, monkeypatch, refused):
    """The episodes of the first one stay, and it can be continued."""
    argv = online(toy_run, tmp_path, "--online.steps", "40", "--online.ratio", "0.2")
    words = ("--online.envs", "2", "--run.eval_every", "0", "--run.save_every", "2")
    after_update(monkeypatch, 6, lambda _: refused(train.main, [*argv, *words]))
    assert train.main([*argv, *words]) == 0
    episodes = sorted((tmp_path / "replay").iterdir())
    assert len(episodes) == saved(tmp_path)["online"]["episodes"] > 2
    assert train.main([*argv, *words, "--online.steps", "60"]) == 0


def test_a_second_start_of_dreamer_alone(tmp_path, monkeypatch, refused):
    words = ["--configs", "debug", "--device", "cpu", "--env.id", "dreamer.envs.reach:Reach"]
    argv = [*words, "--logdir", str(tmp_path / "run"), "--run.eval_every", "0"]
    after_update(monkeypatch, 1, lambda _: refused(dreamer_main, argv))
    assert dreamer_main(argv) == 0


def test_a_second_evaluation(tmp_path, monkeypatch, refused):
    run = written_run(tmp_path / "run", make_agent(), "fosp_offline", "debug")
    argv = ["--logdir", str(run), "--episodes", "1", "--videos", "0", "--device", "cpu"]

    class Env(CountingEnv):
        def step(self, action):
            if self.count == 3:
                refused(evaluation_command.main, argv)
            return super().step(action)

    envs = [Env(6, None, TOY_INFO.cameras), CountingEnv(6, None, TOY_INFO.cameras)]
    monkeypatch.setattr("fosp_ext.run.evaluate.make_run_env", lambda *_: envs.pop(0))
    assert evaluation_command.main(argv) == 0
    (folder,) = (run / "eval").iterdir()
    assert (folder / "summary.json").exists()


def test_a_second_report(tmp_path, monkeypatch, refused):
    add_evaluation(make_run(tmp_path / "run"), [1.0], [0.0])
    argv = [str(tmp_path / "run"), "--out", str(tmp_path / "page"), "--device", "cpu"]
    gather = fosp_ext.report.material.gather

    def meanwhile(*words):
        monkeypatch.setattr(fosp_ext.report.material, "gather", gather)
        refused(report_main, argv)
        return gather(*words)

    monkeypatch.setattr(fosp_ext.report.material, "gather", meanwhile)
    assert report_main(argv) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "run"]


# Recording


def test_a_second_recording(tmp_path, monkeypatch):
    """Of another seed, into the same file: each seed's parts are its own."""
    path, tried = tmp_path / "data.h5", []

    def meanwhile(parts: Path, *_: object) -> None:
        with pytest.raises(UserError, match=r"data\.h5 is in use by process"):
            collect_dataset(path, settings(seed=6))
        tried.append(sorted(file.name for file in parts.iterdir()))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fosp_ext.dataset.collect, "_record_missing", meanwhile)
    with pytest.raises(UserError, match="No space left"):
        collect_dataset(path, SETTINGS)
    assert tried == [["settings.json"]]


@pytest.mark.sim
@pytest.mark.parametrize("change", [{"seed": 6}, {"noise": 0.1}, {"field_of_view": "all"}])
def test_parts_of_another_recording_are_not_joined(one_episode, tmp_path, change):
    """Though the folder says that they belong to this one."""
    parts = parts_folder(tmp_path / "data.h5")
    other = settings(episodes=1, **change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fosp_ext.dataset.collect, "_record_missing", lambda *_: None)
        with pytest.raises(UserError):  # nothing was recorded
            collect_dataset(tmp_path / "data.h5", other)
    shutil.copy(one_episode, parts)
    message = "episode_000000.hdf5 was recorded with another seed or other settings; remove it"
    with pytest.raises(UserError, match=message):
        collect_dataset(tmp_path / "data.h5", other)
    assert (parts / one_episode.name).exists()


@pytest.fixture(scope="module")
def one_episode(tmp_path_factory) -> Path:
    """The part of a recording of one episode."""
    path = tmp_path_factory.mktemp("one") / "data.h5"
    kept = path.with_name("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fosp_ext.dataset.collect.shutil.rmtree", lambda parts: parts.rename(kept))
        collect_dataset(path, settings(episodes=1, workers=1))
    return kept / "episode_000000.hdf5"


# Weights that are not finite


def spoil(run: Path, step: int | None = None) -> Path:
    """Make the newest checkpoint of a run one with a NaN, or with another step."""
    path = Checkpoint(run / "checkpoints", 1).latest()
    state = Checkpoint.load(path)
    if step is None:
        name = next(name for name, x in state["agent"].items() if x.ndim > 1)
        state["agent"][name][0, 0] = torch.nan
    Checkpoint.write(path, state["step"] if step is None else step, state)
    return path


@pytest.mark.parametrize(("step", "message"), [(None, "has weights that are not finite, "),
                                               (-3, "has the impossible step -3")])  # fmt: skip
def test_spoilt_checkpoints_are_refused(refuse, place, toy_run, step, message):
    shutil.copytree(toy_run, place / "run")
    spoil(place / "run", step)
    resume = offline(Path("data.h5"), Path("run"), "--run.updates", "7")
    for command, words in (
        (train.main, resume),
        (train.main, online(Path("run"), Path("new"))),
        (export.main, ["run", "--out", "small.pt"]),
        (evaluation_command.main, ["--logdir", "run"]),
    ):
        line = refuse(words, command)
        assert f"step_000000006.pt {message}" in line
        assert line.endswith("remove the damaged file to continue from there")


def test_nan_before_the_first_checkpoint(toy_dataset, tmp_path, monkeypatch, capsys):
    after_update(monkeypatch, 1, lambda result: result.update({"x": torch.tensor(torch.nan)}))
    assert train.main(offline(toy_dataset, tmp_path)) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: not finite")
    assert line.endswith("train/x; no checkpoint was saved before")


def test_nan_weights_are_not_saved(toy_dataset, tmp_path, monkeypatch, capsys):
    """The metrics of an update do not show what it did to the weights."""
    agents = []

    def save(folder, agent, *words, **more):
        if agents:
            with torch.no_grad():
                next(agent.parameters()).fill_(torch.nan)
        agents.append(agent)
        return plain(folder, agent, *words, **more)

    from dreamer.training.run_folder import RunFolder

    plain = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", save)
    assert train.main(offline(toy_dataset, tmp_path)) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"error: not finite: weights \S+, after update 6; the last checkpoint is intact", line
    )
    assert saved(tmp_path)["step"] == 3


def test_that_the_last_checkpoint_is_intact_is_only_said_where_it_is(
    toy_dataset, toy_run, tmp_path, monkeypatch, capsys
):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))

    def break_both(result: dict) -> None:
        spoil(run)
        result.update({"x": torch.tensor(torch.nan)})

    after_update(monkeypatch, 1, break_both)
    assert train.main(offline(toy_dataset, run, "--run.updates", "8")) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "train/x; and checkpoint " in line
    assert "step_000000006.pt has weights that are not finite" in line
    assert "step_000000003.pt beside it is intact" in line
