"""What the methods came to: every number in one JSON file, and tables for the terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning_plan import Method, Plan
from benchmarks.learning_stages import (
    ROOT,
    Look,
    find_evaluation,
    looks_after,
    looks_before,
    offline_folder,
    online_folder,
    past_stages,
    short,
)
from dreamer.data.hdf5 import fingerprint
from dreamer.errors import UserError
from dreamer.files import atomic_path
from fosp_ext.dataset.summary import summarise
from fosp_ext.envs.variants import NONE
from fosp_ext.report.learning import TrainingEpisode
from fosp_ext.report.runs import Evaluation, read_episodes, read_evaluation
from fosp_ext.report.statistics import mean_interval
from fosp_ext.run_folder import provenance

Interval = tuple[float, float, float]  # mean, lower and upper end of its 95 % interval
WHO = {None: "", "set": "", "online": ", online policy alone", "offline": ", offline policy alone"}
HEADER = (
    "| method | return before | cost before | return while learning | cost while learning "
    "| summed cost | return after | cost after |\n" + "|---" * 8 + "|"
)
PLAIN_HEADER = "| method | return | cost | without cost |\n|---|---|---|---|"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the comparison: what acts, before, while and after learning online."""

    method: str
    acts: str | None  # policy of a set; None: the only one
    before: list[Evaluation]  # of the offline run, in the variant; one for each seed
    learning: list[tuple[TrainingEpisode, ...]]  # of each seed; empty for a policy alone
    after: list[Evaluation]


def collect(plan: Plan, methods: Sequence[Method], seeds: int, out: Path) -> list[Row]:
    """Read what the finished stages left."""
    rows = []
    for method in methods:
        sources = [offline_folder(out, method.offline, seed) for seed in range(seeds)]
        runs = [online_folder(out, method.name, seed) for seed in range(seeds)]
        before = [_evaluation(source, Look(plan.variant, None), plan) for source in sources]
        for look in looks_after(method, plan):
            alone = look.policy in ("online", "offline")
            rows.append(
                Row(
                    method=method.name,
                    acts=look.policy,
                    before=[] if alone else before,
                    learning=[] if alone else [read_episodes(run) for run in runs],
                    after=[_evaluation(run, look, plan) for run in runs],
                )
            )
    return rows


def _evaluation(run: Path, look: Look, plan: Plan) -> Evaluation:
    folder = find_evaluation(run, look, plan.eval_episodes)
    if folder is None:
        raise UserError(f"{run} has no evaluation in variant {look.variant}; was it removed?")
    return read_evaluation(folder)


def numbers(row: Row) -> dict[str, Any]:
    """The line as mean and interval; what it does not have is left out."""
    found: dict[str, Any] = {"method": row.method, "acts": row.acts, "seeds": len(row.after)}
    for name, played in (("before", row.before), ("after", row.after)):
        if played:
            found[f"return_{name}"] = mean_interval([e.scores for e in played])
            found[f"cost_{name}"] = mean_interval([e.costs for e in played])
            found[f"without_cost_{name}"] = mean_interval([e.safe for e in played])
    learning = [episodes for episodes in row.learning if episodes]
    if learning:
        costs = [np.array([e.cost for e in episodes]) for episodes in learning]
        found["return_learning"] = mean_interval(
            [np.array([e.score for e in episodes]) for episodes in learning]
        )
        found["cost_learning"] = mean_interval(costs)
        found["summed_cost"] = mean_interval([own.sum(keepdims=True) for own in costs])
        found["training_episodes"] = [len(own) for own in costs]
    return found


def offline_numbers(
    plan: Plan, methods: Sequence[Method], seeds: int, out: Path
) -> list[dict[str, Any]]:
    """The offline runs in the task as it is."""
    found = []
    for name in dict.fromkeys(method.offline for method in methods):
        runs = [offline_folder(out, name, seed) for seed in range(seeds)]
        played = [_evaluation(run, Look(NONE.name, None), plan) for run in runs]
        found.append(
            {
                "method": name,
                "seeds": seeds,
                "return": mean_interval([e.scores for e in played]),
                "cost": mean_interval([e.costs for e in played]),
                "without_cost": mean_interval([e.safe for e in played]),
            }
        )
    return found


def tables(plan: Plan, rows: Sequence[Row], offline: Sequence[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    lines = [
        f"Offline, {plan.updates} updates, in {plan.task}; {_meaning(plan)}",
        "",
        PLAIN_HEADER,
        *(
            f"| {each['method']} | {_cell(each['return'])} | {_cell(each['cost'])} "
            f"| {_cell(each['without_cost'])} |"
            for each in offline
        ),
        "",
        f"Online, {plan.online_steps} agent steps in variant {plan.variant}; before and after are "
        "evaluations there,",
        "while learning is the mean of the training episodes, their costs also summed",
        "",
        HEADER,
    ]
    columns = (
        *("return_before", "cost_before", "return_learning", "cost_learning", "summed_cost"),
        *("return_after", "cost_after"),
    )
    for row in rows:
        found = numbers(row)
        cells = [_cell(found[key]) if key in found else "" for key in columns]
        lines.append(f"| {row.method}{WHO[row.acts]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _meaning(plan: Plan) -> str:
    last = 999 + plan.eval_episodes
    return f"seeds 1000 to {last}, mean action, mean [95 % interval]"


def _cell(interval: Interval) -> str:
    mean, low, high = interval
    if math.isnan(low):
        return f"{mean:.2f}"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def as_json(
    plan: Plan, methods: Sequence[Method], seeds: int, out: Path, command: Sequence[str]
) -> dict[str, Any]:
    """Every number with what made it."""
    rows = collect(plan, methods, seeds, out)
    return {
        "command": shlex.join(["python", "-m", "benchmarks.learning", *command]),
        "provenance": {**provenance(), "processor": processor()},
        "plan": dataclasses.asdict(plan),
        "methods": [method.name for method in methods],
        "seeds": list(range(seeds)),
        "dataset": dataset_numbers(ROOT / plan.dataset),
        "offline": offline_numbers(plan, methods, seeds, out),
        "online": [numbers(row) for row in rows],
        "runs": _runs(plan, methods, seeds, out),
        "stages": past_stages(out),
    }


def dataset_numbers(path: Path) -> dict[str, Any]:
    """What the behaviours in the dataset earned and cost."""
    summary = summarise(path)
    return {
        "path": short(path),
        "fingerprint": fingerprint(path),
        "behaviours": {
            group.name: {
                "episodes": len(group.returns),
                "return": float(group.returns.mean()),
                "cost": float(group.costs.mean()),
            }
            for group in summary.by_behaviour()
        },
    }


def _runs(plan: Plan, methods: Sequence[Method], seeds: int, out: Path) -> list[dict[str, Any]]:
    """Each run folder with its starts, evaluations and training episodes, one number each."""
    folders = {
        offline_folder(out, m.offline, seed): (m.offline, "offline", seed, looks_before(plan))
        for m in methods
        for seed in range(seeds)
    } | {
        online_folder(out, m.name, seed): (m.name, "online", seed, looks_after(m, plan))
        for m in methods
        for seed in range(seeds)
    }
    return [
        {
            "method": name,
            "phase": phase,
            "seed": seed,
            "folder": short(folder),
            "starts": json.loads((folder / "meta.json").read_text()),
            "evaluations": [_single(folder, look, plan) for look in looks],
            "training_episodes": [
                {"return": e.score, "cost": e.cost, "agent_steps": e.agent_steps}
                for e in read_episodes(folder)
            ],
        }
        for folder, (name, phase, seed, looks) in folders.items()
    ]


def _single(run: Path, look: Look, plan: Plan) -> dict[str, Any]:
    evaluation = _evaluation(run, look, plan)
    return {
        **json.loads((evaluation.folder / "summary.json").read_text()),
        "returns": evaluation.scores.tolist(),
        "costs": evaluation.costs.tolist(),
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def save_json(found: dict[str, Any], path: Path) -> None:
    """Write it; a number that is not known is null."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(_without_nan(found), indent=1, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
