"""Agents as ONNX files: the same acts and estimates without PyTorch, and files that are refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import runtime
from dreamer.agent import Agent, AgentState
from dreamer.errors import UserError
from dreamer.types import Latent
from fosp_ext import export
from fosp_ext.onnx_graph import ActingStep, acting_inputs, check_exportable, drawn
from fosp_ext.run.run_folder import load_run
from fosp_ext.runtime import ObservationError, Policy
from fosp_ext.runtime.policy import FROZEN_AFTER
from tests.support.agents import INFO, make_agent, make_batch, written_run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CPU = torch.device("cpu")
SET = ("fosp_online", "debug")
STEPS = 6


def perturbed(*names: str, **settings: str) -> Agent:
    """An agent whose policies differ, as after a training."""
    agent = make_agent(*names, **settings)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter += 0.2 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return agent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `run` of a policy set and the file `agent.onnx` exported from it."""
    folder = tmp_path_factory.mktemp("onnx")
    written_run(folder / "run", perturbed(*SET), *SET)
    assert export.main([str(folder / "run"), "--out", str(folder / "agent.onnx")]) == 0
    return folder


@pytest.fixture
def policy(place: Path) -> Policy:
    """Without a period: however slow this machine is, nothing comes too late."""
    policy = Policy.load(place / "agent.onnx")
    policy._period = None
    return policy


def images(step: int) -> dict[str, np.ndarray]:
    """Of one moment, different at every step."""
    return {name: x[0, step].numpy() for name, x in make_batch(T=8).obs.items()}


def torch_step(agent: Agent, state: AgentState, step: int):
    """What the agent itself does."""
    obs = {name: torch.from_numpy(x).unsqueeze(0) for name, x in images(step).items()}
    return agent.act(obs, torch.full((1,), float(step == 0)), state, explore=False)


def test_every_step_is_that_of_the_agent(place, policy):
    """Single steps from the same state: in closed loops a flipped choice would make them part."""
    agent = load_run(place / "run", CPU).agent
    state, who = agent.initial(1), set()
    for step in range(STEPS):
        action, after, estimates = torch_step(agent, state, step)
        if step:
            policy._state = tuple(part.numpy() for part in state.latent)
            policy.executed(state.action[0].numpy())
        decision = policy.act(images(step))
        assert decision.fault is None
        np.testing.assert_allclose(decision.action, action[0], atol=2e-5)
        assert decision.estimates.keys() == estimates.keys()
        for name, value in estimates.items():
            assert decision.estimates[name] == pytest.approx(float(value), abs=1e-4), name
        for ours, theirs in zip(policy._state, after.latent, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
        assert decision.violation_probability == decision.estimates["violation_probability"]
        assert decision.warning == (decision.violation_probability > 0.5)
        assert decision.who == ("online" if estimates["online"] else "offline")
        who.add(decision.who)
        state = after
    assert who <= {"online", "offline"}


def test_the_file_says_what_it_was_trained_for(policy):
    facts = policy.facts
    assert (facts.task, facts.cameras, facts.size) == (INFO.task, INFO.cameras, INFO.size)
    assert (facts.action_size, facts.rate, facts.updates) == (2, 50 / INFO.action_repeat, 7)
    assert facts.warning == 0.5
    assert facts.calibration is None
    assert facts.provenance["export"]["versions"]["torch"] == torch.__version__
    assert {"value", "cost_value", "violation_probability", "online"} <= set(facts.estimates)


def test_sampled_states_are_drawn_by_the_noise_that_is_given():
    """The graph draws nothing itself: zeros take the mode, and equal noise is an equal state."""
    agent = perturbed("fosp_offline", "debug", world_model__rssm__read="sample")
    step = ActingStep(agent, INFO.cameras).eval()
    inputs = list(acting_inputs(agent, INFO.cameras, INFO.size))
    before = torch.get_rng_state()
    with torch.no_grad():
        _, _, mode, *_ = step(*inputs)
        _, post = agent.world_model.rssm.posterior_step(
            Latent(*inputs[1:3]), inputs[3], embedding(agent, inputs[5:]), inputs[0]
        )
        assert torch.equal(mode.argmax(-1), post.argmax(-1))
        assert torch.equal(mode.sum(-1), torch.ones_like(mode[..., 0]))
        inputs[4] = torch.from_numpy(np.random.default_rng(0).gumbel(size=mode.shape)).float()
        assert torch.equal(step(*inputs)[2], step(*inputs)[2])
        assert not torch.equal(step(*inputs)[2], mode)
    assert torch.equal(torch.get_rng_state(), before)


def embedding(agent: Agent, pictures) -> torch.Tensor:
    obs = {name: x.unsqueeze(1) for name, x in zip(INFO.cameras, pictures, strict=True)}
    return agent.world_model.encoder(obs)[:, 0]


def test_gumbel_noise_draws_by_the_probabilities():
    probs = torch.tensor([[0.6, 0.3, 0.1]]).expand(4000, -1)
    noise = torch.from_numpy(np.random.default_rng(0).gumbel(size=(4000, 3)))
    shares = drawn(probs, noise).mean(0)
    np.testing.assert_allclose(shares, probs[0], atol=0.03)


def test_what_was_sent_becomes_the_action_before(policy):
    policy.act(images(0))
    policy.executed(np.array([0.5, -2.0]))
    np.testing.assert_array_equal(policy._action, [[0.5, -1.0]])
    for wrong in ([0.0], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="an action is 2 finite numbers"):
            policy.executed(np.array(wrong))


def test_a_reset_begins_anew(policy):
    first = policy.act(images(0))
    policy.act(images(1))
    policy.reset(seed=0)
    again = policy.act(images(0))
    np.testing.assert_array_equal(first.action, again.action)
    assert first.estimates == again.estimates


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("vision"), "no image of camera 'vision'"),
        (lambda x: x.update(vision=x["vision"].astype(np.float32)), "gives float32, not uint8"),
        (lambda x: x.update(vision=x["vision"][:32]), r"gives \(32, 64, 3\), not \(64, 64, 3\)"),
        (lambda x: x.update(vision=None), "gives NoneType, not uint8"),
    ],
)
def test_other_images_are_refused_and_nothing_has_happened(policy, change, message):
    expected = policy.act(images(0))
    policy.reset()
    wrong = images(0)
    change(wrong)
    with pytest.raises(ObservationError, match=message):
        policy.act(wrong)
    np.testing.assert_array_equal(policy.act(images(0)).action, expected.action)


def held(decision, fault: str) -> None:
    assert (decision.fault, decision.who) == (fault, "hold")
    assert not decision.action.any()
    assert decision.violation_probability is None
    assert not decision.warning


def test_stale_images_are_held(policy):
    policy.act(images(0))
    policy._period = 1 / policy.facts.rate
    held(policy.act(images(1), age=1.01 / policy.facts.rate), "stale")
    assert not policy._action.any()  # holding is what was done


def test_frozen_images_are_held(policy):
    decisions = [policy.act(images(0)) for _ in range(FROZEN_AFTER + 1)]
    assert [each.fault for each in decisions[:-1]] == [None] * FROZEN_AFTER
    held(decisions[-1], "frozen")
    assert policy.act(images(1)).fault is None


def test_a_missed_deadline_is_held(policy):
    policy._period = 0.05
    held(policy.act(images(0), age=0.05), "deadline")


def test_what_is_not_finite_is_held_and_forgotten(policy):
    policy.act(images(0))
    policy._state = tuple(np.full_like(part, np.nan) for part in policy._state)
    held(policy.act(images(1)), "not finite")
    assert policy.act(images(2)).fault is None


def test_files_that_are_not_ours_or_were_altered_are_refused(place, tmp_path):
    content = (place / "agent.onnx").read_bytes()
    for name, written, message in (
        ("none.onnx", b"nothing", "is no ONNX file that can be run"),
        ("cut.onnx", content[: len(content) // 2], "is no ONNX file|was altered"),
        ("changed.onnx", content.replace(b'"warning": 0.5', b'"warning": 0.9'), "was altered"),
    ):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(UserError, match=message):
            Policy.load(tmp_path / name)
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="is no exported policy"):
        Policy.load(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="cannot read"):
        Policy.load(tmp_path / "missing.onnx")


def test_what_cannot_be_exported_is_refused(place, capsys):
    assert export.main([str(place / "run"), "--out", str(place / "agent.onnx")]) == 2
    assert "exists already; choose another name" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no ONNX graph"):
        check_exportable(make_agent(*SET, policy_set__proposals="4"))


def test_the_latency_is_measured(place, capsys):
    assert runtime.main([str(place / "agent.onnx"), "--steps", "3"]) in (0, 1)
    assert "ms at the median" in capsys.readouterr().out
    assert runtime.main([str(place / "none.onnx")]) == 2


HEAVY = "{'torch', 'mujoco', 'gymnasium', 'h5py', 'PIL', 'ruamel'} & set(sys.modules)"


def test_the_script_of_the_docs_needs_numpy_and_onnxruntime_alone(place, tmp_path):
    """Beside copies of nothing but the runtime and what it imports of this package."""
    root = Path(export.__file__).parents[1]
    for package in ("dreamer", "fosp_ext"):
        (tmp_path / package).mkdir()
        shutil.copy(root / package / "__init__.py", tmp_path / package)
    shutil.copy(root / "dreamer" / "errors.py", tmp_path / "dreamer")
    shutil.copytree(root / "fosp_ext" / "runtime", tmp_path / "fosp_ext" / "runtime")
    page = (root / "docs" / "reference" / "runtime.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert script.count("\n") < 20
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print({HEAVY})", str(place / "agent.onnx")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *steps, heavy = done.stdout.splitlines()
    assert [line.split()[0] for line in steps] == ["0", "1", "2", "3", "4"]
    assert heavy == "set()"
