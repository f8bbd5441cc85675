"""What a comparison of methods consists of, and how much of it fits into the time there is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config import load_presets, resolve, to_dict
from dreamer.errors import UserError, did_you_mean
from dreamer.files import atomic_path
from fosp_ext.envs.variants import NONE
from fosp_ext.report.runs import ONLINE_ONLY
from fosp_ext.run_folder import flat
from fosp_ext.settings import Config

PRESETS = Path(__file__).parents[1] / "configs.yaml"
OFFLINE = {"fosp": "fosp_offline"}  # other methods have an offline preset of their own name
RECORDED, LEAST_RECORDED = 200, 10  # episodes of a new dataset
PLAYED, LEAST_PLAYED = 20, 5  # episodes of an evaluation
RECORDING_SHARE, PLAYING_SHARE = 0.15, 0.25  # of the time; beyond that there are fewer episodes
ONLINE_SHARE = 0.3  # of the time that is left for learning
CURVE_POINTS, CURVE_EPISODES, CURVE_SHARE = 4, 5, 0.1  # evaluations on the way, if cheap enough
LEAST_UPDATES = 20
REPORT_SECONDS = 6.0  # for each run: held-out episodes are read and judged


@dataclass(frozen=True)
class Method:
    """A method as it is compared, such as `fosp` or `fosp-no_policy_set`."""

    name: str
    offline: str  # the name whose offline run it goes on from
    expanded: bool  # online, a policy set acts
    envs: int  # environments of its online run
    ratio: float  # updates per agent step, online


@dataclass(frozen=True)
class Speed:
    """Seconds that things take on this machine."""

    start: float  # of a command, until it begins with its work
    first: Mapping[str, float]  # first update of each offline run, by name
    update: Mapping[str, float]  # each further update
    episode: float  # played with a policy
    length: int  # agent steps of an episode
    cores: int  # that record side by side


@dataclass(frozen=True)
class Wishes:
    """What the command line says; None leaves it to the plan."""

    task: str
    variant: str
    size: str
    dataset: str  # file to record, or to take
    recorded: bool  # must it be recorded?
    budget_minutes: float
    episodes: int | None
    eval_episodes: int | None
    updates: int | None
    online_steps: int | None


@dataclass(frozen=True)
class Plan:
    """Everything that decides the runs, apart from methods and seeds. It does not change later."""

    task: str
    variant: str
    size: str
    dataset: str
    episodes: int  # to record; 0: the file was there
    eval_episodes: int
    updates: int  # of every offline run
    eval_every: int  # updates between evaluations of an offline run on the way; 0: none
    online_steps: int  # agent steps of every online run
    budget_minutes: float
    estimate: dict[str, float]  # part of the work -> seconds, for the methods and seeds at first
    speed: dict[str, Any]  # that the estimate goes by, as `Speed`


def preset_names(name: str, phase: str) -> list[str]:
    """The presets of a method in a phase, "offline" or "online", without its size."""
    base, *parts = name.split("-")
    return [OFFLINE.get(base, base) if phase == "offline" else f"{base}_online", *parts]


def read_methods(text: str, size: str) -> list[Method]:
    """Methods of a comma-separated list; what is unknown is a `UserError`."""
    presets = load_presets(PRESETS)
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    return [_method(name, size, presets) for name in names]


def _method(name: str, size: str, presets: Mapping[str, dict]) -> Method:
    base, *parts = name.split("-")
    bases = [word.removesuffix("_online") for word in presets if word.endswith("_online")]
    ablations = [word for word in presets if word.startswith("no_")]
    if base not in bases:
        raise UserError(f"no method '{base}'{did_you_mean(base, bases)} ({', '.join(bases)})")
    for part in parts:
        if part not in ablations:
            hint = did_you_mean(part, ablations)
            raise UserError(f"{name}: no part '{part}'{hint} ({', '.join(ablations)})")
        if not base.startswith("fosp"):
            raise UserError(f"{name}: only fosp has parts that can be left out")
    online = _config([*preset_names(name, "online"), size], presets)
    return Method(
        name=name,
        offline=_offline_name(base, parts, size, presets),
        expanded=online.method == "fosp" and online.policy_set.enabled,
        envs=online.online.envs,
        ratio=online.online.ratio,
    )


def _offline_name(base: str, parts: list[str], size: str, presets: Mapping[str, dict]) -> str:
    """The method without the parts that the offline phase does not read."""
    plain = _offline_settings(base, size, presets)
    matter = [p for p in parts if _offline_settings(f"{base}-{p}", size, presets) != plain]
    return "-".join([base, *matter])


def _offline_settings(name: str, size: str, presets: Mapping[str, dict]) -> dict[str, Any]:
    settings = flat(to_dict(_config([*preset_names(name, "offline"), size], presets)))
    return {key: x for key, x in settings.items() if key.partition(".")[0] not in ONLINE_ONLY}


def _config(names: list[str], presets: Mapping[str, dict]) -> Config:
    return resolve(Config, dict(presets), names, {})


def evaluations(methods: Sequence[Method], variant: str) -> int:
    """How many evaluations one seed of all methods has."""
    before = len({method.offline for method in methods}) * (1 if variant == NONE.name else 2)
    return before + sum(3 if method.expanded else 1 for method in methods)


def make_plan(wishes: Wishes, methods: Sequence[Method], seeds: int, speed: Speed) -> Plan:
    """Spend the time: what is wished for first, learning gets the rest.

    There is a least of everything, so the estimate of a plan may be longer than the budget.
    """
    budget = 60 * wishes.budget_minutes
    offline = {method.offline for method in methods}
    looks = seeds * evaluations(methods, wishes.variant)
    played = wishes.eval_episodes or _within(
        LEAST_PLAYED, PLAYED, PLAYING_SHARE * budget / (looks * speed.episode)
    )
    recorded = 0
    if wishes.recorded:
        affordable = RECORDING_SHARE * budget * speed.cores / speed.episode
        recorded = wishes.episodes or _within(LEAST_RECORDED, RECORDED, affordable)
    trainings = seeds * (len(offline) + len(methods))
    firsts = [speed.first[m.offline] for m in methods] + [speed.first[name] for name in offline]
    estimate = {
        "recording": (speed.start if recorded else 0) + recorded * speed.episode / speed.cores,
        "starting": (trainings + looks + 1) * speed.start + seeds * sum(firsts),
        "evaluating": looks * played * speed.episode,
        "reporting": trainings * REPORT_SECONDS,
    }
    rest = budget - sum(estimate.values())
    on_the_way = seeds * len(offline) * CURVE_POINTS * CURVE_EPISODES * speed.episode
    curves = on_the_way <= CURVE_SHARE * rest
    if curves:
        estimate["evaluating"] += on_the_way
        rest -= on_the_way
    updates, steps = _learning(wishes, methods, seeds, speed, rest)
    estimate["offline training"] = updates * seeds * sum(speed.update[name] for name in offline)
    estimate["online training"] = steps * _step_seconds(methods, seeds, speed)
    return Plan(
        task=wishes.task,
        variant=wishes.variant,
        size=wishes.size,
        dataset=wishes.dataset,
        episodes=recorded,
        eval_episodes=played,
        updates=updates,
        eval_every=max(1, updates // CURVE_POINTS) if curves else 0,
        online_steps=steps,
        budget_minutes=wishes.budget_minutes,
        estimate={part: round(seconds, 1) for part, seconds in estimate.items()},
        speed=dataclasses.asdict(speed),
    )


def _learning(
    wishes: Wishes, methods: Sequence[Method], seeds: int, speed: Speed, rest: float
) -> tuple[int, int]:
    """(updates, agent steps) for the seconds that are left, or as wished for; never none at all."""
    update = seeds * sum(speed.update[name] for name in {method.offline for method in methods})
    step = _step_seconds(methods, seeds, speed)
    whole = speed.length * max(method.envs for method in methods)  # an episode in each environment
    updates, steps = wishes.updates, wishes.online_steps
    if updates is None:
        online = max(ONLINE_SHARE * rest, whole * step) if steps is None else steps * step
        updates = max(LEAST_UPDATES, _round_down((rest - online) / update))
    if steps is None:
        steps = whole * max(1, int((rest - updates * update) / step / whole))
    return updates, steps


def _step_seconds(methods: Sequence[Method], seeds: int, speed: Speed) -> float:
    """Seconds that one agent step more takes in all online runs together, updates included."""
    act = speed.episode / speed.length
    return seeds * sum(act + method.ratio * speed.update[method.offline] for method in methods)


def _within(least: int, most: int, wanted: float) -> int:
    return int(min(max(wanted, least), most))


def _round_down(number: float) -> int:
    """Two digits that count: 1234.5 -> 1200; as it is below 100."""
    unit = 10 ** max(0, len(str(int(max(number, 0)))) - 2)
    return int(max(number, 0) / unit) * unit


def describe(plan: Plan, methods: Sequence[Method], seeds: int) -> str:
    """The plan for people, in lines."""
    record = f"{plan.episodes} episodes to record" if plan.episodes else "given"
    lines = [
        f"plan: {', '.join(method.name for method in methods)} in {plan.task}, "
        f"seeds 0 to {seeds - 1}, size {plan.size}",
        f"  dataset        {plan.dataset}, {record}",
        f"  offline        {plan.updates} updates each",
        f"  online         {plan.online_steps} agent steps each, in variant {plan.variant}",
        f"  evaluations    {seeds * evaluations(methods, plan.variant)}, "
        f"{plan.eval_episodes} episodes each",
        "  estimate, if nothing else keeps this machine busy, in minutes:",
    ]
    for part, seconds in plan.estimate.items():
        lines.append(f"    {part:<17} {seconds / 60:6.1f}")
    total = sum(plan.estimate.values()) / 60
    lines.append(f"    {'together':<17} {total:6.1f} of {plan.budget_minutes:g}")
    if total > plan.budget_minutes:
        lines.append("  this is longer than --budget-minutes: less of it would be of no use, or")
        lines.append("  the command asks for it; stop here for fewer methods, seeds or episodes")
    return "\n".join(lines)


def save_plan(plan: Plan, path: Path) -> None:
    """Write it where `load_plan` finds it."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def load_plan(path: Path, wishes: Wishes) -> Plan | None:
    """The plan of an earlier start, or nothing; one that was made for other wishes is refused."""
    if not path.exists():
        return None
    try:
        plan = Plan(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no plan of this benchmark: {error}") from error
    for name in ("task", "variant", "size", "dataset"):
        _check_same(path, name, getattr(plan, name), getattr(wishes, name))
    for name in ("episodes", "eval_episodes", "updates", "online_steps"):
        wish = getattr(wishes, name)
        if wish is not None:
            _check_same(path, name, getattr(plan, name), wish)
    return plan


def _check_same(path: Path, name: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise UserError(
            f"{path.parent} holds a benchmark with {name} {found!r}, this command says "
            f"{wanted!r}; name another --out, or give the same words to continue it"
        )
