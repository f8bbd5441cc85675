from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dreamer.command_line import parse_command_line
from dreamer.config import (
    changed,
    differences,
    from_dict,
    load_presets,
    load_yaml,
    marks,
    ordered,
    resolve,
    save_yaml,
    setting,
    to_dict,
)
from dreamer.errors import UserError
from dreamer.help_text import describe


@dataclass(frozen=True)
class Run:
    updates: int = setting("gradient updates", minimum=1)
    rate: float = setting("step size", minimum=0, maximum=1)
    resume: bool = setting("continue")


@dataclass(frozen=True)
class Sizes:
    deter: int = setting("deterministic state")


@dataclass(frozen=True)
class Example:
    task: str = setting("task name")
    storage: str = setting("where images live", choices=("ram", "disk"))
    cameras: tuple[str, ...] = setting("cameras")
    mixture: dict[str, float] = setting("shares", choices=("safe", "unsafe", "random"))
    run: Run = setting("the run")
    world_model: Sizes = setting("the world model")


YAML = """
defaults:
  task: PointGoal1
  storage: ram
  cameras: [vision, vision_back]
  mixture: {safe: 0.5, unsafe: 0.5}
  run: {updates: 1e4, rate: 1e-4, resume: true}
  world_model: {deter: 512}
cpu:
  world_model: {deter: 256}
  run: {updates: 400}
short:
  run: {updates: 4}
"""


@pytest.fixture
def presets(tmp_path: Path) -> dict:
    path = tmp_path / "configs.yaml"
    path.write_text(YAML)
    return load_presets(path)


def with_preset(presets: dict, name: str, values: dict) -> dict:
    return {**presets, name: values}


def test_defaults_are_typed(presets):
    config = resolve(Example, presets, [], {})
    assert config == Example(
        task="PointGoal1",
        storage="ram",
        cameras=("vision", "vision_back"),
        mixture={"safe": 0.5, "unsafe": 0.5},
        run=Run(updates=10000, rate=1e-4, resume=True),
        world_model=Sizes(deter=512),
    )
    assert type(config.run.updates) is int


def test_later_presets_win_and_the_command_line_is_last(presets):
    assert resolve(Example, presets, ["cpu", "short"], {}).run.updates == 4
    assert resolve(Example, presets, ["short", "cpu"], {}).run.updates == 400
    config = resolve(Example, presets, ["cpu"], {"run.updates": "1_000"})
    assert (config.run.updates, config.world_model.deter) == (1000, 256)
    assert presets["defaults"]["run"]["updates"] == 1e4, "presets are not written to"


def test_sizes_come_first_then_recipes_then_the_rest_from_left_to_right(presets):
    presets |= {
        "method": {"task": "method", "run": {"rate": 0.1}},
        "recipe": {"recipe": 1, "task": "recipe", "run": {"rate": 0.2, "updates": 2}},
        "size": {"size": 1, "task": "size", "run": {"rate": 0.3, "updates": 3, "resume": False}},
    }
    for names in itertools.permutations(["method", "recipe", "size"]):
        assert ordered(presets, list(names)) == ["size", "recipe", "method"]
    assert ordered(presets, ["short", "method", "cpu"]) == ["short", "method", "cpu"]


@dataclass(frozen=True)
class Other(Example):
    extra: Sizes = setting("what this one reads besides", may_change=True)


def test_schemas_share_presets_and_refuse_what_only_others_read(presets):
    presets["defaults"]["extra"] = {"deter": 1}
    presets["for_others"] = {"extra": {"deter": 2}}
    schemas = {"example": Example, "other": Other}
    assert resolve(Example, presets, ["cpu"], {}, schemas).world_model.deter == 256
    assert resolve(Other, presets, ["for_others"], {}, schemas).extra.deter == 2
    with pytest.raises(UserError, match=r"'for_others' changes nothing that example reads.*other"):
        resolve(Example, presets, ["for_others"], {}, schemas)
    with pytest.raises(UserError, match=r"--extra\.deter is not read by example; it is for other"):
        resolve(Example, presets, [], {"extra.deter": "3"}, schemas)
    with pytest.raises(UserError, match="extr is not a setting; did you mean 'extra'"):
        resolve(Example, {**presets, "x": {"extr": {}}}, ["x"], {}, schemas)
    assert "[other]" in describe(schemas, presets["defaults"], ["all"])


@dataclass(frozen=True)
class Part:
    own: int = setting("says it itself", may_change=False)
    taken: int = setting("takes it over from the section")


@dataclass(frozen=True)
class Marked:
    part: Part = setting("a section", may_change=True, must_match=("weights",))
    plain: int = setting("says nothing")


def test_settings_take_over_what_their_section_says():
    assert marks(Marked, "may_change") == {"part.own": False, "part.taken": True, "plain": False}
    assert marks(Marked, "must_match")["part.own"] == ("weights",)
    assert set(marks(Marked, "decides_result").values()) == {True}


def test_differences_are_of_settings_that_both_have(presets):
    presets["defaults"]["extra"] = {"deter": 1}
    schemas = {"example": Example, "other": Other}
    one = resolve(Example, presets, ["cpu"], {}, schemas)
    other = resolve(Other, presets, [], {"mixture": "safe=1"}, schemas)
    assert differences(one, other) == {
        "mixture": ({"safe": 0.5, "unsafe": 0.5}, {"safe": 1.0}),
        "run.updates": (400, 10000),
        "world_model.deter": (256, 512),
    }


@pytest.mark.parametrize(
    ("key", "word", "value"),
    [
        ("run.updates", "1e6", 1_000_000),
        ("run.rate", "3e-5", 3e-5),
        ("run.resume", "False", False),
        ("run.resume", "true", True),
        ("cameras", "vision", ("vision",)),
        ("cameras", "a, b", ("a", "b")),
        ("mixture", "random=1", {"random": 1.0}),
        ("mixture", "safe=0.25,unsafe=0.75", {"safe": 0.25, "unsafe": 0.75}),
        ("task", "5", "5"),
        ("storage", "disk", "disk"),
    ],
)
def test_words_become_values(presets, key, word, value):
    config = resolve(Example, presets, [], {key: word})
    for part in key.split("."):
        config = getattr(config, part)
    assert config == value
    assert type(config) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"run.update": "5"}, "--run.update is not a setting; did you mean 'run.updates'?"),
        ({"updates": "5"}, "--updates is not a setting; did you mean 'run.updates'?"),
        ({"zzz": "5"}, "--zzz is not a setting"),
        ({"run": "5"}, "--run is a section, not a setting; it holds updates, rate, resume"),
        ({"run.updates": "ten"}, "--run.updates must be a whole number, not 'ten'"),
        ({"run.updates": "1.5"}, "--run.updates must be a whole number, not '1.5'"),
        ({"run.updates": "inf"}, "--run.updates must be a whole number, not 'inf'"),
        ({"run.updates": "0"}, "--run.updates must be at least 1, it is 0"),
        ({"run.rate": "2"}, "--run.rate must be at most 1, it is 2.0"),
        ({"run.rate": "nan"}, "--run.rate must be a number, not 'nan'"),
        ({"run.resume": "maybe"}, "--run.resume must be true or false, not 'maybe'"),
        ({"storage": "dsk"}, "--storage must be one of ram, disk, not 'dsk'; did you mean 'disk'?"),
        (
            {"mixture": "saef=1"},
            "--mixture must be one of safe, unsafe, random, not 'saef'; did you mean 'safe'?",
        ),
        (
            {"mixture": "safe"},
            "--mixture must be names with numbers such as a=0.5,b=0.5, not 'safe'",
        ),
        ({"mixture": "safe=x"}, "--mixture: safe must be a number, not 'x'"),
    ],
)
def test_wrong_overrides_are_named(presets, overrides, message):
    with pytest.raises(UserError) as error:
        resolve(Example, presets, [], overrides)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"world_model": {"detr": 1}},
            "preset 'x': world_model.detr is not a setting; did you mean 'deter'?",
        ),
        (
            {"world_modl": {}},
            "preset 'x': world_modl is not a setting; did you mean 'world_model'?",
        ),
        ({"run": 5}, "preset 'x': run must be a section, it is 5"),
        ({"run": {"updates": True}}, "preset 'x': run.updates must be a whole number, not True"),
        ({"run": {"resume": 1}}, "preset 'x': run.resume must be true or false, not 1"),
        ({"task": 5}, "preset 'x': task must be text, not 5"),
        ({"task": None}, "preset 'x': task must be text, not None"),
        ({"cameras": 3}, "preset 'x': cameras must be a list of names such as a,b, not 3"),
    ],
)
def test_wrong_presets_are_named(presets, values, message):
    with pytest.raises(UserError) as error:
        resolve(Example, with_preset(presets, "x", values), ["x"], {})
    assert str(error.value) == message


def test_unknown_preset(presets):
    with pytest.raises(
        UserError, match=r"'cpuu' is not a preset; did you mean 'cpu'\? \(there are"
    ):
        resolve(Example, presets, ["cpuu"], {})


def test_defaults_must_be_complete(presets):
    with pytest.raises(
        UserError, match=r"preset 'defaults': storage, .*world_model\.deter missing"
    ):
        resolve(Example, {"defaults": {"task": "a"}}, [], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults: {a: 1, a: 2}", "duplicate key"),
        ("defaults: {a: 1\nb", "line 2"),
        ("defaults: 3", "preset 'defaults' must be a section, it is 3"),
        ("- a", "must hold 'key: value' lines"),
        ("cpu: {a: 1}", "the preset 'defaults' is missing"),
    ],
)
def test_malformed_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_presets(path)
    assert "\n" not in str(error.value)


def test_missing_file():
    with pytest.raises(UserError, match=r"cannot read nowhere\.yaml"):
        load_presets("nowhere.yaml")


def test_saved_config_is_read_back(presets, tmp_path):
    config = resolve(Example, presets, ["cpu"], {"run.rate": "1e-5", "task": "5"})
    assert from_dict(Example, to_dict(config)) == config
    save_yaml(config, tmp_path / "run" / "config.yaml")
    assert load_yaml(Example, tmp_path / "run" / "config.yaml") == config
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    older = {key: value for key, value in to_dict(config).items() if key != "task"}
    with pytest.raises(UserError, match="config: task missing"):
        from_dict(Example, older)


@dataclass(frozen=True)
class Newer(Sizes):
    read: str = setting("came later", choices=("all", "half"), before="half")


def test_a_config_older_than_a_setting_has_the_value_from_before():
    assert from_dict(Newer, {"deter": 3}) == Newer(3, "half")
    assert from_dict(Newer, {"deter": 3, "read": "all"}) == Newer(3, "all")


def test_changed_names_the_origin(presets):
    overrides = {"run.updates": "7", "storage": "ram"}
    assert changed(Example, presets, ["cpu"], overrides) == {
        "run.updates": (7, "command line"),
        "world_model.deter": (256, "preset cpu"),
    }


def test_describe_lists_every_setting(presets):
    lines = describe({"example": Example}, presets["defaults"], ["all"]).splitlines()
    assert len(lines) == 8
    assert " ".join(lines[1].split()) == "--storage ram where images live (ram, disk)"
    assert "safe=0.5,unsafe=0.5" in lines[3]


def test_command_line():
    argv = "--configs a b --run.updates 1e6 --task=x --rate -1 --configs c --profile --print-config"
    assert parse_command_line(argv.split()) == (
        ["a", "b", "c"],
        {"run.updates": "1e6", "task": "x", "rate": "-1"},
        {"profile", "print-config"},
    )
    assert parse_command_line(["--note=a=b", "--text", ""]) == (
        [],
        {"note": "a=b", "text": ""},
        set(),
    )


@pytest.mark.parametrize(
    "argv", ["word", "-x 3", "--", "--a", "--a --b 1", "--configs", "--configs="]
)
def test_command_lines_that_make_no_sense(argv):
    with pytest.raises(UserError):
        parse_command_line(argv.split())


def test_importing_config_does_not_import_torch():
    code = "import sys, dreamer.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
