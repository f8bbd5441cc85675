"""configs.yaml: every preset loads, in every size and by every recipe; its agent can be built."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

import train
from dreamer.config import flatten, load_presets, to_dict
from fosp_ext.config import (
    MODES,
    RECIPES,
    SCHEMAS,
    SIZES,
    FOSPOnline,
    choose_schema,
    resolve_config,
)
from fosp_ext.run.run_folder import load_run
from tests.support.agents import ROOT, make_agent, make_config
from tests.support.commands import metrics, offline, online, saved

PRESETS = load_presets(ROOT / "configs.yaml")
SCALES = list(itertools.product(SIZES, RECIPES))
WHAT = [name for name in PRESETS if name not in ("defaults", *SIZES, *RECIPES)]
PHASED = {"no_policy_set": "fosp_online"}  # of an ablation, the preset that reads it


def around(name: str) -> tuple[str, ...]:
    """A preset, after the one that it needs."""
    return (PHASED[name], name) if name in PHASED else (name,)


SOURCES = {  # words of every online run -> those of the offline run that it goes on from
    **{
        (name,): ({"fosp_online": "fosp_offline"}.get(name, name.removesuffix("_online")),)
        for name in WHAT
        if make_config(*around(name)).mode == "online"
        and name not in PHASED
        and not name.endswith("_scratch")
    },
    **{
        ("fosp_online", name): ("fosp_offline", *(() if name in PHASED else (name,)))
        for name in WHAT
        if name.startswith("no_")
    },
}


def test_sizes_and_recipes_are_presets_that_name_themselves():
    for kind, names in (("size", SIZES), ("recipe", RECIPES)):
        assert [name for name, preset in PRESETS.items() if kind in preset] == [
            *(["defaults"]),
            *names,
        ]
        assert all(getattr(make_config(name), kind) == name for name in names)
    assert (make_config().size, make_config().recipe) == ("full", "paper")


def test_sizes_and_recipes_set_different_things():
    """But for `debug`, which is for tests: it also makes runs and rollouts short."""
    changed = {name: flatten(PRESETS[name]).keys() for name in (*SIZES, *RECIPES)}
    for size, recipe in SCALES:
        assert size == "debug" or not changed[size] & changed[recipe]


def test_a_size_changes_no_part_of_the_method():
    """Widths, batches, cadences, environments: nothing that a paper would call the method."""
    sizes = r"(world_model\.(rssm|heads)|.*\.net)\.\w+|world_model\.cnn_depth|online\.envs|size"
    habits = r"run\.(batch_size|batch_length|\w+_every|eval_episodes)"
    for name in ("full", "small", "cpu"):
        for key in flatten(PRESETS[name]):
            assert re.fullmatch(f"{sizes}|{habits}", key), key


@pytest.mark.parametrize(("what", "scale"), list(itertools.product(WHAT, SCALES)))
def test_every_combination_loads_in_any_order(what, scale):
    config = make_config(*around(what), *scale)
    assert config.mode in MODES
    assert config == make_config(*scale, *around(what)) == make_config(*scale[::-1], *around(what))


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items())
def test_defaults_hold_every_setting_of_every_method(name, schema):
    method, _, mode = name.rpartition(" ")
    words = {"mode": mode or name, **({"method": method} if method else {})}
    assert choose_schema(PRESETS, [], words) is schema
    resolve_config(PRESETS, [], words)


def test_what_a_method_does_not_read_is_not_in_its_configuration():
    cloning = to_dict(make_config("bc", "quick"))
    assert cloning.keys().isdisjoint({"critic", "lagrange", "policy_set", "online", "imagination"})
    assert cloning["actor"].keys() == {"net", "optimizer"}
    assert "cost_head" not in to_dict(make_config("dreamerv3"))
    assert isinstance(make_config("fosp_online"), FOSPOnline)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "bc --policy_set.kappa 9",
            "--policy_set.kappa is not read by bc offline; it is for fosp online",
        ),
        ("dreamerv3 --cost_head.scale 2", "it is for fosp, safedreamer, bc"),
        ("fosp_online --run.updates 9", "--run.updates is not read by fosp online"),
        ("collect --device cpu", "--device is not read by collect"),
        ("bc no_reachability", "preset 'no_reachability' changes nothing that bc offline reads"),
        ("fosp_offline no_policy_set", "it is for fosp online"),
        ("bc --policy_set.kapa 9", "--policy_set.kapa is not a setting; did you mean"),
    ],
)
def test_settings_that_nothing_reads_are_refused(refuse, words, message):
    assert message in refuse(["--configs", *words.split()])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "fosp_offline",
            "taking size 'cpu' and recipe 'quick' as none is named and this machine has no GPU",
        ),
        ("fosp_offline small", "taking recipe 'paper' as none is named; this machine has no GPU"),
        ("fosp_offline quick", "taking size 'cpu' as none is named; this machine has no GPU"),
        ("fosp_offline quick small", ""),
        ("collect", ""),
    ],
)
def test_what_is_chosen_for_the_machine_is_said(words, line, capsys):
    force = [] if words == "collect" else ["--device", "cpu"]
    assert train.main(["--configs", *words.split(), *force, "--print-config"]) == 0
    printed, said = capsys.readouterr()
    assert said.strip() == line
    names = "-".join([*words.split(), *re.findall(r"'(\w+)'", line)])
    assert f"logdir: logdir/SafetyPointGoal1-v0/{names}/seed0" in printed


@pytest.mark.parametrize("size", ["small", "cpu", "debug"])
@pytest.mark.parametrize("what", ["fosp_offline", "safedreamer", "bc", "dreamerv3"])
def test_every_agent_can_be_built(what, size):
    agent = make_agent(what, size)
    assert sum(parameter.numel() for parameter in agent.parameters()) > 0
    assert hasattr(agent.policy, "reachability") == (what == "fosp_offline")


@pytest.mark.parametrize("part", ["no_in_sample", "no_reachability", "no_lagrangian"])
@pytest.mark.parametrize("scale", SCALES)
def test_ablations_differ_from_fosp_in_one_part(part, scale):
    """In whatever order the presets are named."""
    orders = itertools.permutations(["fosp_offline", part, *scale])
    configs = [make_config(*names) for names in orders]
    assert all(config == configs[0] for config in configs)
    whole, without = to_dict(make_config("fosp_offline", *scale)), to_dict(configs[0])
    other = {key for key in whole if whole[key] != without[key]}
    touched = {
        "no_in_sample": {"critic", "cost_critic"},
        "no_reachability": {"reachability"},
        "no_lagrangian": {"lagrange"},
    }
    assert other == touched[part]


@pytest.mark.parametrize("scale", SCALES)
def test_neither_size_nor_recipe_undoes_the_presets_of_the_release(scale):
    release, theory = make_config("fosp_release", *scale), make_config("fosp_theory", *scale)
    assert release.actor.advantage == "q"
    assert release.actor.clip_r == release.actor.clip_c == 0
    assert release.critic.real_weight == release.cost_critic.real_weight == 0
    assert theory.actor.in_sample_weight > 0
    assert theory.actor.imagined_weight == 0


@pytest.mark.parametrize("words", SOURCES, ids="-".join)
def test_every_online_preset_learns_and_plays(words, toy_dataset, tmp_path, quick_world):
    """Twenty updates after the first one, and evaluations of all policies."""
    source, logdir = tmp_path / "offline", tmp_path / "online"
    short = ("--run.updates", "1", "--run.heldout_every", "0", "--device", "cpu")
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
    config = make_config(*words)
    expanded = isinstance(config, FOSPOnline) and config.policy_set.enabled
    assert ("eval/online_only/score" in lines[-1]) == expanded
    agent = load_run(logdir, torch.device("cpu")).agent
    assert all(torch.isfinite(p).all() for p in agent.parameters())
    before = saved(source)["agent"]
    name = next(name for name in before if name.endswith("policy.actor.mlp.0.weight"))
    assert not torch.equal(agent.policy.actor.mlp[0].weight, before[name])
