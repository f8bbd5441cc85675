"""Results of a comparison: every number in one JSON file."""

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

from dreamer.data.hdf5 import fingerprint
from dreamer.errors import UserError
from dreamer.files import atomic_path, read_json, write_text
from dreamer.training.evaluation import spread
from dreamer.training.run_folder import META, provenance, read_starts
from experiments.comparison.jobs import (
    ROOT,
    PlannedEvaluation,
    RunKey,
    agent_steps,
    diagnosis_file,
    find_evaluation,
    model_folder,
    newest_step,
    offline_folder,
    online_evaluations,
    online_folder,
    run_folders,
    short,
)
from experiments.comparison.methods import Method, offline_names
from experiments.comparison.plan import Plan
from experiments.comparison.run import past_jobs
from fosp_ext.dataset.summary import summarise
from fosp_ext.envs.variants import NONE
from fosp_ext.report.learning import TrainingEpisode
from fosp_ext.report.runs import Evaluation, read_episodes, read_evaluation, read_metrics
from fosp_ext.report.statistics import mean_interval

PHASES = {None: "", "set": " set", "online": " alone"}  # who acts after the online phase


def as_json(
    plan: Plan, methods: Sequence[Method], seeds: int, out: Path, command: Sequence[str]
) -> dict[str, Any]:
    """Every number with the commands that made it.

    `evaluations` and `runs` are one by one, `offline` and `online` over all seeds.
    """
    folders = run_folders(plan, methods, seeds, out)
    return {
        "command": shlex.join(["python", "-m", "experiments.comparison", *command]),
        "provenance": {**provenance(), "processor": processor()},
        "plan": dataclasses.asdict(plan),
        "methods": [method.name for method in methods],
        "seeds": list(range(seeds)),
        "dataset": dataset_numbers(ROOT / plan.dataset),
        "offline": offline_numbers(plan, methods, seeds, out),
        "online": [numbers(row) for row in collect(plan, methods, seeds, out)],
        "evaluations": [
            single(folder, key, evaluation, plan)
            for folder, key in folders.items()
            for evaluation in key.evaluations
        ],
        "models": model_numbers(plan, seeds, out),
        "runs": [run_numbers(folder, key, out) for folder, key in folders.items()],
        "jobs": past_jobs(out),
    }


def single(run: Path, key: RunKey, evaluation: PlannedEvaluation, plan: Plan) -> dict[str, Any]:
    """One evaluation of one run, complete in itself."""
    played = _evaluation(run, evaluation, plan)
    summary = read_json(played.folder / "summary.json")
    made = [*_starts(run), summary]  # what was run for it, the evaluation last
    return {
        "method": key.method,
        "seed": key.seed,
        "phase": phase(key, evaluation),
        "variant": evaluation.variant,
        "return": summary["return"],
        "cost": summary["cost"],
        "safe_episodes": summary["safe_episodes"],
        "evaluation_seeds": summary["seeds"],
        "returns": played.scores.tolist(),
        "costs": played.costs.tolist(),
        **_progress(run, key),
        "commits": list(dict.fromkeys(each["commit"] for each in made)),
        "machines": list(dict.fromkeys(each["machine"] for each in made)),
        "processor": processor(),
        "commands": list(dict.fromkeys(shlex.join(["python", *e["command"]]) for e in made)),
    }


def phase(key: RunKey, evaluation: PlannedEvaluation) -> str:
    """The evaluated phase and policy: offline, online, online set, online or offline alone."""
    return (
        "offline alone" if evaluation.policy == "offline" else key.phase + PHASES[evaluation.policy]
    )


def run_numbers(run: Path, key: RunKey, out: Path) -> dict[str, Any]:
    """One run: how far it went, its starts, its training episodes and its diagnosis, if any."""
    diagnosis = diagnosis_file(out, key.method, key.seed)
    diagnosed = key.phase == "offline" and diagnosis.exists()
    return {
        "method": key.method,
        "phase": key.phase,
        "seed": key.seed,
        "folder": short(run),
        **_progress(run, key),
        "starts": _starts(run),
        "training_episodes": [
            {"return": e.score, "cost": e.cost, "agent_steps": e.agent_steps}
            for e in read_episodes(run)
        ],
        "diagnosis": read_json(diagnosis)["points"] if diagnosed else None,
    }


def model_numbers(plan: Plan, seeds: int, out: Path) -> list[dict[str, Any]]:
    """The pretrained world models that methods share, one for each seed."""
    runs = [model_folder(out, seed) for seed in range(seeds if plan.model_updates else 0)]
    return [
        {
            "seed": seed,
            "folder": short(run),
            "updates": newest_step(run),
            "training_minutes": training_minutes(run),
            "starts": _starts(run),
        }
        for seed, run in enumerate(runs)
    ]


def _progress(run: Path, key: RunKey) -> dict[str, Any]:
    return {
        "updates": newest_step(run),
        "agent_steps": agent_steps(run) if key.phase == "online" else 0,
        "training_minutes": training_minutes(run, key.begins),
    }


def _starts(run: Path) -> list[dict[str, Any]]:
    return read_starts(run / META) or []


def training_minutes(run: Path, begins: int = 0) -> float:
    """Training time by the rates in metrics.jsonl, held-out metrics and evaluations included.

    Start-up and what was lost where a run was killed are not. The first `begins` updates are those
    of the run that pretrained the world model.
    """
    seconds, before = 0.0, begins
    for row in read_metrics(run):
        if "fps/updates" in row:
            seconds += (row["step"] - before) / row["fps/updates"]
            before = row["step"]
    return round(seconds / 60, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the online table: evaluations before and after, and the training episodes."""

    method: str
    acts: str | None  # policy of a set; None: the only one
    before: list[Evaluation]  # of the offline run, in the variant; one for each seed
    learning: list[tuple[TrainingEpisode, ...]]  # of each seed; empty for a policy alone
    after: list[Evaluation]


def collect(plan: Plan, methods: Sequence[Method], seeds: int, out: Path) -> list[Row]:
    """Read the results of the finished jobs; empty where there is no online phase."""
    rows = []
    for method in methods if plan.online_steps else ():
        sources = [offline_folder(out, method.offline, seed) for seed in range(seeds)]
        runs = [online_folder(out, method.name, seed) for seed in range(seeds)]
        before = [
            _evaluation(source, PlannedEvaluation(plan.variant, None), plan) for source in sources
        ]
        for evaluation in online_evaluations(method, plan):
            alone = evaluation.policy in ("online", "offline")
            rows.append(
                Row(
                    method=method.name,
                    acts=evaluation.policy,
                    before=[] if alone else before,
                    learning=[] if alone else [read_episodes(run) for run in runs],
                    after=[_evaluation(run, evaluation, plan) for run in runs],
                )
            )
    return rows


def _evaluation(run: Path, evaluation: PlannedEvaluation, plan: Plan) -> Evaluation:
    folder = find_evaluation(run, evaluation, plan.eval_episodes)
    if folder is None:
        raise UserError(f"{run} has no evaluation in variant {evaluation.variant}; was it removed?")
    return read_evaluation(folder)


def numbers(row: Row) -> dict[str, Any]:
    """The row as means with intervals; what it does not have is left out."""
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
    for name in offline_names(methods):
        runs = [offline_folder(out, name, seed) for seed in range(seeds)]
        played = [_evaluation(run, PlannedEvaluation(NONE.name, None), plan) for run in runs]
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


def dataset_numbers(path: Path) -> dict[str, Any]:
    """Return and cost of the policies in the dataset."""
    summary = summarise(path)
    return {
        "path": short(path),
        "fingerprint": fingerprint(path),
        "policies": {
            group.name: {
                "episodes": len(group.returns),
                "return": spread(group.returns),
                "cost": spread(group.costs),
                "safe_episodes": float((group.costs == 0).mean()),  # without any cost
            }
            for group in summary.by_policy()
        },
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
        write_text(part, json.dumps(_without_nan(found), indent=1, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
