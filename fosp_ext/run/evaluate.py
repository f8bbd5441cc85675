"""Evaluation of a trained agent, for eval.py: episodes into a folder of numbers and videos."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from dreamer.agent import Agent
from dreamer.config import load_presets
from dreamer.errors import UserError
from dreamer.files import atomic_path, write_text
from dreamer.outputs import new_folder
from dreamer.training.evaluation import OUTCOMES, EpisodeResult, summarize
from dreamer.training.run_folder import provenance, run_of
from dreamer.utils import choose_device, use_threads
from fosp_ext.config import FOSPOnline, resolve_config
from fosp_ext.envs import check_task, check_variant, make_run_env
from fosp_ext.envs.variants import NONE
from fosp_ext.policy_set import PolicySet, choosing_policy, single_policy
from fosp_ext.run.play import EPISODES, Player, open_envs, play_episodes, usual_workers
from fosp_ext.run.presets import PRESETS
from fosp_ext.run.run_folder import LoadedRun, allow_import, load_run
from fosp_ext.settings import PolicySetSettings

SUMMARY = "summary.json"
OWN = (EPISODES, "videos/ep_*", "*.part")  # what an evaluation writes before its summary is there


@dataclass(frozen=True)
class RolloutSettings:
    """Which episodes to play and where to write them."""

    source: Path  # run folder or checkpoint file
    episodes: int
    seed: int
    videos: int
    task: str | None
    variant: str | None  # None: the one that the run names
    device: str
    out: Path | None
    policies: tuple[str, ...] = ()  # set, online, offline, proposals; none: what acts in the run
    choice: Mapping[str, str] = field(default_factory=dict)  # policy_set.KEY -> value
    threads: int = 0  # of torch; 0: one
    workers: int = 0  # environments, each in a process; 0: as many as suit the cores


class Cast(NamedTuple):
    """One policy that is evaluated: its agent, its name, and a choice that is not the run's own."""

    agent: Agent
    policy: str | None
    choice: PolicySetSettings | None


def play(settings: RolloutSettings) -> list[Path]:
    """Play the episodes; returns a folder with summary.json, episodes.jsonl and videos per policy.

    Several policies play at the same time.
    """
    device = choose_device(settings.device)
    use_threads(settings.threads or 1)  # a second one gains nothing in a few rows
    run = load_run(settings.source, device)
    check_trained_for(run, settings)
    allow_import(run.info.task, settings.source, settings.task)
    names = settings.policies or (None,)
    casts = [Cast(*choose_policy(run, name, settings.choice)) for name in names]
    variant = check_variant(settings.variant or run.config.env.variant, run.info.task).name
    total = len(casts) * settings.episodes
    workers = min(settings.workers, total) or usual_workers(run.info.task, total)
    make = partial(make_run_env, run.info, variant)
    places = [place_of(settings, run.updates, variant, cast.policy) for cast in casts]
    seeds = range(settings.seed, settings.seed + settings.episodes)
    violation = run.config.env.violation
    with open_envs(make, workers) as envs, ExitStack() as stack:  # before anything is written
        folders = [
            stack.enter_context(new_folder(place, OWN, SUMMARY, kept=EPISODES)) for place in places
        ]
        agents = [cast.agent for cast in casts]
        players = [Player(*each) for each in zip(agents, folders, strict=True)]
        results = play_episodes(players, envs, seeds, settings.videos, violation, device)
        summaries = [
            summary_of(run, settings, variant, cast, episodes, workers)
            for cast, episodes in zip(casts, results, strict=True)
        ]
        for folder, summary in zip(folders, summaries, strict=True):
            with atomic_path(folder / SUMMARY) as part:
                write_text(part, json.dumps(summary, indent=2) + "\n")
    for folder, summary in zip(folders, summaries, strict=True):
        print_summary(summary, folder, sys.stdout)
    return folders


def summary_of(
    run: LoadedRun,
    settings: RolloutSettings,
    variant: str,
    cast: Cast,
    episodes: Sequence[EpisodeResult],
    workers: int,
) -> dict:
    """What summary.json says of the episodes of one policy."""
    return {
        **summarize(episodes),
        "task": run.info.task,
        "variant": variant,
        **({} if cast.policy is None else {"policy": cast.policy}),
        **({} if cast.choice is None else {"policy_set": asdict(cast.choice)}),
        "updates": run.updates,
        "checkpoint": str(settings.source),
        "workers": workers,
        **provenance(),
    }


def place_of(settings: RolloutSettings, updates: int, variant: str, policy: str | None) -> Path:
    """Where the episodes of a policy go; below `out` if that is given and holds several."""
    if settings.out is None:
        return default_folder(settings.source, updates, variant, policy)
    return settings.out / (policy or "") if len(settings.policies) > 1 else settings.out


def check_trained_for(run: LoadedRun, settings: RolloutSettings) -> None:
    """Refuse a checkpoint of another task than the one asked for."""
    if settings.task and check_task(settings.task) != run.info.task:
        asked = check_task(settings.task)
        raise UserError(f"{settings.source} was trained for {run.info.task}, not for {asked}")


def choose_policy(
    run: LoadedRun, policy: str | None, words: Mapping[str, str]
) -> tuple[Agent, str | None, PolicySetSettings | None]:
    """The agent with the chosen policy, its name, and the settings of a choice that is not the
    run's own.

    The name is set, online, offline or proposals; None without a set. `words` change settings of
    the choice. What the agent does not have, or does not need, is a `UserError`.
    """
    agent = run.agent
    if policy == "proposals":
        choice = choice_settings(run, words)
        check_rollouts(run, choice)
        return choosing_policy(agent, choice), policy, choice
    if isinstance(agent.policy, PolicySet) and policy in (None, "set"):
        if not words:
            return agent, "set", None
        choice = choice_settings(run, words)
        check_rollouts(run, choice)
        agent.policy.choice.settings = choice
        return agent, "set", choice
    if words:
        raise UserError("--policy_set.KEY is for a policy set, or for --policy proposals")
    if policy is None:
        return agent, None, None
    return single_policy(agent, policy), policy, None


def choice_settings(run: LoadedRun, words: Mapping[str, str]) -> PolicySetSettings:
    """Settings of the choice: the run's, or where it has none those of its recipe, then `words`."""
    own: dict[str, str] = {}
    config = run.config
    if isinstance(config, FOSPOnline):
        values = asdict(config.policy_set).items()
        own = {f"policy_set.{key}": str(value).lower() for key, value in values}
    names = ["fosp_online", config.size, config.recipe]
    resolved = resolve_config(load_presets(PRESETS), names, {**own, **words})
    assert isinstance(resolved, FOSPOnline)
    return resolved.policy_set


def check_rollouts(run: LoadedRun, choice: PolicySetSettings) -> None:
    """Rollouts need rewards and costs, which an exported agent may lack."""
    if choice.score == "rollout" and not hasattr(run.agent.world_model, "reward_head"):
        raise UserError("an exported agent predicts no reward; evaluate rollouts on its run")


def default_folder(
    source: Path, updates: int, variant: str = NONE.name, policy: str | None = None
) -> Path:
    """`RUN/eval/<updates>[-<variant>][-<policy>]`, also for a file in RUN/checkpoints.

    For a file elsewhere, which may lie among the sources, RUN is logdir/<name of the file>. The
    last part tells only what is special: an unseen variant, a policy of a set alone.
    """
    run = run_of(source) or Path("logdir") / source.stem
    special = [word for word in (variant, policy) if word not in (NONE.name, "set", None)]
    return run / "eval" / "-".join([f"{updates:09d}", *special])


def print_summary(summary: dict, folder: Path, stream: TextIO) -> None:
    """Print the result in a few lines."""
    variant = "" if summary["variant"] == NONE.name else f" ({summary['variant']})"
    policy = f", policy: {summary['policy']}" if "policy" in summary else ""
    stream.write(
        f"{summary['task']}{variant}, {summary['updates']} updates, "
        f"{summary['episodes']} episodes{policy}\n"
    )
    for name in ("return", "cost", "length", "violation_rate"):
        row = summary[name]
        low, high = row["ci95"]
        stream.write(
            f"  {name:<15} {row['mean']:8.3f} +- {row['std']:.3f}   95 % interval of the mean "
            f"[{low:.3f}, {high:.3f}]\n"
        )
    stream.write(f"  {'safe_episodes':<15} {summary['safe_episodes']:8.3f}\n")
    for name in (name for name in OUTCOMES if name in summary):
        low, high = summary[name]["ci95"]
        stream.write(
            f"  {name:<18} {summary[name]['mean']:5.3f}   95 % interval [{low:.3f}, {high:.3f}]\n"
        )
    for name in (SUMMARY, EPISODES, "videos"):
        if (folder / name).exists():
            stream.write(f"{name}: {folder / name}\n")
