"""The steps of a comparison: which commands they are, whether they are done, how they are run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from benchmarks.learning_plan import Method, Plan, preset_names
from dreamer.checkpoint import Checkpoint
from fosp_ext.envs.variants import NONE

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 1000  # of the episodes of every evaluation
CODES = "stages.jsonl"  # what was run, how long it took, how it ended


@dataclass(frozen=True)
class Stage:
    """One command of the comparison."""

    name: str  # also that of its log file
    words: tuple[str, ...]  # for python
    finished: Callable[[], bool]

    @property
    def command(self) -> str:
        """As one would type it."""
        return f"python {shlex.join(self.words)}"


@dataclass(frozen=True)
class Look:
    """An evaluation of a run: where, and which policy of a set acts (None: there is one policy)."""

    variant: str
    policy: str | None


def offline_folder(out: Path, name: str, seed: int) -> Path:
    """The offline run that methods of this offline name share."""
    return out / name / "offline" / f"seed{seed}"


def online_folder(out: Path, name: str, seed: int) -> Path:
    """The online run of a method."""
    return out / name / "online" / f"seed{seed}"


def looks_before(plan: Plan) -> list[Look]:
    """How an offline run is evaluated: in the variant, and in the task as it is."""
    return [Look(variant, None) for variant in dict.fromkeys((NONE.name, plan.variant))]


def looks_after(method: Method, plan: Plan) -> list[Look]:
    """How an online run is evaluated: what acts, then the policies of a set alone."""
    policies = ("set", "online", "offline") if method.expanded else (None,)
    return [Look(plan.variant, policy) for policy in policies]


def all_stages(plan: Plan, methods: Sequence[Method], seeds: int, out: Path) -> list[Stage]:
    """Every command in order; a seed is complete before the next one begins."""
    stages = [_record(plan)] if plan.episodes else []
    for seed in range(seeds):
        for method in methods:
            stages += [*_offline(plan, method, seed, out), *_online(plan, method, seed, out)]
    distinct = {stage.name: stage for stage in stages}  # methods may share an offline run
    return [*distinct.values(), _report(methods, seeds, out)]


def run_folders(methods: Sequence[Method], seeds: int, out: Path) -> list[Path]:
    """All run folders, those of offline runs first."""
    offline = [offline_folder(out, m.offline, seed) for m in methods for seed in range(seeds)]
    online = [online_folder(out, m.name, seed) for m in methods for seed in range(seeds)]
    return list(dict.fromkeys([*offline, *online]))


def short(path: Path) -> str:
    """A path as a command in the repository's folder names it."""
    whole = path.resolve()
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else str(whole)


def _record(plan: Plan) -> Stage:
    words = (
        *("train.py", "--configs", "collect", plan.size, "--task", plan.task),
        *("--dataset.path", plan.dataset, "--dataset.episodes", str(plan.episodes)),
    )
    return Stage("dataset", words, (ROOT / plan.dataset).exists)


def _offline(plan: Plan, method: Method, seed: int, out: Path) -> Iterator[Stage]:
    name, folder = method.offline, offline_folder(out, method.offline, seed)
    words = (
        *("train.py", "--configs", *preset_names(name, "offline"), plan.size),
        *("--task", plan.task, "--seed", str(seed), "--dataset.path", plan.dataset),
        *("--logdir", short(folder), "--run.updates", str(plan.updates)),
        *("--run.eval_every", str(plan.eval_every), "--run.eval_episodes", "5"),
        *("--run.report_every", str(max(1, plan.updates // 4))),
    )
    title = f"{name}-offline-seed{seed}"
    yield Stage(title, words, lambda: newest_step(folder) >= plan.updates)
    yield from _evaluations(plan, title, folder, looks_before(plan))


def _online(plan: Plan, method: Method, seed: int, out: Path) -> Iterator[Stage]:
    folder, source = (
        online_folder(out, method.name, seed),
        offline_folder(out, method.offline, seed),
    )
    words = (
        *("train.py", "--configs", *preset_names(method.name, "online"), plan.size),
        *("--from", short(source), "--task", plan.task, "--env.variant", plan.variant),
        *("--seed", str(seed), "--logdir", short(folder)),
        *("--online.steps", str(plan.online_steps), "--run.eval_every", "0"),
        *("--run.report_every", "0"),
    )
    title = f"{method.name}-online-seed{seed}"
    yield Stage(title, words, lambda: agent_steps(folder) >= plan.online_steps)
    yield from _evaluations(plan, title, folder, looks_after(method, plan))


def _evaluations(plan: Plan, title: str, run: Path, looks: Sequence[Look]) -> Iterator[Stage]:
    for look in looks:
        alone = look.policy in ("online", "offline")
        words = (
            *("eval.py", "--logdir", short(run), "--variant", look.variant),
            *("--episodes", str(plan.eval_episodes), "--seed", str(FIRST_SEED)),
            *("--videos", "0" if alone else "1"),
            *(() if look.policy is None else ("--policy", look.policy)),
        )
        name = "-".join(["eval", title, *filter(None, look_words(look))])
        yield Stage(name, words, partial(_is_played, run, look, plan.eval_episodes))


def look_words(look: Look) -> tuple[str, str]:
    """What is special about an evaluation: its variant, its policy; empty where nothing is."""
    policy = "" if look.policy in (None, "set") else look.policy
    return ("" if look.variant == NONE.name else look.variant), policy


def _report(methods: Sequence[Method], seeds: int, out: Path) -> Stage:
    folders = run_folders(methods, seeds, out)
    runs = [short(folder) for folder in folders]
    words = ("-m", "fosp_ext.report", *runs, "--out", short(out / "report"), "--csv")

    def is_newest() -> bool:
        pages = [page.stat().st_mtime for page in out.glob("report*/index.html")]
        numbers = [
            file.stat().st_mtime for run in folders for file in run.glob("eval/*/summary.json")
        ]
        return bool(pages) and max(pages) > max(numbers, default=0)

    return Stage("report", words, is_newest)


def newest_step(run: Path) -> int:
    """Updates that the newest checkpoint of a run has behind it; 0 without one."""
    path = Checkpoint(run / "checkpoints", 1).latest()
    return 0 if path is None else int(path.stem.removeprefix("step_"))


def agent_steps(run: Path) -> int:
    """Agent steps that the newest checkpoint of an online run has behind it; 0 without one."""
    path = Checkpoint(run / "checkpoints", 1).latest()
    return 0 if path is None else Checkpoint.load(path)["online"]["driver"]["agent_steps"]


def find_evaluation(run: Path, look: Look, episodes: int) -> Path | None:
    """The evaluation of the run's newest checkpoint on the fixed seeds; None if not yet played."""
    wanted = {
        "variant": look.variant,
        "policy": look.policy,
        "updates": newest_step(run),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + episodes)),
    }
    for file in sorted(run.glob("eval/*/summary.json")):
        summary = json.loads(file.read_text())
        if all(summary.get(key) == value for key, value in wanted.items()):
            return file.parent
    return None


def _is_played(run: Path, look: Look, episodes: int) -> bool:
    return find_evaluation(run, look, episodes) is not None


def run_stages(
    stages: Sequence[Stage], out: Path, budget_minutes: float, keep_open: tuple[int, ...] = ()
) -> int:
    """Run what is not finished, one after the other; returns the first exit code that is not 0.

    `keep_open` are file descriptors that the commands inherit.
    """
    for number, stage in enumerate(stages, 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if stage.finished():
            print(f"{place}: done before", flush=True)
            continue
        print(f"\n{place}\n$ {stage.command}", flush=True)
        log = out / "logs" / f"{stage.name}.log"
        begin = time.monotonic()
        code = execute(stage, log, keep_open)
        seconds = time.monotonic() - begin
        note(out / CODES, stage, seconds, code)
        if code > 128:  # by a signal
            print("stopped; the same command continues", file=sys.stderr)
            return code
        if code:
            line = f"error: {stage.name} ended with exit code {code}; what it said: {log}"
            print(line, file=sys.stderr)
            return code
        spent = sum(row["seconds"] for row in past_stages(out)) / 60
        print(f"{place}: {seconds:.0f} s; {spent:.1f} of {budget_minutes:g} minutes", flush=True)
    return 0


def execute(stage: Stage, log: Path, keep_open: tuple[int, ...] = ()) -> int:
    """Run its command in the repository's folder, show its output and append it to the log.

    Ctrl-C and SIGTERM are passed on to it once, so that it can end in its own way. Returns its
    exit code, or 128 + the number of the signal that ended it or that came meanwhile.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as file,
        subprocess.Popen(
            [sys.executable, *stage.words],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            start_new_session=True,  # the terminal's Ctrl-C comes from here only, not twice
        ) as process,
        _passed_on(process) as received,
    ):
        file.write(f"$ {stage.command}\n".encode())
        for text in iter(lambda: process.stdout.read1(), b""):
            file.write(text)
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        code = process.wait()
    if received:
        return 128 + received[0]
    return 128 - code if code < 0 else code


@contextmanager
def _passed_on(process: subprocess.Popen) -> Iterator[list[int]]:
    """Signals that ask to stop go to the process; yields a list in which they are noted."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def note(path: Path, stage: Stage, seconds: float, code: int) -> None:
    """Append how a stage ended."""
    row = {
        "stage": stage.name,
        "command": stage.command,
        "seconds": round(seconds, 1),
        "exit_code": code,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def past_stages(out: Path) -> list[dict]:
    """What was run so far in this folder, stopped and failed stages included."""
    path = out / CODES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
