"""Strict settings: values in YAML presets, types and meanings in frozen dataclasses.

A schema is a frozen dataclass whose fields are `setting(...)` or nested schemas. Every value stands
in the preset `defaults`; other presets and the command line change some of them. A key, section or
value that is not known is an error that names the nearest one. Nothing here imports torch or numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from dreamer.errors import UserError, did_you_mean, shown
from dreamer.files import atomic_path, write_text
from dreamer.values import convert
from dreamer.yaml_file import read_yaml, yaml_format

Schema = TypeVar("Schema")
Values = dict[str, Any]  # dotted key -> value
Layer = dict[str, tuple[Any, str]]  # dotted key -> (value, origin)
Presets = Mapping[str, Mapping[str, Any]]  # name -> nested settings
Schemas = Mapping[str, type]  # name -> schema; schemas that share one file of presets
MARKS = {"may_change": False, "must_match": (), "decides_result": True}  # where nothing is said
KINDS = ("size", "recipe")  # presets that set one of these are applied before the others
DEFAULTS = "defaults"
COMMAND_LINE = "command line"


class Listed(NamedTuple):
    """One setting as --help shows it."""

    key: str  # dotted
    default: str
    meaning: str  # with its choices, and who reads it where not everyone does


class _Leaf(NamedTuple):
    """One setting of a schema."""

    metadata: Mapping[str, Any]
    kind: Any  # its type
    marks: dict[str, Any]


def setting(
    help: str,
    *,
    choices: tuple | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    may_change: bool | None = None,
    must_match: tuple[str, ...] | None = None,
    decides_result: bool | None = None,
    before: Any = None,
) -> Any:
    """A field of a schema; its value comes from the preset `defaults`.

    What a setting knows of itself beside its meaning, and what the settings of a section take over
    where they say nothing: `may_change` when a run is continued (no), `must_match` names what a run
    can take from another one only if both have the same value (nothing), and `decides_result` is
    false where runs that differ in it are the same experiment (true).

    `before` is the value that runs had without knowing it, which were saved before there was such a
    setting.
    """
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    marks = {
        "may_change": may_change,
        "must_match": must_match,
        "decides_result": decides_result,
    }
    return dataclasses.field(metadata={"help": help, "before": before, **limits, **marks})


def load_presets(path: str | Path) -> dict[str, dict]:
    """The presets of a YAML file by name."""
    presets = read_yaml(path)
    for name, preset in presets.items():
        if not isinstance(preset, dict):
            raise UserError(f"{path}: preset '{name}' must be a section, it is {shown(preset)}")
    if DEFAULTS not in presets:
        raise UserError(f"{path}: the preset '{DEFAULTS}' is missing")
    return presets


def resolve(
    schema: type[Schema],
    presets: Presets,
    names: Sequence[str],
    overrides: Mapping[str, str],
    siblings: Schemas = MappingProxyType({}),
) -> Schema:
    """`defaults`, the named presets, then the overrides; the later wins.

    Presets that name a `size` come first, then those that name a `recipe`, then all others from
    left to right: so neither undoes what a method is. `siblings` are the schemas (by name, this one
    among them) that share the presets: what only others read is left out of a preset; as an
    override, and as a preset of which nothing is read here, it is refused.
    """
    merged = _merge(schema, presets, names, overrides, siblings)
    return _build(schema, {key: value for key, (value, _) in merged.items()})


def changed(
    schema: type,
    presets: Presets,
    names: Sequence[str],
    overrides: Mapping[str, str],
    siblings: Schemas = MappingProxyType({}),
) -> Layer:
    """The settings that differ from `defaults`: dotted key -> (value, origin)."""
    defaults = _merge(schema, presets, [], {}, siblings)
    merged = _merge(schema, presets, names, overrides, siblings)
    return {key: item for key, item in merged.items() if item[0] != defaults[key][0]}


def raw_value(
    key: str, presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> Any:
    """What a top-level setting would be, unchecked: it may decide which schema is the right one."""
    layers = [presets[DEFAULTS], *(presets[name] for name in ordered(presets, names)), overrides]
    return next((layer[key] for layer in reversed(layers) if key in layer), None)


def ordered(presets: Presets, names: Sequence[str]) -> list[str]:
    """The names in the order in which their presets are applied; an unknown one is refused."""
    for name in names:
        if name not in presets or name == DEFAULTS:
            known = [preset for preset in presets if preset != DEFAULTS]
            hint = did_you_mean(name, known)
            raise UserError(f"'{name}' is not a preset{hint} (there are {', '.join(known)})")
    kinds = [[name for name in names if kind in presets[name]] for kind in KINDS]
    rest = [name for name in names if not any(kind in presets[name] for kind in KINDS)]
    return [*itertools.chain(*kinds), *rest]


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested types, for checkpoints and files."""
    return _plain(dataclasses.asdict(config))


def from_dict(schema: type[Schema], values: dict[str, Any], where: str = "config") -> Schema:
    """The inverse of `to_dict`, as strict as a preset; only a newer setting may be missing."""
    leaves = _leaves(schema)
    flat = values_before(schema) | _dotted(leaves, values, where)
    _check_complete(schema, flat, where)
    return _build(schema, flat)


def values_before(schema: type) -> Values:
    """Dotted key -> the value of runs that are older than the setting, see `setting`."""
    values = {key: leaf.metadata["before"] for key, leaf in _leaves(schema).items()}
    return {key: value for key, value in values.items() if value is not None}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Values:
    """Nested settings as dotted key -> value; what `to_dict` returns, or a preset."""
    dotted: Values = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        dotted |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return dotted


def marks(schema: type, mark: str) -> Values:
    """Dotted key -> what each setting says of itself, or its section: see `setting`."""
    return {key: leaf.marks[mark] for key, leaf in _leaves(schema).items()}


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, where two configurations that know it differ."""
    left, right = _plain_leaves(one), _plain_leaves(other)
    shared = [key for key in left if key in right]
    return {key: (left[key], right[key]) for key in shared if left[key] != right[key]}


def to_yaml(config: Any) -> str:
    """The config as YAML that `load_yaml` understands."""
    text = io.StringIO()
    yaml_format().dump(to_dict(config), text)
    return text.getvalue()


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a resolved config where `load_yaml` finds it again."""
    with atomic_path(path) as part:
        write_text(part, to_yaml(config))


def load_yaml(schema: type[Schema], path: str | Path) -> Schema:
    """A config written by `save_yaml`."""
    return from_dict(schema, read_yaml(path), str(path))


def listed(schemas: Schemas, defaults: Mapping[str, Any]) -> list[Listed]:
    """All settings of these schemas, for people."""
    leaves = _known(schemas)
    values = _dotted(leaves, defaults, f"preset '{DEFAULTS}'")
    found = []
    for key, leaf in leaves.items():
        meaning, choices = leaf.metadata["help"], leaf.metadata["choices"]
        if choices is not None:
            meaning += f" ({', '.join(map(str, choices))})"
        readers = _readers(key, schemas)
        if len(readers) < len(schemas):
            meaning += f" [{_shortened(readers, schemas)}]"
        found.append(Listed(key, _shown(values[key]), meaning))
    return found


def _merge(
    schema: type,
    presets: Presets,
    names: Sequence[str],
    overrides: Mapping[str, str],
    siblings: Schemas,
) -> Layer:
    leaves = _leaves(schema)
    known = {**_known(siblings), **leaves}
    merged: Layer = {}
    for name in (DEFAULTS, *ordered(presets, names)):
        where = DEFAULTS if name == DEFAULTS else f"preset {name}"
        layer = _dotted(known, presets[name], f"preset '{name}'")
        read = {key: (value, where) for key, value in layer.items() if key in leaves}
        if layer and not read:
            raise UserError(
                f"preset '{name}' changes nothing that {_name(schema, siblings)} reads; it is for "
                f"{_shortened(_readers(next(iter(layer)), siblings), siblings)}"
            )
        merged |= read
        if name == DEFAULTS:
            _check_complete(schema, merged, f"preset '{DEFAULTS}'")
    for key, word in overrides.items():
        if key not in leaves:
            raise UserError(_unread(key, schema, siblings, list(known)))
        leaf = leaves[key]
        merged[key] = (convert(word, leaf.kind, leaf.metadata, f"--{key}"), COMMAND_LINE)
    return merged


def _dotted(
    leaves: Mapping[str, _Leaf], values: Mapping[str, Any], where: str, prefix: str = ""
) -> Values:
    """Check and convert a nested mapping into dotted keys."""
    flat: Values = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if dotted in leaves:
            leaf = leaves[dotted]
            flat[dotted] = convert(value, leaf.kind, leaf.metadata, f"{where}: {dotted}")
        elif not any(name.startswith(f"{dotted}.") for name in leaves):
            inside = [name.removeprefix(prefix) for name in leaves if name.startswith(prefix)]
            near = list(dict.fromkeys(name.partition(".")[0] for name in inside))
            raise UserError(f"{where}: {dotted} is not a setting{did_you_mean(str(key), near)}")
        elif isinstance(value, dict):
            flat |= _dotted(leaves, value, where, f"{dotted}.")
        else:
            raise UserError(f"{where}: {dotted} must be a section, it is {shown(value)}")
    return flat


def _build(schema: type[Schema], values: Values, prefix: str = "") -> Schema:
    given = {}
    for name, kind in typing.get_type_hints(schema).items():
        key = f"{prefix}{name}"
        nested = dataclasses.is_dataclass(kind)
        given[name] = _build(kind, values, f"{key}.") if nested else values[key]
    return schema(**given)


def _check_complete(schema: type, values: Mapping[str, Any], where: str) -> None:
    missing = [key for key in _leaves(schema) if key not in values]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")


def _leaves(schema: type) -> dict[str, _Leaf]:
    """Dotted key -> every setting, with the marks that it has or takes over from its section."""
    return _cached_leaves(schema)


@functools.cache
def _cached_leaves(schema: type) -> dict[str, _Leaf]:
    return _inside(schema, "", MARKS)


def _inside(schema: type, prefix: str, section: Mapping[str, Any]) -> dict[str, _Leaf]:
    hints = typing.get_type_hints(schema)
    leaves: dict[str, _Leaf] = {}
    for field in dataclasses.fields(schema):
        key, kind = f"{prefix}{field.name}", hints[field.name]
        own = {name: field.metadata[name] for name in MARKS}
        marked = {name: section[name] if x is None else x for name, x in own.items()}
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            leaves |= _inside(kind, f"{key}.", marked)
        else:
            leaves[key] = _Leaf(field.metadata, kind, marked)
    return leaves


def _known(schemas: Schemas) -> dict[str, _Leaf]:
    """The settings of all schemas together."""
    return {key: leaf for schema in schemas.values() for key, leaf in _leaves(schema).items()}


def _name(schema: type, siblings: Schemas) -> str:
    return next(name for name, other in siblings.items() if other is schema)


def _readers(key: str, siblings: Schemas) -> list[str]:
    return [name for name, schema in siblings.items() if key in _leaves(schema)]


def _shortened(readers: list[str], siblings: Schemas) -> str:
    """Names as a list; of names with two words, `b` for all of "... b", and `a` for all "a ..."."""
    words, left = [name.split() for name in siblings], list(readers)
    said = []
    for place in (1, 0):
        for word in dict.fromkeys(each[place] for each in words if len(each) > 1):
            group = [" ".join(each) for each in words if len(each) > 1 and each[place] == word]
            if set(group) <= set(left):
                said.append(word)
                left = [name for name in left if name not in group]
    return ", ".join([*said, *left])


def _unread(key: str, schema: type, siblings: Schemas, known: list[str]) -> str:
    """Why an override is refused: others read it, or nobody does."""
    readers = _readers(key, siblings)
    if readers:
        meant = _shortened(readers, siblings)
        return f"--{key} is not read by {_name(schema, siblings)}; it is for {meant}"
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


def _plain_leaves(config: Any) -> Values:
    """Dotted key -> plain value; a mapping that is one setting stays whole."""
    values = to_dict(config)
    found = {}
    for key in _leaves(type(config)):
        value = values
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
