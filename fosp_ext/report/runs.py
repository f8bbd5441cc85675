"""Run folders as a report reads them: settings, curves, evaluations; seeds put together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.command_line import parse_command_line
from dreamer.config import flatten, marks, to_dict
from dreamer.errors import UserError, shown
from dreamer.files import parse_json, read_json, read_text
from fosp_ext.config import TrainConfig, load_config
from fosp_ext.envs import check_task, check_variant
from fosp_ext.envs.variants import NONE
from fosp_ext.report.learning import LARGEST, TrainingEpisode, training_episode
from fosp_ext.report.statistics import cost_regret
from fosp_ext.run.train import FLAGS


class Source(NamedTuple):
    """Source of learning curves: PREFIX/score and PREFIX/cost in metrics.jsonl."""

    name: str
    prefix: str
    policy: str = ""  # which policy of a set played, as in summary.json


NUMBERS = ("score", "cost")  # of an episode
EVALUATIONS = Source("evaluations", "eval", "set")
ALONE = (  # each policy of a set acting alone
    Source("online policy alone", "eval/online_only", "online"),
    Source("offline policy alone", "eval/offline_only", "offline"),
)
EPISODES = Source("training episodes", "episode")
SOURCES = (EVALUATIONS, *ALONE, EPISODES)
PLAYERS = {
    "set": ", policy set", "online": ", online policy alone", "offline": ", offline policy alone",
    "proposals": ", several proposals",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Learning curves of one run over its gradient updates, each (K,)."""

    updates: np.ndarray
    score: np.ndarray
    cost: np.ndarray
    regret: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Episodes with the mean action: a folder that eval.py wrote, or the last of a training.

    Of the latter only means are known: its arrays have a single entry.
    """

    folder: Path
    variant: str
    policy: str  # which policy of a set acted; "" where a run has only one
    updates: int
    scores: np.ndarray  # (E,) returns of the episodes
    costs: np.ndarray  # (E,)
    safe: np.ndarray  # (E,) in [0, 1]: share without any cost
    episodes: int
    origin: tuple[str, str, str] | None = None  # day, machine, commit; None: not written down

    @property
    def videos(self) -> list[Path]:
        """Its videos, in order."""
        return sorted((self.folder / "videos").glob("*.mp4"))


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path
    config: TrainConfig
    rows: list[dict[str, Any]]  # of metrics.jsonl
    evaluations: list[Evaluation]
    presets: tuple[str, ...] = ()  # by which train.py was called
    episodes: tuple[TrainingEpisode, ...] = ()  # training episodes of an online run

    @property
    def task(self) -> str:
        """Id of its task."""
        return check_task(self.config.task)

    @property
    def variant(self) -> str:
        """The variant it is trained for."""
        return check_variant(self.config.env.variant, self.task).name

    @property
    def is_online(self) -> bool:
        """Whether it is an online run."""
        return self.config.mode == "online"

    def curve(self, source: Source) -> Curve | None:
        """Its learning curves, or None where it has no such rows.

        Training episodes that ended between the same two updates are one point: their mean.
        """
        steps, score = points(self.rows, f"{source.prefix}/score")
        _, cost = points(self.rows, f"{source.prefix}/cost")
        if not len(steps) or len(cost) != len(score):
            return None
        episodes = 1 if source is EPISODES else self.config.run.eval_episodes
        regret = cost_regret(cost, episodes)
        updates, place, count = np.unique(steps, return_inverse=True, return_counts=True)
        means = (np.bincount(place, values) / count for values in (score, cost, regret))
        return Curve(updates, *means)

    def newest(self) -> list[Evaluation]:
        """The newest evaluation in each variant, by each policy; that of the training if none."""
        newest: dict[tuple[str, str], Evaluation] = {}
        for evaluation in self.evaluations:
            newest[evaluation.variant, evaluation.policy] = evaluation
        if newest:
            return list(newest.values())
        last = [self._last(source) for source in (EVALUATIONS, *ALONE)]
        return [evaluation for evaluation in last if evaluation]

    def _last(self, source: Source) -> Evaluation | None:
        """The last evaluation of the training by this policy."""
        curve = self.curve(source)
        if curve is None:
            return None
        _, safe = points(self.rows, f"{source.prefix}/safe_episodes")
        policy = source.policy if any(self.curve(other) for other in ALONE) else ""
        means = (curve.score[-1:], curve.cost[-1:], safe[-1:], self.config.run.eval_episodes)
        return Evaluation(self.path, self.variant, policy, int(curve.updates[-1]), *means)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed."""

    label: str  # unique within the task
    task: str
    runs: list[Run]


def read_run(path: Path) -> Run:
    """Read one run folder; what is wrong with it is a `UserError`."""
    settings = path / "config.yaml"
    if not settings.is_file():
        raise UserError(
            f"{path} is no run folder of train.py: it has no config.yaml{_inside(path)}"
        )
    rows = read_metrics(path) if (path / "metrics.jsonl").exists() else []
    found = [read_evaluation(file.parent) for file in path.glob("eval/*/summary.json")]
    config = load_config(settings)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path} is of mode {config.mode}, which trains nothing")
    in_order = sorted(found, key=lambda e: (e.updates, (e.folder / "summary.json").stat().st_mtime))
    return Run(path, config, rows, in_order, _presets(path), read_episodes(path))


def read_episodes(run: Path) -> tuple[TrainingEpisode, ...]:
    """The training episodes of an online run, in order; none where it has no episodes.jsonl."""
    path = run / "episodes.jsonl"
    try:
        return tuple(map(training_episode, _json_lines(path))) if path.exists() else ()
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise UserError(f"{path} is no list of training episodes: {_reason(error)}") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a crash cut off is left out."""
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"no {path}; is {run} a run folder of train.py?")
    rows = _json_lines(path)
    for number, row in enumerate(rows, 1):
        wrong = [tag for tag, value in row.items() if not _is_number(value)]
        if wrong or row.get("step", -1) < 0:
            tag = shown(wrong[0] if wrong else "step")
            raise UserError(f"{path}: line {number} is damaged ({tag} is no number)")
    return rows


def points(rows: Sequence[dict[str, Any]], tag: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the rows that have the tag, each (K,)."""
    pairs = [(row["step"], row[tag]) for row in rows if tag in row]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def read_evaluation(folder: Path) -> Evaluation:
    """The numbers of one evaluation."""
    path = folder / "summary.json"
    try:
        summary = read_json(path)
        episodes = _json_lines(folder / "episodes.jsonl")
        if not episodes:
            raise ValueError("it has no episodes")
        if not all(_is_number(episode[name]) for episode in episodes for name in NUMBERS):
            raise ValueError(f"{' and '.join(NUMBERS)} must be numbers")
        costs = np.array([episode["cost"] for episode in episodes], np.float64)
        return Evaluation(
            folder=folder,
            variant=str(summary.get("variant", NONE.name)),
            policy=str(summary.get("policy") or ""),
            updates=int(summary["updates"]),
            scores=np.array([episode["score"] for episode in episodes], np.float64),
            costs=costs,
            safe=(costs == 0).astype(np.float64),  # without any cost, however small
            episodes=len(episodes),
            origin=_origin(summary),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder} is no whole evaluation of eval.py: {_reason(error)}") from error


def _origin(summary: dict[str, Any]) -> tuple[str, str, str] | None:
    """Day, machine and commit of an evaluation, if it tells."""
    if not {"time", "machine", "commit"} <= summary.keys():
        return None
    machine = summary.get("gpu") or summary.get("processor") or summary["machine"]
    return summary["time"][:10], machine, summary["commit"]


def played_by(policy: str) -> str:
    """The policy of an evaluation, to be put after other words; empty where there is only one."""
    return PLAYERS.get(policy, policy)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put the seeds of each setting together, in the order they were named."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(json.dumps(_identity(run), sort_keys=True), []).append(run)
    apart = [members for same in together.values() for members in _by_source(same)]
    for members in apart:
        _check_seeds(members)
    plain = [_plain_label(members[0]) for members in apart]
    groups = []
    for label, members in zip(plain, apart, strict=True):
        rivals = [m[0] for p, m in zip(plain, apart, strict=True) if p == label]
        full = ", ".join([label[1], *_differences(members[0], rivals)])
        groups.append(Group(full, label[0], members))
    return groups


def _plain_label(run: Run) -> tuple[str, str]:
    """(task, presets, size and variant)."""
    config = run.config
    names = list(run.presets) or [f"{config.method}_{config.mode}"]
    names += [name for name in (config.size, config.recipe) if name not in names]
    variant = "" if run.variant == NONE.name else f", {run.variant}"
    return run.task, "-".join(names) + variant


def _presets(path: Path) -> tuple[str, ...]:
    """The presets that the last start of a run named, if meta.json tells."""
    try:
        words = read_json(path / "meta.json")[-1]["command"]
        return tuple(parse_command_line(words[1:], FLAGS)[0])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()  # it is a note for people, not needed


def _differences(run: Run, rivals: list[Run]) -> list[str]:
    """The settings in which groups of the same name differ, as this one has them."""
    own, others = _identity(run), [_identity(rival) for rival in rivals]
    shared = [key for key in own if all(key in other for other in others)]
    named = [f"{k}={own[k]}" for k in shared if any(other[k] != own[k] for other in others)]
    return named if named or len(rivals) == 1 else [f"init_from={_source(run)}"]


def _identity(run: Run) -> dict[str, Any]:
    """The settings that decide its result, apart from the seed: dotted key -> value."""
    settings = flatten(to_dict(run.config)) | {"task": run.task, "env.variant": run.variant}
    decides = marks(type(run.config), "decides_result")
    ignored = {"seed", *(key for key, says in decides.items() if not says)}
    return {key: value for key, value in settings.items() if key not in ignored}


def _by_source(members: Sequence[Run]) -> list[list[Run]]:
    """Seeds belong together, unless one seed has gone on from several offline runs."""
    if len({run.config.seed for run in members}) == len(members):
        return [list(members)]
    apart: dict[str, list[Run]] = {}
    for run in members:
        apart.setdefault(_source(run), []).append(run)
    return list(apart.values())


def _source(run: Run) -> str:
    """The run it goes on from, the same for all seeds of one folder."""
    return re.sub(r"seed\d+", "seed*", run.config.init_from)


def _check_seeds(members: list[Run]) -> None:
    by_start: dict[tuple[int, str], Run] = {}
    for run in members:
        twin = by_start.setdefault((run.config.seed, run.config.init_from), run)
        if twin is not run:
            raise UserError(
                f"{twin.path} and {run.path} have the same settings and the same seed "
                f"{run.config.seed}: they are no two samples; name one of them"
            )


def _inside(path: Path) -> str:
    """A hint where run folders lie further down, or the folder is missing."""
    if not path.exists():
        return " (there is no such folder)"
    below = sorted(file.parent for file in path.glob("**/config.yaml"))
    return f"; did you mean {' '.join(map(str, below[:5]))}?" if below else ""


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = read_text(path).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is damaged ({error})") from error
            continue
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is damaged (no object)")
        rows.append(row)
    return rows


def _is_number(value: Any) -> bool:
    """Is it a finite number, and none that a figure cannot show?"""
    return type(value) in (int, float) and abs(value) < LARGEST


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
