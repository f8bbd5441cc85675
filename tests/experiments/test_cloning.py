"""Cloning: clones read while playing what they learned from, and learn what is there to learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import train
from dreamer.data.hdf5 import read_episodes
from dreamer.data.validation import validate_dataset
from dreamer.errors import UserError
from dreamer.training.diagnostics import fixed_randomness
from dreamer.training.progress import Progress
from experiments.cloning import __main__ as cloning
from experiments.cloning.clone import Rows, fit
from experiments.cloning.inputs import WINDOWS, Reader, recorded_inputs
from experiments.cloning.play import play
from experiments.probe.truth import load_truth
from fosp_ext.dataset.summary import summarise
from fosp_ext.envs import make_run_env
from tests.support.agents import make_agent
from tests.support.commands import offline
from tests.support.recordings import record_goal

CPU = torch.device("cpu")
POINT, SILENT = "SafetyPointGoal1-v0", Progress("", 1, "", None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of the safe policy."""
    return record_goal(tmp_path_factory.mktemp("cloning") / "goal.h5", {"safe": 1.0})


@pytest.mark.sim
def test_a_running_episode_is_read_as_its_recording(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window draws its samples at once, a step its own: here all are alike.

    Matrix products are in bfloat16.
    """
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 0.37))
    info, agent = validate_dataset(recorded), make_agent()
    truth = load_truth(recorded, info, [1])
    wanted = recorded_inputs(WINDOWS, agent, recorded, [1], truth, CPU, info.action_scale)
    (episode,) = read_episodes(recorded, [1])
    env = make_run_env(info, "none")
    for name, rows in wanted.items():
        reader, found = Reader(name, agent, env, CPU), []
        obs, _ = env.reset(seed=episode.seed)
        with fixed_randomness(CPU):
            found.append(reader.read(obs))
            for action in torch.from_numpy(episode.action[:5]):
                reader.acted(action)
                found.append(reader.read(env.step(action.numpy())[0]))
        torch.testing.assert_close(torch.stack(found), rows[0, :6], rtol=0, atol=4e-3, msg=name)
    env.close()


@pytest.mark.parametrize(("window", "learns"), [(4, True), (1, False)])
def test_a_clone_knows_as_many_rows_as_it_reads(window: int, learns: bool) -> None:
    """The action is what the input showed three rows ago."""
    x = torch.randn(12, 60, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.cat([x[:, :1].expand(-1, 3, -1), x[:, :-3]], 1)
    teach, test = (Rows(x[part], targets[part]) for part in (slice(8), slice(8, 12)))
    cloned = fit(teach, test, window, 200, SILENT)
    assert (min(cloned.explained) > 0.5) == learns
    assert cloned.updates > 0
    again = fit(teach, test, window, 200, SILENT)
    assert again.heldout == cloned.heldout, "the same every time"


def test_the_best_net_is_kept() -> None:
    """Targets without a rule: what is learned by heart only harms."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 50, 30, generator=generator) for _ in range(2))
    cloned = fit(Rows(x[:2], y[:2]), Rows(x[2:], y[2:]), 1, 400, SILENT)
    assert cloned.updates < 200
    assert cloned.heldout < 1.2


@pytest.mark.sim
def test_a_clone_sees_its_own_episode(recorded: Path) -> None:
    """Each action follows the row it is chosen at, in the worlds of fixed seeds."""
    info = validate_dataset(recorded)
    env = make_run_env(info, "none")

    class Straight(torch.nn.Module):
        window = 3

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(rows[0])
            return torch.tensor([[[1.0, 0.0]]])

    seen: list[torch.Tensor] = []
    reader = Reader("positions", make_agent(), env, CPU)
    totals = play(Straight(), reader, 1, SILENT)  # type: ignore
    assert [len(x) for x in totals] == [1, 1]
    assert len(seen) == 50
    assert torch.equal(seen[0][0], seen[0][2]), "the first row stands for what was before"
    assert torch.equal(seen[5][:2], seen[4][1:]), "the rows move on"
    env.close()


@pytest.mark.sim
def test_the_command_prints_and_writes_its_numbers(recorded, tmp_path, capsys) -> None:
    words = ("--run.updates", "1", "--run.heldout_every", "0", "--dataset.holdout", "0.5")
    run, file = tmp_path / "run", tmp_path / "cloning.json"
    assert train.main(offline(recorded, run, *words, "--env.action_repeat", "20")) == 0
    capsys.readouterr()
    variants = ["positions", "encoder", "probabilities"]
    count = ["--updates", "20", "--play", "2", "--threads", "1"]
    assert cloning.main([str(run), "--variants", *variants, *count, "--json", str(file)]) == 0
    printed, found = capsys.readouterr().out, json.loads(file.read_text())
    assert "| clone | updates | loss | held-out | R2 of action 0 | R2 of action 1 |" in printed
    assert [row["clone"] for row in found["clones"]] == ["recorded (safe)", *variants]
    assert all(len(row["returns"]) == len(row["costs"]) == 2 for row in found["clones"])
    low, high = found["clones"][1]["return"][1:]
    assert low <= found["clones"][1]["return"][0] <= high
    assert found["provenance"].keys() >= {"command", "commit", "processor"}


def test_episodes_of_the_safe_policy_are_cloned(toy_dataset: Path) -> None:
    summary = summarise(toy_dataset)  # safe and unsafe in turn
    assert cloning.safe_episodes(summary, 0.3) == ([0, 2], [4])
    with pytest.raises(UserError, match="0 held-out ones"):
        cloning.safe_episodes(summary, 0.1)
