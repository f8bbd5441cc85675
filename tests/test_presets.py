"""configs.yaml: every preset loads, alone and with every size, and its agent can be built."""

from __future__ import annotations

import itertools

import pytest

from dreamer.config import load_presets, to_dict
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
@pytest.mark.parametrize("what", ["fosp_offline", "safedreamer", "bc", "dreamerv3"])
def test_every_agent_can_be_built(what, size):
    agent = make_agent(what, size)
    assert sum(parameter.numel() for parameter in agent.parameters()) > 0
    assert hasattr(agent.behavior, "reachability") == (what == "fosp_offline")


@pytest.mark.parametrize("part", ["no_in_sample", "no_reachability", "no_lagrangian"])
@pytest.mark.parametrize("size", NAMED_SIZES)
def test_ablations_differ_from_fosp_in_one_part(part, size):
    """In whatever order the presets are named."""
    orders = itertools.permutations(["fosp_offline", part, size])
    configs = [make_config(*names) for names in orders]
    assert all(config == configs[0] for config in configs)
    whole, without = to_dict(make_config("fosp_offline", size)), to_dict(configs[0])
    other = {key for key in whole if whole[key] != without[key]}
    touched = {
        "no_in_sample": {"critic", "cost_critic"},
        "no_reachability": {"reachability"},
        "no_lagrangian": {"lagrange"},
    }
    assert other == touched[part]


@pytest.mark.parametrize("size", NAMED_SIZES)
def test_no_size_undoes_the_presets_of_the_release(size):
    release, theory = make_config("fosp_release", size), make_config("fosp_theory", size)
    assert release.actor.clip_r == release.actor.clip_c == 0
    assert release.critic.real_weight == release.cost_critic.real_weight == 0
    assert theory.actor.in_sample_weight > 0
    assert theory.actor.imagined_weight == 0
