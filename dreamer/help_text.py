"""What --help prints: a screen with what is asked for most, and the settings by section."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dreamer.config import Listed, Schemas, listed
from dreamer.errors import UserError, did_you_mean

FLAGS = ("-h", "--help")
WIDTH = 100
ALL, GENERAL = "all", "general"  # every setting; those that stand in no section


def asked_for(argv: Sequence[str]) -> list[str] | None:
    """The sections behind --help, of a command without words none; None where no help is asked."""
    if not argv:
        return []
    place = next((place for place, word in enumerate(argv) if word in FLAGS), None)
    if place is None:
        return None
    behind = argv[place + 1 :]
    end = next((end for end, word in enumerate(behind) if word.startswith("-")), len(behind))
    return list(behind[:end])


def help_text(
    usage: str,
    presets: Mapping[str, Sequence[str]],
    schemas: Schemas,
    defaults: Mapping[str, Any],
    names: Sequence[str],
) -> str:
    """The screen, or the settings of the sections that are named.

    `presets` are the names of presets by what they are for.
    """
    if names:
        return describe(schemas, defaults, names)
    return "\n".join([usage, *preset_lines(presets), "", *section_lines(schemas, defaults)])


def preset_lines(presets: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of the presets, a line for each group."""
    width = max(len(group) for group in presets) + 4
    lines = ["presets:"]
    for group, names in presets.items():
        first = f"  {group}".ljust(width)
        lines += textwrap.wrap(
            " ".join(names), WIDTH, initial_indent=first, subsequent_indent=" " * width
        )
    return lines


def section_lines(schemas: Schemas, defaults: Mapping[str, Any]) -> list[str]:
    """The sections of the settings, and how to see them."""
    count = len(listed(schemas, defaults))
    meant = {GENERAL: "task, run folder, seed, device", **sections(schemas, defaults)}
    width = max(map(len, meant))
    return [
        f"settings ({count}), as --SECTION.NAME VALUE; --help SECTION lists those of a section,",
        f"--help {ALL} every one:",
        *(f"  {name:<{width}}  {meaning}" for name, meaning in meant.items()),
    ]


def describe(schemas: Schemas, defaults: Mapping[str, Any], names: Sequence[str]) -> str:
    """The settings of these sections with default and meaning, one per line.

    A setting that only some of the schemas read is followed by their names.
    """
    known = [ALL, GENERAL, *sections(schemas, defaults)]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" (there are {', '.join(known)})"
            raise UserError(f"'{name}' is not a section of settings{hint}")
    shown = [item for item in listed(schemas, defaults) if ALL in names or _section(item) in names]
    widths = [max(len(item[column]) for item in shown) for column in (0, 1)]
    return "\n".join(
        f"  --{item.key:<{widths[0]}}  {item.default:<{widths[1]}}  {item.meaning}"
        for item in shown
    )


def sections(schemas: Schemas, defaults: Mapping[str, Any]) -> dict[str, str]:
    """The sections of the first level and what they are about."""
    fields = [field for schema in schemas.values() for field in dataclasses.fields(schema)]
    meant = {field.name: field.metadata["help"] for field in reversed(fields)}
    names = dict.fromkeys(_section(item) for item in listed(schemas, defaults))
    return {name: meant[name] for name in names if name != GENERAL}


def _section(item: Listed) -> str:
    section, dot, _ = item.key.partition(".")
    return section if dot else GENERAL
