"""The data of a report, gathered before a file is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from dreamer.errors import UserError
from dreamer.utils import choose_device
from fosp_ext.dataset.summary import summarise
from fosp_ext.report.runs import Group, Run, group_runs, read_run
from fosp_ext.report.tables import Result, results
from fosp_ext.report.training_cost import while_learning
from fosp_ext.report.violation_probability import Forecast, forecast
from fosp_ext.run.data import run_dataset


@dataclass(frozen=True)
class ScatterPoint:
    """A point of the scatter plot: a group of runs, or a policy of the dataset."""

    name: str
    scores: np.ndarray  # per seed, or per episode
    costs: np.ndarray


@dataclass(frozen=True)
class Material:
    """The runs, their results and forecasts, and remarks on what is missing."""

    groups: list[Group]
    results: list[Result]
    policies: dict[str, list[ScatterPoint]] = field(default_factory=dict)  # task -> its dataset's
    heldout: list[tuple[str, Forecast]] = field(default_factory=list)  # (run, on held-out episodes)
    training: list[tuple[str, Forecast]] = field(default_factory=list)  # (run, while learning)
    remarks: list[str] = field(default_factory=list)  # what is left out, and why

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of the runs."""
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str) -> list[Group]:
        """The groups of a task."""
        return [group for group in self.groups if group.task == task]

    def label(self, group: Group, run: Run) -> str:
        """The label of a single run."""
        label = f"{group.label}, seed {run.config.seed}"
        return f"{group.task}: {label}" if len(self.tasks) > 1 else label


def gather(paths: Sequence[Path], device: str, stream: TextIO) -> Material:
    """Read the runs and evaluate their estimates; nothing is written."""
    chosen = choose_device(device)
    distinct = {path.resolve(): path for path in paths}
    groups = group_runs([read_run(path) for path in distinct.values()])
    material = Material(groups, results(groups))
    read: set[Path] = set()
    for group in groups:
        for run in group.runs:
            stream.write(f"{run.path}\n")
            if not run.newest():
                material.remarks.append(f"{run.path}: no evaluation, so it is in no table.")
            _add_policies(material, run, read)
            _add_calibration(material, run, material.label(group, run), chosen, stream)
    return material


def _add_calibration(
    material: Material, run: Run, label: str, device: torch.device, stream: TextIO
) -> None:
    """Forecasts of the newest checkpoint, and those logged while learning."""
    seen = forecast(run, device, stream)
    if isinstance(seen, str):
        material.remarks.append(f"{run.path}: no calibration, {seen}.")
    else:
        material.heldout.append((label, seen))
    if run.is_online and not run.episodes:
        material.remarks.append(f"{run.path}: no training episode has ended yet.")
    played = while_learning(run)
    if played is not None:
        material.training.append((label, played))


def _add_policies(material: Material, run: Run, read: set[Path]) -> None:
    """Returns and costs of the policies of the run's dataset; each file is read once."""
    path = run_dataset(run.config)
    if path.resolve() in read:
        return
    read.add(path.resolve())
    if not path.exists():
        material.remarks.append(f"{path} is not there: its policies are in no figure.")
        return
    try:
        summary = summarise(path)
    except UserError as error:
        material.remarks.append(f"{error}: its policies are in no figure.")
        return
    material.policies.setdefault(run.task, []).extend(
        ScatterPoint(group.name, group.returns, group.costs) for group in summary.by_policy()
    )
