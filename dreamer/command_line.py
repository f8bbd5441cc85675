"""The words of a command that takes presets and settings: --configs A B --key value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dreamer.boundary import guarded, tell
from dreamer.config import Layer, to_yaml
from dreamer.errors import UserError, shown

__all__ = ["config_text", "exit_code", "parse_command_line", "say", "tell"]

CONTINUES = "stopped; the same command continues"
FLAGS = {  # words that stand alone -> what they ask for
    "--print-config": "print-config",
    "--print_config": "print-config",
    "--profile": "profile",
}
ALIASES = {"logger": "run.logger"}  # shorter names of settings


def parse_command_line(
    argv: list[str],
    known: Mapping[str, str] = FLAGS,
    presets: Collection[str] = (),
    settings: Collection[str] = (),
) -> tuple[list[str], dict[str, str], set[str]]:
    """(preset names, dotted overrides, flags) of `--configs a b --key value --key=value --profile`.

    `known` are the words that are flags, and what each asks for. Names of `presets` and `settings`
    that stand where none can be understood get a hint of their own.
    """
    names: list[str] = []
    overrides: dict[str, str] = {}
    flags: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word in known:
            flags.add(known[word])
        elif not word.startswith("--") or not key:
            raise UserError(_not_understood(word, names, presets, settings))
        elif key == "configs":
            given = [value] if equals else _take_values(words)
            if not given or "" in given:
                raise UserError("--configs needs the name of at least one preset")
            for name in given:
                if name not in presets and _meant_setting(name, settings):
                    raise UserError(_not_understood(name, names, presets, settings))
            names += given
        elif equals:
            overrides[key] = value
        elif words and not _is_option(words[0]):
            overrides[key] = words.pop(0)
        else:
            raise UserError(f"{word} needs a value")
    return names, overrides, flags


def exit_code(command: Callable[[], int]) -> int:
    """What `command` returns, or the code of its error or signal, said in one line."""

    def run() -> int:
        code = command()
        if code > 128:  # by a signal
            tell(CONTINUES)
        return code

    return guarded(run, CONTINUES)


def config_text(config: Any, origins: Layer) -> str:
    """The resolved configuration as YAML, and what set the values that are not defaults."""
    notes = [f"# {key}: {value} ({origin})" for key, (value, origin) in origins.items()]
    return "\n".join([to_yaml(config).rstrip("\n"), *notes])


def say(text: str) -> None:
    """Print; a reader that has seen enough, such as `head`, is no error."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _not_understood(
    word: str, names: Sequence[str], presets: Collection[str], settings: Collection[str]
) -> str:
    """Why a word that is neither an option nor the value of one is refused, and what was meant."""
    said = f"{shown(word)} is not understood"
    bare, equals, _ = word.lstrip("-").partition("=")
    meant = _meant_setting(bare, settings)
    if bare in presets and not equals:
        together = " ".join([*names, bare])
        return f"{said}: it is a preset, and presets stand together: --configs {together}"
    if meant:
        given = "=..." if equals else " VALUE"
        return f"{said}: a setting begins with two dashes, --{meant}{given}"
    return f"{said}; write --configs NAMES or --key value"


def _meant_setting(word: str, settings: Collection[str]) -> str:
    """The setting of this name, with or without its section, or nothing."""
    return next((key for key in settings if word in (key, key.rpartition(".")[2])), "")


def _take_values(words: list[str]) -> list[str]:
    given = []
    while words and not _is_option(words[0]):
        given.append(words.pop(0))
    return given


def _is_option(word: str) -> bool:
    return word.startswith("--") or word == "-h"
