"""torch.compile for the repeated steps of an update: refused without a compiler, else the same."""

from __future__ import annotations

import math

import pytest
import torch
from torch._inductor import config as inductor

import train
from dreamer.build import can_compile, compile_agent
from dreamer.errors import UserError
from tests.support.agents import make_agent, make_batch, make_config
from tests.support.commands import metrics, offline

CPU = torch.device("cpu")


def test_acting_is_not_compiled(monkeypatch):
    """Only where gradients are asked for."""
    calls = []
    monkeypatch.setattr("dreamer.build.can_compile", lambda device: True)
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda *args: calls.append(f) or f(*args))
    agent, batch = make_agent(), make_batch()
    compile_agent(agent, "on", CPU)
    obs = {name: images[:, 0] for name, images in batch.obs.items()}
    agent.act(obs, batch.is_first[:, 0], agent.initial(4), explore=True)
    assert calls == []
    agent.update(batch)
    steps = [f.__name__ for f in calls]
    assert steps == ["_follow"] * 8 + ["imagine_step"] * 5


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        compile_agent(make_agent(), "on", CPU)
    for when in ("off", "auto"):
        compile_agent(make_agent(), when, CPU)


def test_a_gpu_compiles_by_default_and_goes_on_without(monkeypatch):
    """The preset says auto; a processor stays plain, and `on` hides no failure."""
    asked = []
    monkeypatch.setattr("dreamer.build.can_compile", lambda device: True)
    monkeypatch.setattr("dreamer.rssm.RSSM.compile_steps", lambda rssm: asked.append(rssm))
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    agent, when = make_agent(), make_config().compile
    compile_agent(agent, when, CPU)
    assert asked == []
    compile_agent(agent, when, torch.device("cuda"))
    assert asked == [agent.world_model.rssm]
    assert torch._dynamo.config.suppress_errors
    compile_agent(agent, "on", CPU)
    assert not torch._dynamo.config.suppress_errors


@pytest.fixture
def compiler():
    """One, in this process, that starts afresh."""
    if not can_compile(CPU):
        pytest.skip("no C++ compiler")
    torch._dynamo.reset()
    with inductor.patch(compile_threads=1):
        yield


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("precision", "bound", "same"), [("float32", 1e-5, 3), ("bfloat16", 0.02, 1)]
)
def test_compiled_steps_give_the_same_numbers(precision, bound, same):
    """Draws included; the debug size with fewer rows, for compiling takes its time.

    In bfloat16 only the first update: rounding makes some of the later draws fall differently.
    """
    agents = [make_agent("fosp_offline", "debug", precision=precision) for _ in range(2)]
    compile_agent(agents[1], "on", CPU)
    lines = []
    for agent in agents:
        torch.manual_seed(3)  # with which rounding turns no draw of the first update
        lines.append([agent.update(make_batch(3, 7, seed=k)) for k in range(3)])
    for plain, fast in list(zip(*lines, strict=True))[:same]:
        for name, value in plain.items():
            torch.testing.assert_close(fast[name], value, rtol=bound, atol=bound)
    assert all(value.isfinite() for line in lines[1] for value in line.values())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.usefixtures("compiler")
def test_a_compiled_training_in_bfloat16(toy_dataset, tmp_path):
    """With the shapes of the test above, which are compiled already."""
    words = ["--compile", "on", "--precision", "bfloat16", "--run.updates", "2"]
    shape = ["--run.batch_size", "3", "--run.batch_length", "7", "--run.heldout_every", "0"]
    assert train.main(offline(toy_dataset, tmp_path, *words, *shape)) == 0
    lines = [line for line in metrics(tmp_path) if "train/wm/loss" in line]
    assert len(lines) == 2
    assert all(math.isfinite(value) for line in lines for value in line.values())
