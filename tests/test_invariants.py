"""Every invariant of docs/algorithm.md has a test that can be found by its number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = r"pytest\.mark\.(slow|gpu|skip|skipif|xfail)\b"
ALL = set(range(1, 42))
ONLINE = {33, 34, 36, 37, 38}  # the online phase will complete these; until then, halves at most


def marks() -> Iterator[tuple[str, ast.Call]]:
    """All `@pytest.mark.invariant(...)` on what runs by default, with the test's name."""
    for path in sorted((ROOT / "tests").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [ast.unparse(mark) for mark in node.decorator_list]
                if not any(re.match(LEFT_OUT, name) for name in names):
                    for name, mark in zip(names, node.decorator_list, strict=True):
                        if name.startswith("pytest.mark.invariant"):
                            yield f"{path.name}::{node.name}", mark


def number(mark: ast.Call) -> int:
    """The invariant that a mark names."""
    (argument,) = mark.args
    return ast.literal_eval(argument)


def documented() -> dict[int, str]:
    """The state of each invariant in the table of the documentation, by its number."""
    text = (ROOT / "docs" / "algorithm.md").read_text().partition("\n## Invariants\n")[2]
    rows = re.findall(r"^\| (\d+) \| .* \| ([a-z, ]+) \|$", text, re.M)
    assert len(rows) == len({row[0] for row in rows})
    return {int(row): state for row, state in rows}


def test_every_invariant_but_those_of_the_online_phase_is_covered():
    assert {number(mark) for _, mark in marks() if not mark.keywords} == ALL - ONLINE


def test_halves_are_halves_of_what_the_online_phase_completes():
    halves = [mark for _, mark in marks() if mark.keywords]
    assert {number(mark) for mark in halves} <= ONLINE
    for mark in halves:
        assert [(k.arg, ast.literal_eval(k.value)) for k in mark.keywords] == [("phase", "offline")]


def test_only_tests_are_marked():
    names = [name for name, _ in marks()]
    assert names
    assert all(name.rpartition("::")[2].startswith("test_") for name in names)


def test_the_documentation_lists_each_with_its_state():
    halves = {number(mark) for _, mark in marks() if mark.keywords}
    state = dict.fromkeys(ALL, "tested") | dict.fromkeys(ONLINE, "online")
    assert documented() == state | dict.fromkeys(halves, "offline tested, online open")
