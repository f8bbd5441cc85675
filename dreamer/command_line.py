"""The words of a command that takes presets and settings: --configs A B --key value."""

from __future__ import annotations

from collections.abc import Mapping

from dreamer.errors import UserError

FLAGS = {  # words that stand alone -> what they ask for
    "-h": "help",
    "--help": "help",
    "--print-config": "print-config",
    "--print_config": "print-config",
    "--profile": "profile",
}


def parse_command_line(
    argv: list[str], known: Mapping[str, str] = FLAGS
) -> tuple[list[str], dict[str, str], set[str]]:
    """(preset names, dotted overrides, flags) of `--configs a b --key value --key=value --help`.

    `known` are the words that are flags, and what each asks for.
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
