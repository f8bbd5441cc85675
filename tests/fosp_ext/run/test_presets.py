"""configs.yaml: every preset loads, alone and with every size, and its agent can be built."""

from __future__ import annotations

import itertools

import pytest
import torch

import train
from dreamer.config import load_presets, to_dict
from fosp_ext.run.run_folder import load_run
from fosp_ext.settings import MODES, SIZES
from tests.commands import metrics, offline, online, saved
from tests.helpers import ROOT, make_agent, make_config

PRESETS = [name for name in load_presets(ROOT / "configs.yaml") if name != "defaults"]
NAMED_SIZES = [size for size in SIZES if size != "auto"]
WHAT = [name for name in PRESETS if name not in NAMED_SIZES]
SOURCES = {  # words of every online run -> those of the offline run that it goes on from
    **{
        (name,): ({"fosp_online": "fosp_offline"}.get(name, name.removesuffix("_online")),)
        for name in WHAT
        if make_config(name).mode == "online"
    },
    **{("fosp_online", name): ("fosp_offline", name) for name in WHAT if name.startswith("no_")},
}


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
    assert hasattr(agent.policy, "reachability") == (what == "fosp_offline")


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


@pytest.mark.parametrize("words", SOURCES, ids="-".join)
def test_every_online_preset_learns_and_plays(words, toy_dataset, tmp_path, quick_world):
    """Twenty updates after the first one, and evaluations of all policies."""
    source, logdir = tmp_path / "offline", tmp_path / "online"
    short = ("--run.updates", "1", "--run.report_every", "0", "--device", "cpu")
    names = ("--configs", *SOURCES[words], "debug")
    assert train.main(offline(toy_dataset, source, *short, *names)) == 0
    length = ("--online.steps", "20", "--online.ratio", "1", "--online.envs", "1")
    looks = ("--run.eval_every", "15", "--run.log_every", "10", "--run.save_every", "100")
    names = ("--configs", *words, "debug")
    assert train.main(online(source, logdir, *length, *looks, *names)) == 0
    assert saved(logdir)["step"] == 21
    lines = metrics(logdir)
    assert [line["step"] for line in lines if "train/wm/loss" in line] == [10, 20, 21]
    assert [line["episode/length"] for line in lines if "training_cost/total" in line] == [8, 8]
    expanded = make_config(*words).policy_set.enabled and make_config(*words).method == "fosp"
    assert ("eval/online_only/score" in lines[-1]) == expanded
    agent = load_run(logdir, torch.device("cpu")).agent
    assert all(torch.isfinite(p).all() for p in agent.parameters())
    before = saved(source)["agent"]
    name = next(name for name in before if name.endswith("policy.actor.mlp.0.weight"))
    assert not torch.equal(agent.policy.actor.mlp[0].weight, before[name])
