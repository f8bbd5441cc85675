"""The command line of `python -m dreamer`: plain DreamerV3 in an environment, or on a dataset."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dreamer.command_line import ALIASES, FLAGS, config_text, exit_code, parse_command_line, say
from dreamer.config import DEFAULTS, changed, listed, load_presets, resolve
from dreamer.errors import UserError
from dreamer.help_text import asked_for, help_text
from dreamer.signals import answers_signals
from dreamer.training.config import SCHEMAS, DreamerConfig

PRESETS = Path(__file__).with_name("configs.yaml")
USAGE = """usage: python -m dreamer [--configs PRESET ...] --env.id ID | --dataset.path FILE
                         [--key value ...] [--print-config] | --help [SECTION ...]

  python -m dreamer --configs cpu --env.id dreamer.envs.reach:Reach
                                          learn a small task from scratch
  python -m dreamer --env.id CarRacing-v2 any Gymnasium environment with continuous actions
  python -m dreamer --env.id MODULE:NAME  an environment, class or function of your own
  python -m dreamer --dataset.path FILE   learn from recorded episodes alone
                                          (docs/reference/data_format.md)
The same command continues an interrupted run. Presets are applied from left to right, then the
command line; the later wins.
"""


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Parse, resolve, run; returns the exit code."""
    return exit_code(partial(command, sys.argv[1:] if argv is None else argv))


def command(argv: list[str]) -> int:
    """The same, with its errors."""
    presets = load_presets(PRESETS)
    known = [name for name in presets if name != DEFAULTS]
    wanted = asked_for(argv)
    if wanted is not None:
        say(help_text(USAGE, {"size": known}, SCHEMAS, presets[DEFAULTS], wanted))
        return 0
    settings = [item.key for item in listed(SCHEMAS, presets[DEFAULTS])]
    names, words, flags = parse_command_line(argv, FLAGS, known, settings)
    overrides = {ALIASES.get(key, key): value for key, value in words.items()}
    if "profile" in flags:
        overrides["run.profile"] = "10"
    schema = SCHEMAS["offline" if overrides.get("dataset.path") else "online"]
    config = resolve(schema, presets, names, overrides, SCHEMAS)
    overrides["logdir"] = fill(config, overrides)
    config = resolve(schema, presets, names, overrides, SCHEMAS)
    if "print-config" in flags:
        say(config_text(config, changed(schema, presets, names, overrides, SCHEMAS)))
        return 0
    from dreamer.training.train import train  # torch is imported here, not for --help

    return train(config)


def fill(config: DreamerConfig, overrides: Mapping[str, str]) -> str:
    """The run folder, its placeholders filled in."""
    data = config.env.id or Path(overrides.get("dataset.path", "")).stem
    if not data:
        raise UserError("name an environment, --env.id ID, or recorded episodes, --dataset.path F")
    folder = config.logdir.replace("{data}", re.sub("[:/]", "-", data))
    return folder.replace("{seed}", str(config.seed))


if __name__ == "__main__":
    sys.exit(main())
