"""Probes: the simulated truth is that of the recording, and probes find what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from dreamer.data.hdf5 import read_episodes
from dreamer.data.validation import validate_dataset
from experiments.probe import __main__ as probe
from experiments.probe.features import chosen_episodes
from experiments.probe.imagined import imagined_steps
from experiments.probe.probes import Split, fit, probe_all
from experiments.probe.truth import Truth, load_truth
from fosp_ext.envs import make_env
from tests.support.agents import make_agent, written_run
from tests.support.commands import offline
from tests.support.recordings import record_goal
from tests.support.toy_data import toy_episode

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of the real simulator, one of them of the safe policy."""
    mix = {"safe": 0.5, "random": 0.5}
    return record_goal(tmp_path_factory.mktemp("probe") / "goal.h5", mix)


@pytest.mark.sim
def test_the_truth_is_that_of_the_recorded_worlds(recorded: Path) -> None:
    info, episodes = validate_dataset(recorded), list(read_episodes(recorded))
    truth = load_truth(recorded, info, [0, 1])
    for index, episode in enumerate(episodes):
        assert truth.policy[index] == episode.policy
        np.testing.assert_array_equal(truth.action[index, :-1], episode.action)
        np.testing.assert_array_equal(truth.cost[index, 1:], episode.cost)
        env = make_env(info.task, info.cameras, info.size, info.action_repeat)
        env.reset(seed=episode.seed)
        state = env.privileged()
        nearest = np.linalg.norm(state.hazards - state.agent_pos, axis=1).min()
        assert np.linalg.norm(truth.hazard[index, 0]) == pytest.approx(nearest, abs=1e-5)
        away = np.linalg.norm(state.goal_pos - state.agent_pos)
        assert np.linalg.norm(truth.goal[index, 0]) == pytest.approx(away, abs=1e-5)
        env.close()
    # a row costs where the robot's centre was within a hazard when it arrived
    inside = np.linalg.norm(truth.hazard, axis=-1) < 0.2
    assert (truth.cost[inside][1:] > 0).all()
    (kept,) = recorded.parent.glob("goal-truth-*.npz")
    before = kept.stat().st_mtime_ns
    again = load_truth(recorded, info, [1])
    assert kept.stat().st_mtime_ns == before, "what is known is not simulated again"
    np.testing.assert_array_equal(again.hazard[0], truth.hazard[1])


@pytest.mark.sim
def test_the_command_prints_and_writes_its_numbers(recorded, tmp_path, capsys) -> None:
    words = ("--run.updates", "1", "--run.heldout_every", "0", "--dataset.holdout", "0.5")
    run, file = tmp_path / "run", tmp_path / "probe.json"
    assert train.main(offline(recorded, run, *words, "--env.action_repeat", "20")) == 0
    capsys.readouterr()
    count = ["--episodes", "1", "--test", "1", "--own", "1", "--threads", "1"]
    assert probe.main([str(run), *count, "--json", str(file)]) == 0
    printed, found = capsys.readouterr().out, json.loads(file.read_text())
    assert "| probe | encoder | probabilities | sample |" in printed
    assert "| hazard in view, m |" in printed
    assert found["probes"].keys() == {"encoder", "probabilities", "sample"}
    assert len(found["steps"]) == 15
    assert found["provenance"]["commit"]


def test_another_dataset_is_refused(tmp_path, toy_dataset, capsys) -> None:
    run = written_run(
        tmp_path / "run", make_agent(), "fosp_offline", "debug", dataset__path=str(toy_dataset)
    )
    assert probe.main([str(run), "--own", "0"]) == 2
    assert "is not the dataset that the run was trained on" in capsys.readouterr().err


def test_a_probe_finds_what_features_hold_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(12, 101, 6)).astype(np.float32))
    x = features.numpy()
    noise = rng.normal(size=(12, 101, 2)).astype(np.float32)
    truth = Truth(
        hazards=x[..., None, :2] / 3,
        hazard_seen=np.ones((12, 101), bool),
        goal=noise,
        goal_seen=np.ones((12, 101), bool),
        motion=noise,
        cost=(rng.random((12, 101)) < 0.02).astype(np.float32),
        action=np.tanh(x[..., 2:4]),
        policy=np.array(["safe"] * 12),
    )
    cut = {name: np.split(getattr(truth, name), [9]) for name in Truth.__annotations__}
    teach, test = (
        Split(features[part], Truth(**{name: pair[k] for name, pair in cut.items()}))
        for k, part in enumerate((slice(0, 9), slice(9, 12)))
    )
    found = probe_all(teach, test, 0.5)
    assert found["hazard in view, m"] < 0.2  # a guess of zeros is off by 0.4
    assert found["goal in view, m"] > 0.8
    assert found["safe action 0, R2"] > 0.3
    assert 0.2 < found["violation within 5, AUROC"] < 0.8


def test_a_probe_is_the_same_every_time() -> None:
    features = torch.randn(2, 600, 4, generator=torch.Generator().manual_seed(1))
    truth = Truth(*[np.zeros((2, 600, 2), np.float32)] * 7, policy=np.array(["safe"] * 2))
    asked = np.ones((2, 600), bool)
    once, again = (
        fit(Split(features, truth), features.numpy()[..., :1], asked, torch.nn.functional.mse_loss)
        for _ in range(2)
    )
    np.testing.assert_array_equal(once(features), again(features))


def test_which_episodes_teach_and_which_judge() -> None:
    teach, test = chosen_episodes(100, 0.1, 30, 4)
    assert (len(teach), teach[0], teach[-1]) == (30, 0, 89)
    assert test == [90, 91, 92, 93]
    assert chosen_episodes(10, 0.3, 99, 99) == (list(range(7)), [7, 8, 9])


def test_imagined_steps_are_set_beside_what_really_came() -> None:
    episodes = [toy_episode(length=40, seed=k) for k in range(2)]
    steps = imagined_steps(make_agent("fosp_offline", "debug"), episodes, CPU)
    assert [step["k"] for step in steps] == list(range(1, 16))
    starts = [np.arange(0, 26, 4) for _ in episodes]
    for step in steps:
        k = int(step["k"])
        real = np.concatenate([e.cost[s + k - 1] for e, s in zip(episodes, starts, strict=True)])
        assert step["real cost"] == pytest.approx(real.mean(), abs=1e-6)
        assert np.isfinite(list(step.values())).all()
    assert imagined_steps(make_agent(), [toy_episode(length=8)], CPU) == []


def test_wrong_words_are_one_line(tmp_path, capsys) -> None:
    assert probe.main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        probe.parse(["run", "--test", "0"])
    assert stop.value.code == 2
