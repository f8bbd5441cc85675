"""torch.compile for the repeated steps of an update: refused without a compiler, else the same."""

from __future__ import annotations

import pytest
import torch

from dreamer.errors import UserError
from fosp_ext.build import can_compile, compile_agent
from tests.helpers import make_agent, make_batch, make_config

CPU = torch.device("cpu")


def test_acting_is_not_compiled(monkeypatch):
    """Only where gradients are asked for."""
    calls = []
    monkeypatch.setattr("fosp_ext.build.can_compile", lambda device: True)
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda *args: calls.append(f) or f(*args))
    agent, batch = make_agent(), make_batch()
    compile_agent(agent, "on", CPU)
    obs = {name: pictures[:, 0] for name, pictures in batch.obs.items()}
    agent.act(obs, batch.is_first[:, 0], agent.initial(4), explore=True)
    assert calls == []
    agent.update(batch)
    steps = [f.__name__ for f in calls]
    assert steps == ["_follow"] * 8 + ["img_step"] * 5


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
    monkeypatch.setattr("fosp_ext.build.can_compile", lambda device: True)
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


@pytest.mark.skipif(not can_compile(CPU), reason="no C++ compiler")
def test_compiled_steps_give_the_same_numbers(monkeypatch):
    """Draws included; the debug size with fewer rows, for compiling takes its time."""
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    agents = [make_agent("fosp_offline", "debug", precision="float32") for _ in range(2)]
    compile_agent(agents[1], "on", CPU)
    lines = []
    for agent in agents:
        torch.manual_seed(1)
        lines.append([agent.update(make_batch(3, 7, seed=k)) for k in range(3)])
    for plain, fast in zip(*lines, strict=True):
        for name, value in plain.items():
            torch.testing.assert_close(fast[name], value, rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
