"""What a machine lacks: space, permission, memory, files; and two processes in one folder."""

from __future__ import annotations

import importlib.util
import random
import resource
from pathlib import Path

from tests.campaign import material as made
from tests.campaign.host import Child, run
from tests.campaign.inputs import Case

FORBIDDEN = ("/proc/campaign", "/sys/campaign", "/dev/null/campaign", "data.h5/campaign", "x" * 300)
WRITERS = (
    ("train", made.record("{out}/new.h5")),
    ("train", made.offline(made.DATA, "{out}")),
    ("train", made.online(made.RUN, made.DATA, "{out}", 13)),
    ("eval", made.evaluate(made.RUN, "{out}", 1)),
    ("export", [made.RUN, "--out", "{out}/new.pt"]),
    ("report", [made.RUN, "--out", "{out}", "--device", "cpu"]),
    ("dataset", ["merge", "{out}/all.h5", made.DATA, made.DATA]),
    ("dataset", ["inspect", made.DATA, "--figure", "{out}/figure.png"]),
)


def fault(material: Path, place: Path, rng: random.Random) -> Case:
    """A command that writes, on a machine that does not let it."""
    made.fresh(material, place, made.DATA, made.RUN)
    command, words = rng.choice(WRITERS)
    kind = rng.choice(("no space", "no space", "forbidden", "few files", "little memory"))
    out, limits = "new", {}
    if kind == "no space":
        limits = {resource.RLIMIT_FSIZE: rng.choice((0, 100, 4096, 50_000, 400_000, 1_500_000))}
    elif kind == "few files":
        limits = {resource.RLIMIT_NOFILE: rng.choice((6, 12, 20))}
    elif kind == "little memory":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = {resource.RLIMIT_AS: size + rng.choice((2**24, 2**27, 2**29))}
    else:
        out = rng.choice(FORBIDDEN)
    argv = [word.format(out=out) for word in words]
    outcome = run(place, command, *argv, limits=limits)
    what = f"{kind} {out[:20] if kind == 'forbidden' else list(limits.values())}"
    return Case("faults", what, f"{command} {' '.join(argv)}"[:400], outcome)


def have_locks() -> bool:
    """Does the program keep a second process out of a folder?"""
    return importlib.util.find_spec("dreamer.locks") is not None


def two_at_once(material: Path, place: Path, rng: random.Random) -> tuple[list[int], list[str]]:
    """Two of the same command in one folder: one does it, the other is refused or waits its turn.

    Returns both exit codes and what is wrong.
    """
    made.fresh(material, place, made.DATA, made.RUN)
    command, words = rng.choice(WRITERS[:3])
    argv = [word.format(out="new") for word in words]
    logs = [place / "one", place / "two"]
    for log in logs:
        log.mkdir()
    absolute = [str(place / word) if word in ("new", "new/new.h5", made.DATA, made.RUN) else word
                for word in argv]  # fmt: skip
    children = [Child(log, command, absolute) for log in logs]
    outcomes = [child.wait() for child in children]
    wrong = [fault for outcome in outcomes for fault in outcome.faults()]
    codes = sorted(outcome.code for outcome in outcomes)
    if codes not in ([0, 0], [0, 2]):
        wrong.append(f"exit codes {codes}")
    return codes, wrong
