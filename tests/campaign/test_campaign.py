"""A small cut of the campaign, always the same cases."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.campaign.ledger import Ledger
from tests.campaign.mutate import change_bytes

ROOT = Path(__file__).resolve().parents[2]


def test_a_cut_of_the_campaign_finds_nothing_wrong(tmp_path):
    """In a process of its own, which forks: this one has threads."""
    words = ["--minutes", "60", "--inputs", "60", "--kills", "4", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "tests.campaign", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, whole = done.stdout.splitlines()
    name, tried, accepted, refused, wrong = whole.split()
    assert (name, int(wrong)) == ("all", 0)
    assert int(tried) >= 67
    assert min(int(accepted), int(refused)) > 5


def test_mutations_follow_from_their_seed(tmp_path):
    content = bytes(range(256)) * 8
    for seed in range(30):
        results = []
        for name in ("one", "two"):
            path = tmp_path / name
            path.write_bytes(content)
            results.append((change_bytes(path, random.Random(seed)), path.read_bytes()))
        assert results[0] == results[1]


def test_a_ledger_goes_on_after_a_line_that_was_cut(tmp_path):
    path = tmp_path / "cases.jsonl"
    ledger = Ledger(path, 0)
    ledger.add("words", what="a", refused=True, wrong=[])
    ledger.add("words", what="b", refused=False, wrong=["traceback"])
    with path.open("a") as file:
        file.write('{"seed": 0, "pa')
    again = Ledger(path, 0)
    assert (again.count("words"), len(again.wrong()), Ledger(path, 1).count("words")) == (2, 1, 0)
    words, whole = [line.split() for line in again.table().splitlines()[1:]]
    assert words[1:] == whole[1:] == ["2", "0", "1", "1"]
