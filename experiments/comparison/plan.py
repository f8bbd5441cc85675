"""How much of a comparison fits into the time there is, and the plan that is kept."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamer.errors import UserError
from dreamer.files import atomic_path
from experiments.comparison.methods import Method, offline_names, shared_part
from experiments.diagnose_own import EPISODES
from fosp_ext.envs.variants import NONE

RECORDED, LEAST_RECORDED = 200, 10  # episodes of a new dataset
PLAYED, LEAST_PLAYED = 20, 5  # episodes of an evaluation
RECORDING_SHARE, PLAYING_SHARE = 0.15, 0.25  # of the time; beyond that there are fewer episodes
ONLINE_SHARE = 0.3  # of the time that is left for learning
CURVE_POINTS, CURVE_EPISODES, CURVE_SHARE = 4, 5, 0.1  # evaluations on the way, if cheap enough
LEAST_UPDATES = 20
REPORT_SECONDS = 6.0  # for each run: held-out episodes are read and judged
DIAGNOSIS_SECONDS = 10.0  # likewise, of an offline run; it also plays episodes
HALVINGS = 30  # of the interval in which the work is sought that several jobs can do


@dataclass(frozen=True)
class Speed:
    """Seconds that things take on this machine."""

    start: float  # of a command, until it begins with its work
    first: Mapping[str, float]  # first update of each offline run, by name
    update: Mapping[str, float]  # each further update
    episode: float  # played with a policy
    length: int  # agent steps of an episode
    cores: int  # that record side by side
    model: float = 0.0  # of an update, what runs that share a world model need once


@dataclass(frozen=True)
class Jobs:
    """How the steps share the machine."""

    count: int = 1  # that run at the same time
    threads: int = 0  # of each of them; 0: every core


@dataclass(frozen=True)
class Request:
    """What the command line says; None leaves it to the plan."""

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
    # What plans had not at first:
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
    """What a plan consists of."""

    recorded: int
    played: int
    curves: bool  # are offline runs evaluated on the way?
    online: bool  # is there an online phase?
    updates: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Job:
    """A training and its evaluations: steps of which each waits for the one before."""

    name: str
    after: str | None  # the chain that must be over before
    parts: dict[str, float]  # part of the work -> seconds

    @property
    def seconds(self) -> float:
        """From its begin to its end."""
        return sum(self.parts.values())


def at_once(methods: Sequence[Method], seeds: int, online: bool) -> int:
    """How many runs can be made at the same time."""
    return seeds * (len(methods) if online else len(offline_names(methods)))


def evaluations(methods: Sequence[Method], variant: str, online: bool = True) -> int:
    """How many evaluations one seed of all methods has."""
    before = len(offline_names(methods)) * _looks_before(variant)
    return before + (sum(map(_looks_after, methods)) if online else 0)


def _looks_before(variant: str) -> int:
    return 1 if variant == NONE.name else 2


def _looks_after(method: Method) -> int:
    return 3 if method.expanded else 1


def make_plan(
    request: Request, methods: Sequence[Method], seeds: int, speed: Speed, jobs: Jobs
) -> Plan:
    """Spend the time: what is wished for first, learning gets the rest.

    There is a least of everything, so the estimate of a plan may be longer than the budget.
    """
    budget = 60 * request.budget_minutes

    def weigh(work: float) -> tuple[Budget, dict[str, float], float]:
        amounts = _amounts(request, methods, seeds, speed, work)
        return amounts, *_estimate(amounts, request.variant, methods, seeds, speed, jobs.count)

    # Seconds of work that jobs do side by side within the budget: more than one of them does alone.
    work, too_much = budget, budget * jobs.count
    for _ in range(HALVINGS if jobs.count > 1 else 0):
        middle = (work + too_much) / 2
        if weigh(middle)[2] <= budget:
            work = middle
        else:
            too_much = middle
    amounts, estimate, expected = weigh(work)
    behaving = int(amounts.updates * (1 - max(method.alone for method in methods)))
    return Plan(
        task=request.task,
        variant=request.variant,
        size=request.size,
        recipe=request.recipe,
        dataset=request.dataset,
        episodes=amounts.recorded,
        eval_episodes=amounts.played,
        updates=amounts.updates,
        eval_every=max(1, behaving // CURVE_POINTS) if amounts.curves else 0,
        online_steps=amounts.steps,
        budget_minutes=request.budget_minutes,
        estimate={part: round(seconds, 1) for part, seconds in estimate.items()},
        speed=dataclasses.asdict(speed),
        settings=request.settings,
        jobs=jobs.count,
        threads=jobs.threads,
        expected=round(expected, 1),
        model_updates=int(shared_part(methods) * amounts.updates),
    )


def _amounts(
    request: Request, methods: Sequence[Method], seeds: int, speed: Speed, work: float
) -> Budget:
    """How much of everything `work` seconds of one job are enough for."""
    online = request.online_steps != 0
    looks = seeds * evaluations(methods, request.variant, online)
    played = request.eval_episodes or _within(
        LEAST_PLAYED, PLAYED, PLAYING_SHARE * work / (looks * speed.episode)
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
    """(updates, agent steps) for the seconds that are left, or as wished for; never none at all."""
    takers = {method.offline for method in methods if method.alone}
    twice = len(takers) - 1 if shared_part(methods) else 0
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
    amounts: Budget, variant: str, methods: Sequence[Method], seeds: int, speed: Speed, jobs: int
) -> tuple[dict[str, float], float]:
    """(seconds of each part of the work, seconds until all of it is done).

    The dataset comes before everything else, the report after it; neither has company.
    """
    chains = make_chains(amounts, variant, methods, seeds, speed)
    parts = {
        "recording": (speed.start if amounts.recorded else 0)
        + amounts.recorded * speed.episode / speed.cores,
        "starting": 0.0,
        "evaluating": 0.0,
        "reporting": speed.start + len(chains) * REPORT_SECONDS,
        "offline training": 0.0,
        "online training": 0.0,
    }
    alone = sum(parts.values())
    for chain in chains:
        for part, seconds in chain.parts.items():
            parts[part] += seconds
    return parts, alone + side_by_side(chains, jobs)


def make_chains(
    amounts: Budget, variant: str, methods: Sequence[Method], seeds: int, speed: Speed
) -> list[Job]:
    """Every training with its evaluations, in the order in which they begin."""
    chains, shared = {}, shared_part(methods) > 0
    for seed in range(seeds):
        model = f"model-seed{seed}"
        if shared:
            parts = {"starting": speed.start, "offline training": amounts.updates * speed.model}
            chains[model] = Job(model, None, parts)
        for method in methods:
            offline = f"{method.offline}-offline-seed{seed}"
            after = model if shared and method.alone else None
            chains[offline] = _offline_chain(offline, after, method, amounts, variant, speed)
            if amounts.online:
                online = f"{method.name}-online-seed{seed}"
                chains[online] = _online_chain(online, offline, method, amounts, speed)
    return list(chains.values())


def _offline_chain(
    name: str, after: str | None, method: Method, amounts: Budget, variant: str, speed: Speed
) -> Job:
    looks, update = _looks_before(variant), speed.update[method.offline]
    parts = {
        "starting": (1 + looks + method.diagnosed) * speed.start + speed.first[method.offline],
        "evaluating": looks * amounts.played * speed.episode
        + amounts.curves * _curve_seconds(speed),
        "reporting": method.diagnosed * (DIAGNOSIS_SECONDS + EPISODES * speed.episode),
        "offline training": amounts.updates * (update - (speed.model if after else 0.0)),
    }
    return Job(name, after, parts)


def _online_chain(name: str, after: str, method: Method, amounts: Budget, speed: Speed) -> Job:
    looks = _looks_after(method)
    parts = {
        "starting": (1 + looks) * speed.start + speed.first[method.offline],
        "evaluating": looks * amounts.played * speed.episode,
        "online training": amounts.steps * _step_seconds(method, speed),
    }
    return Job(name, after, parts)


def side_by_side(chains: Sequence[Job], jobs: int) -> float:
    """Seconds until the last chain ends, if a free job takes the first one that may begin."""
    now, over, waiting = 0.0, {None}, list(chains)
    running: list[tuple[float, str]] = []
    while waiting or running:
        ready = next((chain for chain in waiting if chain.after in over), None)
        if ready is not None and len(running) < jobs:
            waiting.remove(ready)
            heapq.heappush(running, (now + ready.seconds, ready.name))
        else:
            now, name = heapq.heappop(running)
            over.add(name)
    return now


def describe(plan: Plan, methods: Sequence[Method], seeds: int) -> str:
    """The plan for people, in lines."""
    record = f"{plan.episodes} episodes to record" if plan.episodes else "given"
    online = f"{plan.online_steps} agent steps each, in {place(plan.variant)}"
    looks = seeds * evaluations(methods, plan.variant, plan.online_steps > 0)
    model = f", the first {plan.model_updates} shared" if plan.model_updates else ""
    lines = [
        f"plan: {', '.join(method.name for method in methods)} in {plan.task}, "
        f"seeds 0 to {seeds - 1}, size {plan.size}, recipe {plan.recipe}",
        *(f"  {key} = {value}" for key, value in plan.settings.items()),
        f"  dataset        {plan.dataset}, {record}",
        f"  offline        {plan.updates} updates each{model}",
        f"  online         {online if plan.online_steps else 'none'}",
        f"  evaluations    {looks}, {plan.eval_episodes} episodes each",
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
        lines.append("  this is longer than --budget-minutes: less of it would be of no use, or")
        lines.append("  the command asks for it; stop here for fewer methods, seeds or episodes")
    return "\n".join(lines)


def place(variant: str) -> str:
    """A variant in a sentence."""
    return "the task as it is" if variant == NONE.name else f"variant {variant}"


def save_plan(plan: Plan, path: Path) -> None:
    """Write it where `load_plan` finds it."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def load_plan(path: Path, request: Request) -> Plan | None:
    """The plan of an earlier start, or nothing; one that was made for other wishes is refused."""
    if not path.exists():
        return None
    try:
        plan = Plan(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no plan of this benchmark: {error}") from error
    for name in ("task", "variant", "size", "recipe", "dataset", "settings"):
        _check_same(path, name, getattr(plan, name), getattr(request, name))
    for name in ("episodes", "eval_episodes", "updates", "online_steps"):
        wish = getattr(request, name)
        if wish is not None:
            _check_same(path, name, getattr(plan, name), wish)
    return plan


def _check_same(path: Path, name: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise UserError(
            f"{path.parent} holds a benchmark with {name} {found!r}, this command says "
            f"{wanted!r}; name another --out, or give the same words to continue it"
        )
