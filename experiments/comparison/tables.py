"""Results of a comparison as Markdown tables, from the numbers of `results.as_json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from experiments.comparison.plan import place

WHO = {None: "", "set": "", "online": ", online policy alone", "offline": ", offline policy alone"}
ONLINE = {  # heading -> key in a line of the online runs
    "return before": "return_before",
    "cost before": "cost_before",
    "return while learning": "return_learning",
    "cost while learning": "cost_learning",
    "summed cost": "summed_cost",
    "return after": "return_after",
    "cost after": "cost_after",
}


def tables(found: dict[str, Any]) -> str:
    """The dataset beside the offline runs, then the online runs; ready to be pasted."""
    plan, seeds = found["plan"], ", ".join(map(str, found["seeds"]))
    paragraphs = [
        f"Offline, {plan['updates']} updates, in {plan['task']}; training seeds {seeds}, "
        f"evaluation seeds 1000 to {999 + plan['eval_episodes']}, mean action. Mean [95 % "
        "interval]; the first lines are the episodes of the dataset.",
        markdown(
            ("method", "return", "cost", "without cost"),
            [*_data(found["dataset"]["policies"]), *map(_offline, found["offline"])],
        ),
    ]
    if found["online"]:
        paragraphs += [
            f"Online, {plan['online_steps']} agent steps in {place(plan['variant'])}. Before and "
            "after are evaluations there, while learning is the mean of the training episodes, "
            "their costs also summed.",
            markdown(("method", *ONLINE), map(_online, found["online"])),
        ]
    if plan["settings"]:
        changed = (f"`{key}` {value}" for key, value in plan["settings"].items())
        paragraphs.append(f"Settings that were changed: {', '.join(changed)}.")
    return "\n\n".join(paragraphs)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(policies: dict[str, Any]) -> Iterator[list[str]]:
    for name, group in policies.items():
        intervals = [(group[key]["mean"], *group[key]["ci95"]) for key in ("return", "cost")]
        cells = [cell(interval) for interval in intervals]
        yield [f"dataset: {name}", *cells, f"{group['safe_episodes']:.2f}"]


def _offline(line: dict[str, Any]) -> list[str]:
    return [line["method"], *(cell(line[key]) for key in ("return", "cost", "without_cost"))]


def _online(line: dict[str, Any]) -> list[str]:
    cells = [cell(line[key]) if key in line else "" for key in ONLINE.values()]
    return [line["method"] + WHO[line["acts"]], *cells]


def cell(interval: Sequence[float]) -> str:
    """Mean and its interval, where that is known."""
    mean, low, high = interval
    if math.isnan(low):
        return f"{mean:.2f}"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
