"""The command line of train.py: presets and settings in, exit code out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from dreamer.command_line import parse_command_line
from dreamer.config import changed, describe, load_presets, load_yaml, resolve, to_yaml
from dreamer.errors import NonFiniteError, UserError
from fosp_ext.envs import task_folder
from fosp_ext.envs.variants import NONE, describe_variants
from fosp_ext.run.presets import PRESETS
from fosp_ext.settings import ADDED, Config

USAGE = """usage: python train.py --configs PRESET [PRESET ...] [--key value ...] [--print-config]

  python train.py --configs collect                      record a dataset with scripted policies
  python train.py --configs fosp_offline                 train FOSP on it (size by hardware)
  python train.py --configs fosp_offline cpu --seed 1    name the size, change a setting
  python train.py --configs fosp_online --from RUN --env.variant clustered
                                                         fine-tune it in an unseen variant
  python train.py --help-variants                        unseen variants for --env.variant
  torchrun --nproc_per_node 4 train.py --configs fosp_offline
                                                         on four GPUs (docs/scaling.md)
  python train.py --configs fosp_offline --profile       trace ten updates into RUN/profile
The same command continues an interrupted run. Presets are merged from left to right.
"""
SHORT = {  # options that stand for a setting
    "allow-task-mismatch": ("online.allow_task_mismatch", "true"),
    "profile": ("run.profile", "10"),
}


def main(argv: list[str]) -> int:
    """Parse, resolve, run; returns the exit code."""
    try:
        presets = load_presets(PRESETS)
        names, overrides, flags = parse_command_line(argv)
        if "help" in flags or not argv:
            names = [name for name in presets if name != "defaults"]
            say(f"{USAGE}\npresets: {', '.join(names)}\n")
            say(f"settings and defaults:\n{describe(Config, presets['defaults'])}")
            return 0
        if "help-variants" in flags:
            say(describe_variants())
            return 0
        if "from" in overrides:
            overrides["online.source"] = overrides.pop("from")
        overrides |= dict(SHORT[flag] for flag in flags & SHORT.keys())
        names, overrides = complete(presets, names, overrides)
        config = resolve(Config, presets, names, overrides)
        if "print-config" in flags:
            say(config_text(config, changed(Config, presets, names, overrides)))
            return 0
        from fosp_ext.run.modes import run_mode  # torch is imported here, not for --help

        code = run_mode(config)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except UserError as error:
        tell(f"error: {error}")
        return error.exit_code
    except NonFiniteError as error:
        tell(f"error: {error}; the last checkpoint is intact")
        return 3
    if code > 128:  # by a signal
        tell("stopped; the same command continues")
    return code


def complete(
    presets: dict, names: list[str], overrides: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Add a size by hardware where none is named, and fill in the placeholders of `logdir`."""
    config = resolve(Config, presets, names, overrides)
    if config.online.source and config.mode != "online":
        raise UserError(
            f"--from is for online presets such as {config.method}_online, mode {config.mode} has "
            "nothing to go on from"
        )
    label = list(names)
    if config.mode != "collect" and config.size == "auto":
        size, reason = size_for(config)
        tell(f"no size preset named: taking '{size}' {reason}")
        names, label = [size, *names], [*names, size]
    if config.env.variant != NONE.name:
        label.append(config.env.variant)
    fill = {"task": task_folder(config.task), "preset": "-".join(label), "seed": config.seed}
    logdir = config.logdir
    for key, value in fill.items():
        logdir = logdir.replace(f"{{{key}}}", str(value))
    return names, {**overrides, "logdir": logdir}


def size_for(config: Config) -> tuple[str, str]:
    """The size of the run to go on from; else the full one on a GPU, or the one for two cores."""
    source = Path(config.online.source or "-")
    settings = (source if source.is_dir() else source.parent.parent) / "config.yaml"
    if config.online.source and settings.is_file():
        return load_yaml(Config, settings, ADDED).size, f"of {source}"
    from dreamer.utils import choose_device

    return ("cpu" if choose_device(config.device).type == "cpu" else "fosp"), "on this machine"


def config_text(config: Config, origins: dict[str, tuple[Any, str]]) -> str:
    """The resolved configuration as YAML, and what set the values that are not defaults."""
    notes = [f"# {key}: {value} ({origin})" for key, (value, origin) in origins.items()]
    return "\n".join([to_yaml(config).rstrip("\n"), *notes])


def tell(text: str) -> None:
    """One line on stderr; of several processes that torchrun started, the first one says it."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


def say(text: str) -> None:
    """Print; a reader that has seen enough, such as `head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
