"""The plan of a comparison: what fits into the time budget, kept in plan.json."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamer.errors import UserError
from dreamer.files import atomic_path, read_json, write_text
from experiments.comparison.methods import Method, offline_names, shared_part
from experiments.diagnose_own import EPISODES
from fosp_ext.envs.variants import NONE

RECORDED, LEAST_RECORDED = 200, 10  # episodes of a new dataset
PLAYED, LEAST_PLAYED = 20, 5  # episodes of an evaluation
RECORDING_SHARE, PLAYING_SHARE = 0.15, 0.25  # of the time; beyond that there are fewer episodes
ONLINE_SHARE = 0.3  # of the time that is left for learning
CURVE_POINTS, CURVE_EPISODES, CURVE_SHARE = 4, 5, 0.1  # evaluations on the way, if cheap enough
LEAST_UPDATES = 20
REPORT_SECONDS = 6.0  # for each run: held-out episodes are read and evaluated
DIAGNOSIS_SECONDS = 10.0  # likewise, of an offline run; it also plays episodes
HALVINGS = 30  # of the interval in which the work is sought that several jobs can do


@dataclass(frozen=True)
class Speed:
    """Measured times on this machine, in seconds."""

    start: float  # of a command, until it begins with its work
    first: Mapping[str, float]  # first update of each offline run, by name
    update: Mapping[str, float]  # each further update
    episode: float  # played with a policy
    length: int  # agent steps of an episode
    cores: int  # that record side by side
    model: float = 0.0  # part of an update that runs with a shared world model need once


@dataclass(frozen=True)
class Parallelism:
    """Number of parallel jobs, and threads of each."""

    jobs: int = 1  # that run at the same time
    threads: int = 0  # of each of them; 0: every core


@dataclass(frozen=True)
class Request:
    """The request of the command line; None leaves a value to the plan."""

    task: str
    variant: str
    size: str
    recipe: str
    dataset: str  # file to record, or to take
    recorded: bool  # must it be recorded?
    budget_minutes: float
    episodes: int | None
    eval_episodes: int | None
    updates: int | None
    online_steps: int | None  # 0: no online phase
    settings: dict[str, str]  # further ones, of every command that reads them

    @property
    def scale(self) -> tuple[str, str]:
        """The presets of size and recipe."""
        return self.size, self.recipe


@dataclass(frozen=True)
class Plan:
    """Everything that decides the runs, apart from methods and seeds. It does not change later."""

    task: str
    variant: str
    size: str
    recipe: str
    dataset: str
    episodes: int  # to record; 0: the file was there
    eval_episodes: int
    updates: int  # of every offline run
    eval_every: int  # updates between evaluations of an offline run on the way; 0: none
    online_steps: int  # agent steps of every online run; 0: there is none
    budget_minutes: float
    estimate: dict[str, float]  # part of the work -> seconds, for the methods and seeds at first
    speed: dict[str, Any]  # that the estimate goes by, as `Speed`
    settings: dict[str, str] = field(default_factory=dict)  # as in `Request`
    jobs: int = 1  # at the same time that the estimate goes by; a later start may have others
    threads: int = 0  # likewise, of each of them
    expected: float = 0.0  # seconds that all of it takes with these jobs; 0: the sum of `estimate`
    model_updates: int = 0  # of the `updates`, learned once for each seed by a shared world model

    @property
    def scale(self) -> tuple[str, str]:
        """The presets of size and recipe."""
        return self.size, self.recipe


@dataclass(frozen=True)
class Budget:
    """Amounts of work in a plan."""

    recorded: int
    played: int
    curves: bool  # are offline runs evaluated on the way?
    online: bool  # is there an online phase?
    updates: int = 0
    steps: int = 0


@dataclass(frozen=True)
class RunEstimate:
    """Time estimate of a run: a training and its evaluations, one after the other."""

    name: str
    after: str | None  # the run that must end before
    parts: dict[str, float]  # part of the work -> seconds

    @property
    def seconds(self) -> float:
        """From its beginning to its end."""
        return sum(self.parts.values())


def at_once(methods: Sequence[Method], seeds: int, online: bool) -> int:
    """Number of runs that can be made at the same time."""
    return seeds * (len(methods) if online else len(offline_names(methods)))


def evaluations(methods: Sequence[Method], variant: str, online: bool = True) -> int:
    """Number of evaluations for one seed of all methods."""
    before = len(offline_names(methods)) * _offline_evaluations(variant)
    return before + (sum(map(_online_evaluations, methods)) if online else 0)


def _offline_evaluations(variant: str) -> int:
    return 1 if variant == NONE.name else 2


def _online_evaluations(method: Method) -> int:
    return 3 if method.expanded else 1


def make_plan(
    request: Request, methods: Sequence[Method], seeds: int, speed: Speed, parallel: Parallelism
) -> Plan:
    """Plan what fits into the budget: requested amounts first, training gets the rest.

    Every amount has a minimum, so the estimate of a plan may be longer than the budget.
    """
    available = 60 * request.budget_minutes

    def weigh(work: float) -> tuple[Budget, dict[str, float], float]:
        budget = _spend(request, methods, seeds, speed, work)
        return budget, *_estimate(budget, request.variant, methods, seeds, speed, parallel.jobs)

    # Seconds of work that jobs do side by side within the budget: more than one of them does alone.
    work, too_much = available, available * parallel.jobs
    for _ in range(HALVINGS if parallel.jobs > 1 else 0):
        middle = (work + too_much) / 2
        if weigh(middle)[2] <= available:
            work = middle
        else:
            too_much = middle
    budget, estimate, expected = weigh(work)
    policy_updates = int(budget.updates * (1 - max(method.alone for method in methods)))
    return Plan(
        task=request.task,
        variant=request.variant,
        size=request.size,
        recipe=request.recipe,
        dataset=request.dataset,
        episodes=budget.recorded,
        eval_episodes=budget.played,
        updates=budget.updates,
        eval_every=max(1, policy_updates // CURVE_POINTS) if budget.curves else 0,
        online_steps=budget.steps,
        budget_minutes=request.budget_minutes,
        estimate={part: round(seconds, 1) for part, seconds in estimate.items()},
        speed=dataclasses.asdict(speed),
        settings=request.settings,
        jobs=parallel.jobs,
        threads=parallel.threads,
        expected=round(expected, 1),
        model_updates=int(shared_part(methods) * budget.updates),
    )


def _spend(
    request: Request, methods: Sequence[Method], seeds: int, speed: Speed, work: float
) -> Budget:
    """The amounts that `work` seconds of one job are enough for."""
    online = request.online_steps != 0
    count = seeds * evaluations(methods, request.variant, online)
    played = request.eval_episodes or _within(
        LEAST_PLAYED, PLAYED, PLAYING_SHARE * work / (count * speed.episode)
    )
    recorded = 0
    if request.recorded:
        affordable = RECORDING_SHARE * 60 * request.budget_minutes * speed.cores / speed.episode
        recorded = request.episodes or _within(LEAST_RECORDED, RECORDED, affordable)
    bare = Budget(recorded, played, curves=False, online=online)
    spent, _ = _estimate(bare, request.variant, methods, seeds, speed, 1)
    rest = work - sum(spent.values())
    on_the_way = seeds * len(offline_names(methods)) * _curve_seconds(speed)
    curves = on_the_way <= CURVE_SHARE * rest
    updates, steps = _learning(request, methods, seeds, speed, rest - curves * on_the_way)
    return dataclasses.replace(bare, curves=curves, updates=updates, steps=steps)


def _learning(
    request: Request, methods: Sequence[Method], seeds: int, speed: Speed, rest: float
) -> tuple[int, int]:
    """(updates, agent steps) for the seconds that are left, or as requested; at least a minimum."""
    sharing = {method.offline for method in methods if method.alone}
    twice = len(sharing) - 1 if shared_part(methods) else 0
    update = sum(speed.update[name] for name in offline_names(methods)) - twice * speed.model
    update *= seeds
    step = seeds * sum(_step_seconds(method, speed) for method in methods)
    whole = speed.length * max(method.envs for method in methods)  # an episode in each environment
    updates, steps = request.updates, request.online_steps
    if updates is None:
        online = max(ONLINE_SHARE * rest, whole * step) if steps is None else steps * step
        updates = max(LEAST_UPDATES, _round_down((rest - online) / update))
    if steps is None:
        steps = whole * max(1, int((rest - updates * update) / step / whole))
    return updates, steps


def _step_seconds(method: Method, speed: Speed) -> float:
    """Seconds that one agent step more takes in an online run, updates included."""
    return speed.episode / speed.length + method.ratio * speed.update[method.offline]


def _curve_seconds(speed: Speed) -> float:
    """Of all evaluations on the way of one offline run."""
    return CURVE_POINTS * CURVE_EPISODES * speed.episode


def _within(least: int, most: int, wanted: float) -> int:
    return int(min(max(wanted, least), most))


def _round_down(number: float) -> int:
    """Two digits that count: 1234.5 -> 1200; as it is below 100."""
    unit = 10 ** max(0, len(str(int(max(number, 0)))) - 2)
    return int(max(number, 0) / unit) * unit


def _estimate(
    budget: Budget, variant: str, methods: Sequence[Method], seeds: int, speed: Speed, jobs: int
) -> tuple[dict[str, float], float]:
    """(seconds of each part of the work, seconds until all of it is done).

    The dataset comes before everything else, the report after it; both run alone.
    """
    runs = estimate_runs(budget, variant, methods, seeds, speed)
    parts = {
        "recording": (speed.start if budget.recorded else 0)
        + budget.recorded * speed.episode / speed.cores,
        "starting": 0.0,
        "evaluating": 0.0,
        "reporting": speed.start + len(runs) * REPORT_SECONDS,
        "offline training": 0.0,
        "online training": 0.0,
    }
    alone = sum(parts.values())
    for run in runs:
        for part, seconds in run.parts.items():
            parts[part] += seconds
    return parts, alone + side_by_side(runs, jobs)


def estimate_runs(
    budget: Budget, variant: str, methods: Sequence[Method], seeds: int, speed: Speed
) -> list[RunEstimate]:
    """Every training with its evaluations, in the order in which they begin."""
    runs, shared = {}, shared_part(methods) > 0
    for seed in range(seeds):
        model = f"model-seed{seed}"
        if shared:
            parts = {"starting": speed.start, "offline training": budget.updates * speed.model}
            runs[model] = RunEstimate(model, None, parts)
        for method in methods:
            offline = f"{method.offline}-offline-seed{seed}"
            after = model if shared and method.alone else None
            runs[offline] = _offline_estimate(offline, after, method, budget, variant, speed)
            if budget.online:
                online = f"{method.name}-online-seed{seed}"
                runs[online] = _online_estimate(online, offline, method, budget, speed)
    return list(runs.values())


def _offline_estimate(
    name: str, after: str | None, method: Method, budget: Budget, variant: str, speed: Speed
) -> RunEstimate:
    count, update = _offline_evaluations(variant), speed.update[method.offline]
    parts = {
        "starting": (1 + count + method.diagnosed) * speed.start + speed.first[method.offline],
        "evaluating": count * budget.played * speed.episode + budget.curves * _curve_seconds(speed),
        "reporting": method.diagnosed * (DIAGNOSIS_SECONDS + EPISODES * speed.episode),
        "offline training": budget.updates * (update - (speed.model if after else 0.0)),
    }
    return RunEstimate(name, after, parts)


def _online_estimate(
    name: str, after: str, method: Method, budget: Budget, speed: Speed
) -> RunEstimate:
    count = _online_evaluations(method)
    parts = {
        "starting": (1 + count) * speed.start + speed.first[method.offline],
        "evaluating": count * budget.played * speed.episode,
        "online training": budget.steps * _step_seconds(method, speed),
    }
    return RunEstimate(name, after, parts)


def side_by_side(runs: Sequence[RunEstimate], jobs: int) -> float:
    """Seconds until the last run ends, if a free job takes the first run that may begin."""
    now, over, waiting = 0.0, {None}, list(runs)
    running: list[tuple[float, str]] = []
    while waiting or running:
        ready = next((run for run in waiting if run.after in over), None)
        if ready is not None and len(running) < jobs:
            waiting.remove(ready)
            heapq.heappush(running, (now + ready.seconds, ready.name))
        else:
            now, name = heapq.heappop(running)
            over.add(name)
    return now


def describe(plan: Plan, methods: Sequence[Method], seeds: int) -> str:
    """The plan as lines of text."""
    record = f"{plan.episodes} episodes to record" if plan.episodes else "given"
    online = f"{plan.online_steps} agent steps each, in {place(plan.variant)}"
    count = seeds * evaluations(methods, plan.variant, plan.online_steps > 0)
    model = f", the first {plan.model_updates} shared" if plan.model_updates else ""
    lines = [
        f"plan: {', '.join(method.name for method in methods)} in {plan.task}, "
        f"seeds 0 to {seeds - 1}, size {plan.size}, recipe {plan.recipe}",
        *(f"  {key} = {value}" for key, value in plan.settings.items()),
        f"  dataset        {plan.dataset}, {record}",
        f"  offline        {plan.updates} updates each{model}",
        f"  online         {online if plan.online_steps else 'none'}",
        f"  evaluations    {count}, {plan.eval_episodes} episodes each",
        "  estimate, if nothing else keeps this machine busy, in minutes:",
    ]
    for part, seconds in plan.estimate.items():
        lines.append(f"    {part:<17} {seconds / 60:6.1f}")
    together = sum(plan.estimate.values())
    expected, label = plan.expected or together, "together"
    if plan.jobs > 1:
        lines.append(f"    {label:<17} {together / 60:6.1f}")
        label = f"{plan.jobs} side by side"
    lines.append(f"    {label:<17} {expected / 60:6.1f} of {plan.budget_minutes:g}")
    if expected > 60 * plan.budget_minutes:
        lines.append("  this is longer than --budget-minutes: less of it would be too little, or")
        lines.append("  the command asks for it; stop here for fewer methods, seeds or episodes")
    return "\n".join(lines)


def place(variant: str) -> str:
    """A variant in a sentence."""
    return "the task as it is" if variant == NONE.name else f"variant {variant}"


def save_plan(plan: Plan, path: Path) -> None:
    """Write it where `load_plan` finds it."""
    with atomic_path(path) as part:
        write_text(part, json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def load_plan(path: Path, request: Request) -> Plan | None:
    """The plan of an earlier start, or None; a `UserError` where it does not fit the request."""
    if not path.exists():
        return None
    values = read_json(path)
    try:
        plan = Plan(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no plan of a comparison: {error}") from error
    what = ("task", "variant", "size", "recipe", "dataset", "settings")
    for name in (*what, "episodes", "eval_episodes", "updates", "online_steps"):
        if (asked := getattr(request, name)) is not None:  # None leaves it to the plan
            _check_same(path, name, getattr(plan, name), asked)
    return plan


def _check_same(path: Path, name: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise UserError(
            f"{path.parent} holds a comparison with {name} {found!r}, this command says "
            f"{wanted!r}; name another --out, or give the same options to continue it"
        )
