"""Every invariant of docs/concepts/algorithm.md has a test that can be found by its number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LEFT_OUT = r"pytest\.mark\.(slow|gpu|skip|skipif|xfail)\b"
ALL = list(range(1, 43))


def marks() -> Iterator[tuple[str, ast.Call]]:
    """All `@pytest.mark.invariant(...)` on what runs by default, with the test's name."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
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
    assert not mark.keywords
    return ast.literal_eval(argument)


def test_every_invariant_is_covered():
    assert sorted({number(mark) for _, mark in marks()}) == ALL


def test_only_tests_are_marked():
    names = [name for name, _ in marks()]
    assert names
    assert all(name.rpartition("::")[2].startswith("test_") for name in names)


def test_the_documentation_lists_each():
    text = (
        (ROOT / "docs" / "concepts" / "algorithm.md").read_text().partition("\n## Invariants\n")[2]
    )
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", text, re.M)] == ALL
