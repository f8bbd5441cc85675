"""Strict settings: values in YAML presets, types and meanings in frozen dataclasses.

A schema is a frozen dataclass whose fields are `setting(...)` or nested schemas. Every value stands
in the preset `defaults`; other presets and the command line change some of them. A key, section or
value that is not known is an error that names the nearest one. Nothing here imports torch or numpy.
"""

from __future__ import annotations

import dataclasses
import io
import typing
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML, YAMLError

from dreamer.errors import UserError, did_you_mean
from dreamer.files import atomic_path
from dreamer.values import convert

Schema = TypeVar("Schema")
Values = dict[str, Any]  # dotted key -> value
Layer = dict[str, tuple[Any, str]]  # dotted key -> (value, origin)
DEFAULTS = "defaults"
COMMAND_LINE = "command line"
FLAGS = {
    "-h": "help",
    "--help": "help",
    "--help-variants": "help-variants",
    "--print-config": "print-config",
    "--print_config": "print-config",
    "--allow-task-mismatch": "allow-task-mismatch",
    "--profile": "profile",
}


def setting(
    help: str,
    *,
    choices: tuple | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field of a schema; its value comes from the preset `defaults`."""
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(metadata={"help": help, **limits})


def load_presets(path: str | Path) -> dict[str, dict]:
    """The presets of a YAML file by name."""
    presets = _read_yaml(path)
    for name, preset in presets.items():
        if not isinstance(preset, dict):
            raise UserError(f"{path}: preset '{name}' must be a section, it is {preset!r}")
    if DEFAULTS not in presets:
        raise UserError(f"{path}: the preset '{DEFAULTS}' is missing")
    return presets


def resolve(
    schema: type[Schema], presets: dict[str, dict], names: list[str], overrides: dict[str, str]
) -> Schema:
    """`defaults`, the named presets from left to right, then the overrides; the later wins.

    Presets that set a `size` come before the others, so that no size undoes what a method is.
    """
    merged = _merge(schema, presets, names, overrides)
    return _build(schema, {key: value for key, (value, _) in merged.items()})


def changed(
    schema: type, presets: dict[str, dict], names: list[str], overrides: dict[str, str]
) -> Layer:
    """The settings that differ from `defaults`: dotted key -> (value, origin)."""
    defaults = _merge(schema, presets, [], {})
    merged = _merge(schema, presets, names, overrides)
    return {key: item for key, item in merged.items() if item[0] != defaults[key][0]}


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested types, for checkpoints and files."""
    return _plain(dataclasses.asdict(config))


def from_dict(
    schema: type[Schema], values: dict[str, Any], where: str = "config", added: Values | None = None
) -> Schema:
    """The inverse of `to_dict`, as strict as a preset; every setting must be there.

    Except those of `added` (dotted key -> value), which were not yet known when it was saved.
    """
    flat = {**(added or {}), **_flatten(schema, values, where)}
    _check_complete(schema, flat, where)
    return _build(schema, flat)


def to_yaml(config: Any) -> str:
    """The config as YAML that `load_yaml` understands."""
    text = io.StringIO()
    _yaml().dump(to_dict(config), text)
    return text.getvalue()


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a resolved config where `load_yaml` finds it again."""
    with atomic_path(path) as part:
        part.write_text(to_yaml(config))


def load_yaml(schema: type[Schema], path: str | Path, added: Values | None = None) -> Schema:
    """A config written by `save_yaml`; for `added` see `from_dict`."""
    return from_dict(schema, _read_yaml(path), str(path), added)


def describe(schema: type, defaults: dict[str, Any]) -> str:
    """All settings with their default and meaning, one per line, for --help."""
    values = _flatten(schema, defaults, f"preset '{DEFAULTS}'")
    rows = []
    for key, (field, _) in _leaves(schema).items():
        meaning, choices = field.metadata["help"], field.metadata["choices"]
        if choices is not None:
            meaning += f" ({', '.join(map(str, choices))})"
        rows.append((f"--{key}", _shown(values[key]), meaning))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"  {key:<{widths[0]}}  {value:<{widths[1]}}  {meaning}" for key, value, meaning in rows
    )


def parse_command_line(argv: list[str]) -> tuple[list[str], dict[str, str], set[str]]:
    """(preset names, dotted overrides, flags) of `--configs a b --key value --key=value --help`."""
    names: list[str] = []
    overrides: dict[str, str] = {}
    flags: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word in FLAGS:
            flags.add(FLAGS[word])
        elif not word.startswith("--") or not key:
            raise UserError(f"'{word}' is not understood; write --configs NAMES or --key value")
        elif key == "configs":
            given = [value] if equals else _take_values(words)
            if not given or "" in given:
                raise UserError("--configs needs the name of at least one preset")
            names += given
        elif equals:
            overrides[key] = value
        elif words and not _is_option(words[0]):
            overrides[key] = words.pop(0)
        else:
            raise UserError(f"{word} needs a value")
    return names, overrides, flags


def _take_values(words: list[str]) -> list[str]:
    given = []
    while words and not _is_option(words[0]):
        given.append(words.pop(0))
    return given


def _is_option(word: str) -> bool:
    return word.startswith("--") or word == "-h"


def _merge(schema: type, presets: dict[str, dict], names: list[str], overrides: dict) -> Layer:
    defaults = _flatten(schema, presets[DEFAULTS], f"preset '{DEFAULTS}'")
    _check_complete(schema, defaults, f"preset '{DEFAULTS}'")
    merged = {key: (value, DEFAULTS) for key, value in defaults.items()}
    for name in names:
        if name not in presets:
            known = [preset for preset in presets if preset != DEFAULTS]
            hint = did_you_mean(name, known)
            raise UserError(f"'{name}' is not a preset{hint} (there are {', '.join(known)})")
    for name in sorted(names, key=lambda name: "size" not in presets[name]):
        layer = _flatten(schema, presets[name], f"preset '{name}'")
        merged |= {key: (value, f"preset {name}") for key, value in layer.items()}
    leaves = _leaves(schema)
    for key, word in overrides.items():
        if key not in leaves:
            raise UserError(_unknown_override(key, list(leaves)))
        field, kind = leaves[key]
        merged[key] = (convert(word, kind, field.metadata, f"--{key}"), COMMAND_LINE)
    return merged


def _flatten(schema: type, values: dict, where: str, prefix: str = "") -> Values:
    """Check and convert a nested mapping into dotted keys."""
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    flat: Values = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if key not in fields:
            raise UserError(f"{where}: {dotted} is not a setting{did_you_mean(str(key), fields)}")
        if not dataclasses.is_dataclass(hints[key]):
            flat[dotted] = convert(value, hints[key], fields[key].metadata, f"{where}: {dotted}")
        elif isinstance(value, dict):
            flat |= _flatten(hints[key], value, where, f"{dotted}.")
        else:
            raise UserError(f"{where}: {dotted} must be a section, it is {value!r}")
    return flat


def _build(schema: type[Schema], values: Values, prefix: str = "") -> Schema:
    given = {}
    for name, kind in typing.get_type_hints(schema).items():
        key = f"{prefix}{name}"
        nested = dataclasses.is_dataclass(kind)
        given[name] = _build(kind, values, f"{key}.") if nested else values[key]
    return schema(**given)


def _check_complete(schema: type, values: Values, where: str) -> None:
    missing = [key for key in _leaves(schema) if key not in values]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")


def _leaves(schema: type, prefix: str = "") -> dict[str, tuple[dataclasses.Field, Any]]:
    """Dotted key -> (field, type) of every setting."""
    hints = typing.get_type_hints(schema)
    leaves = {}
    for field in dataclasses.fields(schema):
        key, kind = f"{prefix}{field.name}", hints[field.name]
        leaves |= (
            _leaves(kind, f"{key}.") if dataclasses.is_dataclass(kind) else {key: (field, kind)}
        )
    return leaves


def _unknown_override(key: str, known: list[str]) -> str:
    inside = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"--{key} is a section, not a setting; it holds {', '.join(inside)}"
    same_name = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    return f"--{key} is not a setting{did_you_mean(key, same_name) or did_you_mean(key, known)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={number:g}" for key, number in value.items())
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read_yaml(path: str | Path) -> dict:
    try:
        content = _yaml().load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except YAMLError as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return content


def _one_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}: " if mark else ""
    return place + " ".join(problem.split())


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)  # pure: YAML 1.2, where `off` is text and 1e6 a number
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    return yaml
