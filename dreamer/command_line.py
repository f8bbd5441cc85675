"""The words of a command that takes presets and settings: --configs A B --key value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dreamer.config import Layer, to_yaml
from dreamer.errors import NonFiniteError, UserError
from dreamer.signals import stop_code

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


def exit_code(command: Callable[[], int]) -> int:
    """What `command` returns, or the code of its error or signal, said in one line."""
    try:
        code = command()
    except KeyboardInterrupt as error:
        code = stop_code(error)
    except UserError as error:
        tell(f"error: {error}")
        return error.exit_code
    except NonFiniteError as error:
        tell(f"error: {error}")
        return 3
    if code > 128:  # by a signal
        tell("stopped; the same command continues")
    return code


def config_text(config: Any, origins: Layer) -> str:
    """The resolved configuration as YAML, and what set the values that are not defaults."""
    notes = [f"# {key}: {value} ({origin})" for key, (value, origin) in origins.items()]
    return "\n".join([to_yaml(config).rstrip("\n"), *notes])


def tell(text: str) -> None:
    """One line on stderr; of several processes that torchrun started, the first one says it."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{text}\n")


def say(text: str) -> None:
    """Print; a reader that has seen enough, such as `head`, is no error."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _take_values(words: list[str]) -> list[str]:
    given = []
    while words and not _is_option(words[0]):
        given.append(words.pop(0))
    return given


def _is_option(word: str) -> bool:
    return word.startswith("--") or word == "-h"
