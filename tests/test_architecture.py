"""Rules of the code base that a reader would otherwise have to check by eye."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dreamer", "fosp_ext")
SCRIPTS = {"train", "eval"}
ABOVE = {"experiments", "benchmarks", "tools", "tests"}  # nothing below imports them
FORBIDDEN = {"dreamer": {"fosp_ext", *SCRIPTS, *ABOVE}, "fosp_ext": {*SCRIPTS, *ABOVE}}
COMMANDS = {  # modules that people run: they may print
    "fosp_ext/dataset/__main__.py",
    "fosp_ext/doctor.py",
    "fosp_ext/envs/check.py",
    "fosp_ext/export.py",
    "fosp_ext/report/__main__.py",
    "fosp_ext/run/train.py",
}
CUTTERS = {  # who may see a whole configuration
    "dreamer/__main__.py",
    "dreamer/training/train.py",
    "fosp_ext/api.py",
    "fosp_ext/build.py",
    "fosp_ext/config.py",
    *(f"fosp_ext/run/{name}.py" for name in ("data", "initialize", "modes", "offline", "online")),
    "fosp_ext/run/train.py",
}
SIMULATORS = {"mujoco", "safety_gymnasium", "OpenGL", "glfw"}
PLOTTING = {"matplotlib"}
LAYERS = (  # a module imports from its own layer or from layers before it
    {"types", "errors", "files", "values", "functional", "config", "settings", "distributed"}
    | {"signals", "locks", "outputs"},
    {"command_line"},
    {"distributions", "networks", "optimizer", "moments"},
    {"rssm"},
    {"world_model", "imagination"},
    {"actor_critic"},
    {"agent"},
    {"build"},
    {"training"},
    {"__main__"},
)
FILES = sorted(
    str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
OUTSIDE = sorted(
    str(path.relative_to(ROOT))
    for package in ("benchmarks", "experiments", "tools")
    for path in (ROOT / package).rglob("*.py")
)


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported_modules(tree: ast.AST) -> set[str]:
    """Dotted names; `from a import b` counts as a.b, for b may be a module."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def top_level_imports(tree: ast.Module) -> set[str]:
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imported_modules(ast.Module(statements, []))


def module_files(imports: set[str]) -> set[str]:
    """The files of this repository behind dotted names; of `a.b.c`, `a.b` is a candidate too."""
    names = {name.replace(".", "/") for name in imports}
    names |= {name.rpartition("/")[0] for name in names}
    return set(FILES) & {file for name in names for file in (f"{name}.py", f"{name}/__init__.py")}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", FILES)
def test_imports_point_downward(path):
    roots = {name.split(".")[0] for name in imported_modules(parse(path))}
    assert not roots & FORBIDDEN[path.split("/")[0]]


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("dreamer/")])
def test_the_core_knows_no_word_of_the_extension(path):
    assert "fosp" not in (ROOT / path).read_text().lower()


@pytest.mark.parametrize("path", [path for path in FILES if path.count("/") == 1])
def test_the_core_is_layered(path):
    package, name = path.removesuffix(".py").split("/")
    layer = next((k for k, names in enumerate(LAYERS) if name in names), None)
    if package != "dreamer" or layer is None:
        return
    above = set().union(*LAYERS[layer + 1 :])
    inner = {m.split(".")[1] for m in imported_modules(parse(path)) if m.startswith("dreamer.")}
    assert not inner & above


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("fosp_ext/")])
def test_only_commands_stand_above_runs(path):
    """What the paper adds, tasks and datasets know nothing of the runs that use them."""
    place = path.split("/")[1]
    imports = imported_modules(parse(path))
    if place not in ("run", "report", "export.py", "acting.py", "api.py", "hub.py"):
        assert not [name for name in imports if f"{name}.".startswith("fosp_ext.run.")]


RUNTIME = {"dreamer.errors", "fosp_ext.runtime", "numpy", "onnxruntime"}


@pytest.mark.parametrize("path", [path for path in FILES if "fosp_ext/runtime/" in path])
def test_the_runtime_needs_numpy_and_onnxruntime_alone(path):
    """It acts on machines that have neither PyTorch nor a simulator."""
    for name in imported_modules(parse(path)) - {"__future__.annotations"}:
        known = any(name.startswith(f"{allowed}.") or name == allowed for allowed in RUNTIME)
        assert known or name.split(".")[0] in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_imports_experiments(path):
    roots = {name.split(".")[0] for name in imported_modules(parse(path))}
    assert "experiments" not in roots or path.startswith("experiments/")


WHOLE = {"Config", "TrainConfig", "OfflineConfig", "OnlineConfig", "CollectConfig", "DreamerConfig"}


@pytest.mark.parametrize("path", FILES)
def test_a_component_gets_its_slice_of_the_settings(path):
    """Whole configurations stay where they are cut: in runs, their entries and `build`."""
    taken = [
        argument.annotation
        for node in functions(parse(path))
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None
    ]
    if not any(ast.unparse(kind) in WHOLE for kind in taken):
        return
    assert path in CUTTERS


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_simulators_and_plotting_are_imported_late(script):
    """Training on a recorded dataset runs on a machine without MuJoCo, and loads no plotting."""
    seen, waiting = set(), [f"{script}.py", "fosp_ext/run/modes.py"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        imports = top_level_imports(parse(path))
        assert not {name.split(".")[0] for name in imports} & (SIMULATORS | PLOTTING), path
        waiting += module_files(imports) - seen
    assert not [path for path in seen if path.startswith("fosp_ext/report/")]


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("fosp_ext/run/")])
def test_runs_do_not_import_reports(path):
    assert not [m for m in imported_modules(parse(path)) if m.startswith("fosp_ext.report")]


@pytest.mark.parametrize("path", FILES)
def test_files_and_functions_stay_small(path):
    assert (ROOT / path).read_text().count("\n") <= 400, "split it"
    for node in functions(parse(path)):
        assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES)
def test_everything_is_annotated(path):
    for node in functions(parse(path)):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, f"{node.name}: {bare}"
        if node.name != "__init__":
            assert node.returns is not None, f"{node.name}: no return type"


@pytest.mark.parametrize("path", FILES)
def test_libraries_do_not_print(path):
    calls = (node.func for node in ast.walk(parse(path)) if isinstance(node, ast.Call))
    prints = any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
    assert not prints or path in COMMANDS


@pytest.mark.parametrize("path", [path for path in (*FILES, *OUTSIDE) if path[:5] != "tools"])
def test_every_command_has_one_boundary(path):
    """Where a program begins, errors become a line; see dreamer/boundary.py."""
    text = (ROOT / path).read_text()
    if "sys.exit(main(" in text:
        assert re.search(r"@bounded\ndef main|return (guarded|exit_code)\(", text)


@pytest.mark.parametrize("path", FILES)
def test_no_bare_except_and_no_unowned_todo(path):
    tree = parse(path)
    assert all(node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    assert not re.findall(r"TODO(?!\()|FIXME|XXX", (ROOT / path).read_text())


def test_the_modules_named_here_exist():
    known = {
        path.split("/")[1].removesuffix(".py") for path in FILES if path.startswith("dreamer/")
    }
    assert set().union(*LAYERS) <= known
    assert set(FILES) >= COMMANDS
