"""Mutated inputs: one file or some words are changed, and a command is given the result."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dreamer.config import marks
from fosp_ext.config import SCHEMAS
from tests.campaign import material as made
from tests.campaign import mutate
from tests.campaign.host import Outcome, run
from tests.campaign.world import TASK

Words = Sequence[str]


class Case(NamedTuple):
    """What was tried, and what came of it."""

    part: str
    what: str
    words: str
    outcome: Outcome
    lost: bool = False  # what the user had is not there any more


USES_DATASET = (
    ("dataset", ["validate", made.DATA]),
    ("dataset", ["inspect", made.DATA, "--no-figure"]),
    ("dataset", ["merge", "all.h5", made.DATA, made.DATA]),
    ("dataset", ["split", made.DATA, "some.h5", "--episodes", "2"]),
    ("dataset", ["convert", made.DATA, "new.hdf5", "--to", "dsrl"]),
    ("dataset", ["convert", made.DATA, "new-v0", "--to", "minari"]),
    ("train", made.offline(made.DATA, "new", 1)),
)
USES_FILE = (
    ("export", ["{file}", "--out", "new.pt"]),
    ("eval", ["--checkpoint", "{file}", *made.evaluate("", "new", 1)[2:]]),
    ("eval", ["--checkpoint", "{file}", "--episodes", "1", "--device", "cpu", "--out", "new"]),
    ("train", made.online("{file}", made.DATA, "new", 4)),
)
USES_RUN = (
    ("report", [made.RUN, "--out", "page", "--device", "cpu"]),
    ("export", [made.RUN, "--out", "new.pt"]),
    ("eval", made.evaluate(made.RUN, "new", 1)),
    ("train", made.offline(made.DATA, made.RUN, 7)),
    ("train", made.online(made.RUN, made.DATA, "new", 4)),
)
USES_ONLINE = (
    ("report", [made.ONLINE, "--out", "page", "--device", "cpu"]),
    ("train", made.online(made.RUN, made.DATA, made.ONLINE, 26)),
    ("eval", made.evaluate(made.ONLINE, "new", 1)),
)
BASES = (
    ("train", made.offline(made.DATA, "new", 1)),
    ("train", made.record("new.h5")),
    ("train", made.online(made.RUN, made.DATA, "new", 4)),
    ("eval", made.evaluate(made.RUN, "new", 1)),
    ("export", [made.RUN, "--out", "new.pt"]),
    ("report", [made.RUN, "--out", "page", "--device", "cpu"]),
    ("dataset", ["split", made.DATA, "some.h5", "--episodes", "2"]),
    ("check", [TASK, "--episodes", "1"]),
    ("dreamer", made.scratch("new", 31)),
)
ODD_WORDS = (
    "", "0", "-1", "1e9", "1e400", "9" * 20, "9" * 400, "9" * 5000, "nan", "inf", "x" * 60_000,
    "x" * 255, "/nowhere/x", "/proc/x", "/sys/x", "/dev/null", "/dev/full/x", "ü", "\udcff", "a=b",
    "true", ",", "cuda:99", "a\nb", "100000", "3", "evil:Env", "../x", "run", "data.h5",
)  # fmt: skip
HEAVY = ("updates", "steps", "episodes", "prefill", "limit", "horizon", "draws", "proposals")


def dataset(material: Path, place: Path, rng: random.Random) -> Case:
    """A dataset file that is not what it should be."""
    made.fresh(material, place, made.DATA)
    change = rng.choice((mutate.change_bytes, mutate.change_dataset, mutate.change_dataset))
    return _apply("dataset", place / made.DATA, change, rng.choice(USES_DATASET), rng)


def checkpoint(material: Path, place: Path, rng: random.Random) -> Case:
    """A checkpoint, an exported agent, or a file that is none of both."""
    made.fresh(material, place, made.DATA, made.AGENT, made.RUN)
    file = rng.choice((made.AGENT, f"{made.RUN}/checkpoints/step_000000006.pt"))
    change = rng.choice((mutate.change_bytes, *[mutate.change_checkpoint] * 3))
    uses = USES_FILE if file == made.AGENT else (*USES_FILE, *USES_RUN)
    command, words = rng.choice(uses)
    use = (command, [word.format(file=file) for word in words])
    return _apply("checkpoint", place / file, change, use, rng)


def run_folder(material: Path, place: Path, rng: random.Random) -> Case:
    """A file of a run folder, whichever, that is damaged, odd or not there."""
    made.fresh(material, place, made.DATA, made.RUN, made.ONLINE)
    name = rng.choice((made.RUN, made.ONLINE))
    files = sorted(path for path in (place / name).rglob("*") if path.is_file())
    file = rng.choice(files)
    changes: list[mutate.Mutation] = [mutate.change_bytes, mutate.change_place]
    if file.suffix in (".json", ".jsonl", ".yaml") or file.name == "latest":
        changes += [mutate.change_text] * 4
    if name == made.ONLINE and file.suffix == ".pt":
        changes += [mutate.change_checkpoint] * 4
    if file.suffix == ".h5":
        changes.append(mutate.change_dataset)
    use = rng.choice(USES_RUN if name == made.RUN else USES_ONLINE)
    return _apply("run folder", file, rng.choice(changes), use, rng, place)


def words(material: Path, place: Path, rng: random.Random) -> Case:
    """A command line with an odd word, setting, or value."""
    made.fresh(material, place, made.DATA, made.RUN)
    command, plain = rng.choice(BASES)
    argv, odd = list(plain), rng.choice(ODD_WORDS)
    kind = rng.choice(("replace", "drop", "insert", "setting", "setting"))
    if kind == "setting" and command == "train":
        schema = SCHEMAS["fosp online" if "--from" in argv else "fosp offline"]
        names = [key for key in marks(schema, "may_change") if key.split(".")[-1] not in HEAVY]
        key = rng.choice(names)
        argv += [f"--{key}", odd]
        what = f"--{key} {odd[:40]!r}"
    else:
        at = rng.randrange(len(argv))
        what = f"{kind} {argv[at]!r} {odd[:40]!r}"
        if kind == "drop":
            del argv[at]
        elif kind == "insert":
            argv.insert(at, odd)
        else:
            argv[at] = odd
    return Case("words", what, _said(command, argv), run(place, command, *argv))


PARTS: dict[str, Callable[[Path, Path, random.Random], Case]] = {
    "dataset": dataset,
    "checkpoint": checkpoint,
    "run folder": run_folder,
    "words": words,
}


def _apply(
    part: str,
    file: Path,
    change: mutate.Mutation,
    use: tuple[str, Words],
    rng: random.Random,
    place: Path | None = None,
) -> Case:
    """Change the file, run the command, and look whether the file is what it was."""
    try:
        what = change(file, rng)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        what = f"cannot be made so: {error!r:.60}"  # the library refuses to write it
    before = file.read_bytes() if file.is_file() else None
    command, argv = use
    outcome = run(place or _root(file), command, *argv)
    kept = file.is_file() and file.read_bytes() == before if before is not None else True
    log = file.suffix in (".jsonl", ".json", ".yaml") or file.name == "latest"
    lost = outcome.refused and not kept and not log
    return Case(part, f"{file.name}: {what}", _said(command, argv), outcome, lost)


def _root(file: Path) -> Path:
    """The working directory: the first folder above that holds the dataset."""
    return next(folder for folder in file.parents if (folder / made.DATA).exists())


def _said(command: str, argv: Words) -> str:
    return f"{command} {' '.join(argv)}"[:400]
