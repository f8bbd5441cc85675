"""Exported agents: small, complete enough to act, honest about what they lack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import eval as evaluation_command
import fosp_ext.run.evaluate
from dreamer.agent import Agent
from dreamer.training.checkpoint import Checkpoint
from fosp_ext import export
from fosp_ext.run.run_folder import load_run
from tests.support.agents import (
    INFO,
    counting_env,
    make_agent,
    make_batch,
    make_config,
    written_run,
)
from tests.support.commands import assert_same, offline, online

CPU = torch.device("cpu")
LIMIT = 12e6  # bytes of a file that may lie in the repository
ROUNDING = 0.01  # of what the estimates vary by; float16 has 11 bits
METHODS = ("fosp_offline", "fosp_online", "safedreamer", "bc", "dreamerv3")


def trained(*names: str, **settings: str) -> Agent:
    """An agent whose every weight is far from where it began, as after a training."""
    agent = make_agent(*names, **settings)
    torch.manual_seed(2)  # with which rounding changes no sample and no choice
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter += 0.2 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    obs = {name: images[:, 0] for name, images in make_batch().obs.items()}
    agent.act(obs, torch.ones(4), agent.initial(4), explore=True)  # moves the scale of a choice
    return agent


def exported(folder: Path, *names: str, **settings: str) -> tuple[Path, Path]:
    """A run folder and the file exported from it."""
    run = written_run(folder / "run", trained(*names, **settings), *names, **settings)
    return run, export.export(run, folder / "small.pt")


def answers(agent: Agent) -> dict[str, torch.Tensor]:
    """Actions (T, B, A) and estimates (T, B) at the same images with the same random numbers."""
    batch, rows = make_batch(), []
    state = agent.initial(len(batch.reward))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for t in range(batch.reward.shape[1]):
            obs = {name: images[:, t] for name, images in batch.obs.items()}
            action, state, estimates = agent.act(obs, batch.is_first[:, t], state, explore=False)
            rows.append({"action": action, **estimates})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("method", METHODS)
def test_it_acts_like_the_original(tmp_path, method):
    run, file = exported(tmp_path, method, "debug")
    original, small = load_run(run, CPU), load_run(file, CPU)
    assert small[1:] == (*original[1:-1], True)
    given, expected = answers(small.agent), answers(original.agent)
    assert given.keys() == expected.keys()
    assert any(name != "action" for name in given) or method == "bc"
    for name, value in expected.items():
        assert value.std() > 1e-3, "else the next line says nothing"
        assert (given[name] - value).abs().max() < ROUNDING * value.std(), name
    assert all(parameter.dtype == torch.float32 for parameter in small.agent.parameters())
    assert_same(answers(load_run(file, CPU).agent), given)


def test_it_keeps_what_rollouts_need(tmp_path):
    """Where these judge proposals; a rounded weight may change what they draw."""
    run, file = exported(tmp_path, "fosp_online", "debug", policy_set__score="rollout")
    given, expected = (answers(load_run(path, CPU).agent)["p_online"] for path in (file, run))
    assert (given - expected).abs().median() < 0.01
    _, other = exported(tmp_path / "q", "fosp_online", "debug")
    left_out = torch.load(other, weights_only=True)["left_out"]
    assert "world_model.reward_head" in left_out


@pytest.mark.parametrize("part", ["target_q_net", "in_sample_net", "in_sample_q_net"])
def test_what_it_does_not_need_is_missing_and_said(tmp_path, part):
    run, file = exported(tmp_path, "fosp_online", "debug")
    left_out = torch.load(file, weights_only=True)["left_out"]
    assert f"policy.learner.cost_critic.{part}" in left_out
    before, after = load_run(run, CPU).agent, load_run(file, CPU).agent
    assert hasattr(before.policy.learner.cost_critic, part)
    assert not hasattr(after.policy.learner.cost_critic, part)


def test_one_network_for_both_values_is_kept_once(tmp_path):
    _, file = exported(tmp_path, "fosp_release", "debug")
    assert not [name for name in Checkpoint.load(file)["agent"] if "in_sample" in name]
    assert answers(load_run(file, CPU).agent)["value"].std() > 0


def test_it_predicts_images(tmp_path):
    run, file = exported(tmp_path, "fosp_offline", "debug")
    videos = []
    for path in (run, file):
        torch.manual_seed(0)
        videos.append(load_run(path, CPU).agent.world_model.open_loop(make_batch(), 3))
    for camera in INFO.cameras:
        torch.testing.assert_close(videos[1][camera], videos[0][camera], atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["fosp_offline", "fosp_online"])
def test_it_is_small_enough_for_the_repository(tmp_path, method):
    _, file = exported(tmp_path, method, "cpu")
    assert 8e6 < file.stat().st_size < LIMIT


def test_it_says_where_it_comes_from(tmp_path, toy_run):
    newest = toy_run / "checkpoints" / "step_000000006.pt"
    said = {}
    for source in (toy_run, newest, Path(shutil.copy(newest, tmp_path / "alone.pt"))):
        file = export.export(source, tmp_path / "agents" / f"{source.name}-small.pt")
        state = torch.load(file, weights_only=True)
        said[source.name] = state["provenance"]
        whole = Checkpoint.load(newest)
        assert {"rng", "online"}.isdisjoint(state)
        for name in ("config", "info", "dataset", "step", "format_version"):
            assert state[name] == whole[name]
    of_run = said[toy_run.name]
    assert (of_run["run"], of_run["updates"]) == (str(toy_run), 6)
    assert of_run["dataset"] == whole["dataset"]
    assert of_run["training"] == json.loads((toy_run / "meta.json").read_text())
    assert of_run["export"]["versions"]["torch"] == torch.__version__
    assert of_run["export"]["commit"]
    assert said[newest.name]["training"] == of_run["training"]
    assert said["alone.pt"]["training"] == []


def test_the_command_writes_one_file_and_names_it(tmp_path, toy_run, capsys):
    file = tmp_path / "agents" / "mine.pt"
    assert export.main([str(toy_run), "--out", str(file)]) == 0
    out, err = capsys.readouterr()
    size = file.stat().st_size / 1e6
    assert out == f"{file}: {size:.1f} MB\nplay it: python eval.py --checkpoint {file}\n"
    assert not err
    assert [path.name for path in file.parent.iterdir()] == ["mine.pt"]


def test_each_policy_of_a_set_can_be_played(tmp_path, monkeypatch, capsys):
    """By eval.py, whose numbers go to logdir, not to where the file lies."""
    _, file = exported(tmp_path, "fosp_online", "debug")
    monkeypatch.setattr(fosp_ext.run.evaluate, "make_run_env", counting_env)
    monkeypatch.chdir(tmp_path)
    for policy, name in (("set", ""), ("online", "-online"), ("offline", "-offline")):
        argv = ["--checkpoint", str(file), "--episodes", "1", "--videos", "0", "--policy", policy]
        assert evaluation_command.main(argv) == 0
        summary = json.loads(Path(f"logdir/small/eval/000000007{name}/summary.json").read_text())
        assert (summary["policy"], summary["checkpoint"]) == (policy, str(file))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "small.pt", "logdir"}


def test_it_cannot_be_trained(refuse, place, brief_run, toy_run):
    export.export(brief_run, place / "brief.pt")
    what = "is an exported agent, which acts but cannot be trained"
    assert f"brief.pt {what}" in refuse(online(Path("brief.pt"), place / "on"))
    run = Path(shutil.copytree(toy_run, place / "run"))
    newest = run / "checkpoints" / "step_000000006.pt"
    newest.unlink()
    export.export(toy_run, newest)
    assert f"{newest} {what}" in refuse(offline(Path("data.h5"), run, "--run.updates", "8"))
    assert f"{run} {what}" in refuse(online(run, place / "on"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --out data.h5", "data.h5 exists already"),
        ("run --out run", "run exists already"),
        ("small.pt --out new.pt", "small.pt is an exported agent already"),
        ("nowhere --out new.pt", "nowhere does not exist"),
        ("empty --out new.pt", "empty has no checkpoint yet"),
        ("data.h5 --out new.pt", "checkpoint data.h5 cannot be read"),
        ("run --out data.h5/new.pt", "data.h5"),
    ],
)
def test_what_cannot_be_exported(refuse, place, toy_run, words, message):
    (place / "empty").mkdir()
    shutil.copytree(toy_run, place / "run")
    export.export(place / "run", place / "small.pt")
    assert message in refuse(words.split(), export.main)


def test_settings_are_those_of_the_run(tmp_path):
    _, file = exported(tmp_path, "fosp_online", "debug", policy_set__kappa="0.7")
    config = make_config("fosp_online", "debug", policy_set__kappa="0.7")
    assert load_run(file, CPU).config.policy_set == config.policy_set
