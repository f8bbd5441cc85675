"""The jobs of a comparison: their commands, their order, and whether they are done."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dreamer.files import read_json
from dreamer.training.checkpoint import Checkpoint
from experiments.comparison.methods import Method, preset_names, settings_for
from experiments.comparison.plan import Plan
from fosp_ext.envs.variants import NONE

ROOT = Path(__file__).resolve().parents[2]
FIRST_SEED = 1000  # of the episodes of every evaluation


@dataclass(frozen=True)
class Job:
    """One command of the comparison."""

    name: str  # also that of its log file
    words: tuple[str, ...]  # for python
    finished: Callable[[], bool]
    needs: tuple[str, ...] = ()  # names of jobs that must be done before
    diagnoses: bool = False  # exit code 1 only says that a bound is missed

    @property
    def command(self) -> str:
        """As one would type it."""
        return f"python {shlex.join(self.words)}"


@dataclass(frozen=True)
class PlannedEvaluation:
    """An evaluation of a run: where, and which policy of a set acts (None: there is one policy)."""

    variant: str
    policy: str | None


def offline_folder(out: Path, name: str, seed: int) -> Path:
    """The offline run that methods of this offline name share."""
    return out / name / "offline" / f"seed{seed}"


def model_folder(out: Path, seed: int) -> Path:
    """The run that pretrains the world model that methods share."""
    return out / "model" / f"seed{seed}"


def online_folder(out: Path, name: str, seed: int) -> Path:
    """The online run of a method."""
    return out / name / "online" / f"seed{seed}"


def offline_evaluations(plan: Plan) -> list[PlannedEvaluation]:
    """Evaluations of an offline run: in the variant, and in the task as it is."""
    return [
        PlannedEvaluation(variant, None) for variant in dict.fromkeys((NONE.name, plan.variant))
    ]


def online_evaluations(method: Method, plan: Plan) -> list[PlannedEvaluation]:
    """Evaluations of an online run: what acts, then the policies of a set alone."""
    policies = ("set", "online", "offline") if method.expanded else (None,)
    return [PlannedEvaluation(plan.variant, policy) for policy in policies]


def all_jobs(
    plan: Plan, methods: Sequence[Method], seeds: int, out: Path, threads: int = 0
) -> list[Job]:
    """Every command in order; a seed is complete before the next one begins.

    `threads` are those of each training and evaluation, 0 takes every core.
    """
    limit = ("--threads", str(threads)) if threads else ()
    maker = _Maker(plan, out, limit)
    jobs = [maker.record()] if plan.episodes else []
    for seed in range(seeds):
        jobs += [maker.model(methods, seed)] if plan.model_updates else []
        for method in methods:
            jobs += maker.offline(method, seed)
            jobs += maker.online(method, seed) if plan.online_steps else []
    jobs += [maker.diagnosis(m, seed) for m in methods for seed in range(seeds) if m.diagnosed]
    distinct = {job.name: job for job in jobs}  # methods may share an offline run
    folders = list(run_folders(plan, methods, seeds, out))
    return [*distinct.values(), _report(folders, tuple(distinct), out)]


@dataclass(frozen=True)
class RunKey:
    """Key of a run in a comparison."""

    method: str  # of an offline run its offline name
    phase: str  # "offline" or "online"
    seed: int
    evaluations: tuple[PlannedEvaluation, ...]  # how it is evaluated
    begins: int = 0  # updates of the pretrained world model that it took over


def run_title(method: str, phase: str, seed: int) -> str:
    """The name of a training job."""
    return f"{method}-{phase}-seed{seed}"


def run_folders(plan: Plan, methods: Sequence[Method], seeds: int, out: Path) -> dict[Path, RunKey]:
    """All run folders, those of offline runs first."""
    every = [(method, seed) for method in methods for seed in range(seeds)]
    before = tuple(offline_evaluations(plan))
    folders = {
        offline_folder(out, m.offline, seed): RunKey(
            m.offline, "offline", seed, before, plan.model_updates if m.alone else 0
        )
        for m, seed in every
    }
    if plan.online_steps:
        folders |= {
            online_folder(out, m.name, seed): RunKey(
                m.name, "online", seed, tuple(online_evaluations(m, plan))
            )
            for m, seed in every
        }
    return folders


def diagnosis_file(out: Path, name: str, seed: int) -> Path:
    """Results of `experiments.diagnose` for an offline run."""
    return out / "diagnosis" / f"{run_title(name, 'offline', seed)}.json"


def short(path: Path) -> str:
    """A path as a command in the repository's folder names it."""
    whole = path.resolve()
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else str(whole)


@dataclass(frozen=True)
class _Maker:
    """Builds the jobs of one comparison."""

    plan: Plan
    out: Path
    limit: tuple[str, ...]  # words for the number of threads, or none

    def record(self) -> Job:
        plan = self.plan
        words = (
            *("train.py", "--configs", "collect", *plan.scale, "--task", plan.task),
            *("--dataset.path", plan.dataset, "--dataset.episodes", str(plan.episodes)),
            *self._settings(["collect"]),
        )
        return Job("dataset", words, (ROOT / plan.dataset).exists)

    def model(self, methods: Sequence[Method], seed: int) -> Job:
        """World-model pretraining, once for all `methods` that share it."""
        plan, folder = self.plan, model_folder(self.out, seed)
        first = next(method.offline for method in methods if method.alone)
        words = (
            *self._training(first, seed, folder, plan.model_updates),
            *("--run.pretrain", "1", "--run.eval_every", "0", "--run.heldout_every", "0"),
            *(*self.limit, *self._settings(preset_names(first, "offline"), "run.pretrain")),
        )
        done = partial(_has_updates, folder, plan.model_updates)
        return Job(f"model-seed{seed}", words, done, self._dataset())

    def offline(self, method: Method, seed: int) -> Iterator[Job]:
        """An offline run, from the shared world model where there is one, and its evaluations."""
        plan, name = self.plan, method.offline
        folder, model = offline_folder(self.out, name, seed), ()
        title, needs = run_title(name, "offline", seed), self._dataset()
        if plan.model_updates and method.alone:
            model = ("--from", short(model_folder(self.out, seed)))
            needs = (f"model-seed{seed}",)
        words = (
            *(*self._training(name, seed, folder, plan.updates), *model),
            *("--run.eval_every", str(plan.eval_every), "--run.eval_episodes", "5"),
            *("--run.heldout_every", str(max(1, plan.updates // 4))),
            *(*self.limit, *self._settings(preset_names(name, "offline"))),
        )
        yield Job(title, words, partial(_has_updates, folder, plan.updates), needs)
        yield from self._evaluations(title, folder, offline_evaluations(plan))

    def online(self, method: Method, seed: int) -> Iterator[Job]:
        """The online run behind an offline one, and its evaluations."""
        plan, folder = self.plan, online_folder(self.out, method.name, seed)
        source = offline_folder(self.out, method.offline, seed)
        names = preset_names(method.name, "online")
        words = (
            *("train.py", "--configs", *names, *plan.scale),
            *("--from", short(source), "--task", plan.task, "--env.variant", plan.variant),
            *("--seed", str(seed), "--logdir", short(folder)),
            *("--online.steps", str(plan.online_steps), "--run.eval_every", "0"),
            *("--run.heldout_every", "0", *self.limit, *self._settings(names)),
        )
        title = run_title(method.name, "online", seed)
        needs = (self._last_evaluation(method, seed),)
        yield Job(title, words, lambda: agent_steps(folder) >= plan.online_steps, needs)
        yield from self._evaluations(title, folder, online_evaluations(method, plan))

    def diagnosis(self, method: Method, seed: int) -> Job:
        name, run = method.offline, offline_folder(self.out, method.offline, seed)
        title, path = run_title(name, "offline", seed), diagnosis_file(self.out, name, seed)
        words = ("-m", "experiments.diagnose", short(run), "--json", short(path), *self.limit)
        needs = (self._last_evaluation(method, seed),)  # it repeats numbers of the evaluations
        return Job(f"diagnose-{title}", words, lambda: _is_newer(path, run), needs, diagnoses=True)

    def _last_evaluation(self, method: Method, seed: int) -> str:
        """The last evaluation of the offline run that a method goes on from."""
        title = run_title(method.offline, "offline", seed)
        return evaluation_name(title, offline_evaluations(self.plan)[-1])

    def _evaluations(
        self, title: str, run: Path, evaluations: Sequence[PlannedEvaluation]
    ) -> Iterator[Job]:
        plan, before = self.plan, title
        for evaluation in evaluations:
            alone = evaluation.policy in ("online", "offline")
            words = (
                *("eval.py", "--logdir", short(run), "--variant", evaluation.variant),
                *("--episodes", str(plan.eval_episodes), "--seed", str(FIRST_SEED)),
                *("--videos", "0" if alone else "1"),
                *(() if evaluation.policy is None else ("--policy", evaluation.policy)),
                *self.limit,
            )
            name = evaluation_name(title, evaluation)
            finished = partial(_is_played, run, evaluation, plan.eval_episodes)
            yield Job(name, words, finished, (before,))
            before = name

    def _training(self, name: str, seed: int, folder: Path, updates: int) -> tuple[str, ...]:
        plan = self.plan
        return (
            *("train.py", "--configs", *preset_names(name, "offline"), *plan.scale),
            *("--task", plan.task, "--seed", str(seed), "--dataset.path", plan.dataset),
            *("--logdir", short(folder), "--run.updates", str(updates)),
        )

    def _dataset(self) -> tuple[str, ...]:
        return ("dataset",) if self.plan.episodes else ()

    def _settings(self, names: Sequence[str], but: str = "") -> list[str]:
        """Words for the settings that a command with these presets reads."""
        read = settings_for(self.plan.settings, names)
        changed = {key: x for key, x in read.items() if key != but}
        return [word for key, x in changed.items() for word in (f"--{key}", x)]


def evaluation_name(title: str, evaluation: PlannedEvaluation) -> str:
    """The name of a run's evaluation, without the usual variant and policy."""
    special = [
        word
        for word in (evaluation.variant, evaluation.policy)
        if word not in (NONE.name, "set", None)
    ]
    return "-".join(["eval", title, *special])


def _report(folders: Sequence[Path], needs: tuple[str, ...], out: Path) -> Job:
    runs = [short(folder) for folder in folders]
    words = ("-m", "fosp_ext.report", *runs, "--out", short(out / "report"), "--csv")

    def is_newest() -> bool:
        pages = [page.stat().st_mtime for page in out.glob("report*/index.html")]
        numbers = [
            file.stat().st_mtime for run in folders for file in run.glob("eval/*/summary.json")
        ]
        return bool(pages) and max(pages) > max(numbers, default=0)

    return Job("report", words, is_newest, needs)


def _is_newer(path: Path, run: Path) -> bool:
    """Whether the file is newer than the run's newest checkpoint."""
    newest = Checkpoint(run / "checkpoints", 1).latest()
    return newest is not None and path.exists() and path.stat().st_mtime >= newest.stat().st_mtime


def _has_updates(run: Path, updates: int) -> bool:
    return newest_step(run) >= updates


def newest_step(run: Path) -> int:
    """Updates that the newest checkpoint of a run has behind it; 0 without one."""
    path = Checkpoint(run / "checkpoints", 1).latest()
    return 0 if path is None else int(path.stem.removeprefix("step_"))


def agent_steps(run: Path) -> int:
    """Agent steps that the newest checkpoint of an online run has behind it; 0 without one."""
    path = Checkpoint(run / "checkpoints", 1).latest()
    return 0 if path is None else Checkpoint.load(path)["online"]["collector"]["agent_steps"]


def find_evaluation(run: Path, evaluation: PlannedEvaluation, episodes: int) -> Path | None:
    """The evaluation of the run's newest checkpoint on the fixed seeds; None if not yet made."""
    wanted = {
        "variant": evaluation.variant,
        "policy": evaluation.policy,
        "updates": newest_step(run),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + episodes)),
    }
    for file in sorted(run.glob("eval/*/summary.json")):
        summary = read_json(file)
        if all(summary.get(key) == value for key, value in wanted.items()):
            return file.parent
    return None


def _is_played(run: Path, evaluation: PlannedEvaluation, episodes: int) -> bool:
    return find_evaluation(run, evaluation, episodes) is not None
