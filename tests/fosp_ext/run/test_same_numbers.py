"""Short runs of every method, offline and online, give the numbers that are kept beside this file.

So renaming and moving change nothing that is computed. A change that is meant to alter a number
replaces it here, with the reason in the commit.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import train
from tests.support.commands import metrics

KEPT = json.loads(Path(__file__).with_name("same_numbers.json").read_text())
RECIPE = (  # settings of both phases: what learns fast from few updates
    "--imagination.starts 16 --imagination.risky 0.5 --imagination.gamma 0.95 --cost_head.scale 10 "
    "--actor.advantage lambda --actor.recorded_advantage lambda --actor.gate advantage "
    "--actor.cost_tolerance 0.5 --actor.beta_r 10 --actor.beta_c 3 --world_model.recon_every 4 "
    "--lagrange.penalty 5e-5 --lagrange.cost_limit 0.5 --lagrange.max_multiplier 0.75"
)
RUNS = {  # name -> preset, settings of both phases, settings of the offline phase
    "fosp": ("fosp", [], []),
    "fosp-lambda": ("fosp", RECIPE.split(), ["--run.pretrain", "0.34"]),
    "safedreamer": ("safedreamer", [], []),
    "bc": ("bc", [], []),
    "dreamerv3": ("dreamerv3", [], []),
    "fosp_release": ("fosp_release", [], []),
    "fosp_theory": ("fosp_theory", [], []),
}
COMMON = ("--precision", "float32", "--device", "cpu", "--run.log_every", "1")


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_are_as_before(name: str, place: Path, quick_world: None) -> None:
    preset, words, alone = RUNS[name]
    offline = "fosp_offline" if preset == "fosp" else preset
    data = ("--dataset.path", "data.h5", "--logdir", "off", "--run.heldout_every", "3")
    count = ("--run.updates", "6")
    assert train.main(["--configs", offline, "debug", *data, *count, *COMMON, *words, *alone]) == 0
    quiet = ("--run.heldout_every", "0", "--run.eval_every", "4")
    source = ("--from", "off", "--logdir", "on", *quiet)
    assert train.main(["--configs", f"{preset}_online", "debug", *source, *COMMON, *words]) == 0
    rows = metrics(place / "on")
    found = {
        "offline": metrics(place / "off")[-1],
        "online": [row for row in rows if "train/wm/loss" in row][-1],
        "episode": [row for row in rows if "episode/score" in row][-1],
    }
    for phase, kept in KEPT[name].items():
        assert kept.keys() <= found[phase].keys()
        wrong = {
            key: (value, found[phase][key])
            for key, value in kept.items()
            if not math.isclose(value, found[phase][key], rel_tol=1e-3, abs_tol=1e-6)
        }
        assert not wrong, phase
