"""The campaign's command line; the same command goes on where it was stopped."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.campaign import faults, inputs, kills, material
from tests.campaign.ledger import Ledger

FAULT_SHARE, PAIR_SHARE = 20, 10  # one fault for so many inputs, one pair for so many kills


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description="Mutated inputs, kills and faults."
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no new case after them")
    parser.add_argument("--inputs", type=int, default=5000, help="mutated inputs")
    parser.add_argument("--kills", type=int, default=200, help="runs that are disturbed")
    parser.add_argument("--seed", type=int, default=0, help="of all mutations and times")
    parser.add_argument("--out", type=Path, default=Path("logdir/campaign"), help="folder to use")
    parser.add_argument("--only", help="PART:NUMBER, one case again, as the table's end names it")
    return parser.parse_args(argv)


def plan(options: argparse.Namespace) -> Iterator[str]:
    """The parts of all cases, mixed, so that a campaign cut short has tried some of each."""
    names, stages = list(inputs.PARTS), list(kills.STAGES)
    for number in range(max(options.inputs, options.kills)):
        if number < options.inputs:
            yield names[number % len(names)]
            if number % FAULT_SHARE == 0:
                yield "faults"
        before, after = (options.kills * k // max(options.inputs, 1) for k in (number, number + 1))
        for kill in range(before, min(after, options.kills)):
            yield stages[kill % len(stages)]
            if kill % PAIR_SHARE == 0 and faults.have_locks():
                yield "two at once"


def attempt(
    part: str, number: int, straight: kills.Undisturbed, options: argparse.Namespace
) -> dict[str, object]:
    """One case, decided by its part, its number and the seed; as the ledger keeps it."""
    rng = random.Random(zlib.crc32(f"{options.seed}:{part}:{number}".encode()))
    place = options.out / "place"
    source = options.out / "material"
    if part in kills.STAGES:
        disturbed = kills.disturb(part, straight, place, rng)
        return {"what": ", ".join(disturbed.signals), "refused": False, "wrong": disturbed.wrong}
    if part == "two at once":
        codes, wrong = faults.two_at_once(source, place, rng)
        return {"what": str(codes), "refused": 2 in codes, "wrong": wrong}
    case = (faults.fault if part == "faults" else inputs.PARTS[part])(source, place, rng)
    wrong = case.outcome.faults() + (["input changed"] if case.lost else [])
    said = case.outcome.err.splitlines()
    return {
        "what": case.what,
        "words": case.words,
        "refused": case.outcome.refused,
        "wrong": wrong,
        "code": case.outcome.code,
        "seconds": round(case.outcome.seconds, 2),
        "mib": round(case.outcome.mib),
        "said": said[-1][:300] if said else "",
    }


def main(argv: list[str] | None = None) -> int:
    """Run the cases that are missing, print the table; returns 1 if anything was wrong."""
    options = parse(argv)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    straight = kills.Undisturbed(material.prepare(options.out), options.out)
    if options.only:
        part, _, number = options.only.rpartition(":")
        print(attempt(part, int(number), straight, options))
        print((options.out / "place" / "err.txt").read_text())
        return 0
    ledger = Ledger(options.out / "cases.jsonl", options.seed)
    end = time.monotonic() + 60 * options.minutes
    done: dict[str, int] = {}
    for part in plan(options):
        number = done[part] = done.get(part, -1) + 1
        if number < ledger.count(part):
            continue  # in an earlier start
        if time.monotonic() > end:
            print("the time is over; the same command goes on")
            break
        ledger.add(part, **attempt(part, number, straight, options))
    shutil.rmtree(options.out / "place", ignore_errors=True)
    print(ledger.table())
    for case in ledger.wrong():
        print(f"WRONG {case['part']}:{case['number']}: {'; '.join(case['wrong'])}; {case['what']}")
    return 1 if ledger.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
