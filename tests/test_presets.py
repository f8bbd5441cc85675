"""configs.yaml: every preset loads, alone and with every size, and its agent can be built."""

from __future__ import annotations

import itertools

import pytest

from dreamer.config import load_presets
from fosp_ext.settings import MODES, SIZES
from tests.helpers import ROOT, make_agent, make_config

PRESETS = [name for name in load_presets(ROOT / "configs.yaml") if name != "defaults"]
NAMED_SIZES = [size for size in SIZES if size != "auto"]
WHAT = [name for name in PRESETS if name not in NAMED_SIZES]


def test_sizes_are_presets_that_name_themselves():
    assert set(NAMED_SIZES) < set(PRESETS)
    for size in NAMED_SIZES:
        assert make_config(size).size == size
    assert make_config().size == "auto"


@pytest.mark.parametrize(("what", "size"), list(itertools.product(WHAT, NAMED_SIZES)))
def test_every_combination_loads_in_either_order(what, size):
    config = make_config(what, size)
    assert config.mode in MODES
    assert config == make_config(size, what)


@pytest.mark.parametrize("size", ["small", "cpu", "debug"])
@pytest.mark.parametrize("what", ["fosp_offline", "dreamerv3"])
def test_every_agent_can_be_built(what, size):
    agent = make_agent(what, size)
    assert sum(parameter.numel() for parameter in agent.parameters()) > 0
    assert hasattr(agent.behavior, "reachability") == (what == "fosp_offline")
