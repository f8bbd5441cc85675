"""The command line of train.py: presets and settings in, exit code out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer.command_line import parse_command_line
from dreamer.config import KINDS, Presets, changed, describe, load_presets, to_yaml
from dreamer.errors import NonFiniteError, UserError
from fosp_ext.config import SCHEMAS, Config, TrainConfig, load_config, resolve_config
from fosp_ext.envs import task_folder
from fosp_ext.envs.variants import NONE, describe_variants
from fosp_ext.run.presets import PRESETS

USAGE = """usage: python train.py --configs PRESET [PRESET ...] [--key value ...] [--print-config]

  python train.py --configs collect                      record a dataset with scripted policies
  python train.py --configs fosp_offline                 train FOSP on it, in the size and by the
                                                         recipe that suit this machine
  python train.py --configs fosp_offline small paper --seed 1
                                                         name size and recipe, change a setting
  python train.py --configs fosp_online --from RUN --env.variant clustered
                                                         fine-tune it in an unseen variant
  python train.py --help-variants                        unseen variants for --env.variant
  torchrun --nproc_per_node 4 train.py --configs fosp_offline
                                                         on four GPUs (docs/reference/scaling.md)
  python train.py --configs fosp_offline --profile       trace ten updates into RUN/profile
The same command continues an interrupted run. Presets are applied in this order: `defaults`, the
size, the recipe, all others from left to right, the command line; the later wins.
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
            say(f"settings and defaults:\n{describe(SCHEMAS, presets['defaults'])}")
            return 0
        if "help-variants" in flags:
            say(describe_variants())
            return 0
        if "from" in overrides:
            overrides["init_from"] = overrides.pop("from")
        overrides |= dict(SHORT[flag] for flag in flags & SHORT.keys())
        names, overrides = complete(presets, names, overrides)
        config = resolve_config(presets, names, overrides)
        if "print-config" in flags:
            say(config_text(config, changed(type(config), presets, names, overrides, SCHEMAS)))
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
    presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Add a size and a recipe where none is named, and fill in the placeholders of `logdir`."""
    config = resolve_config(presets, names, overrides)
    added: dict[str, str] = {}
    if isinstance(config, TrainConfig):
        named = {kind for kind in KINDS if any(kind in presets[name] for name in names)}
        missing = [kind for kind in KINDS if kind not in named and kind not in overrides]
        chosen, reason = size_and_recipe(config, named)
        added = {kind: chosen[kind] for kind in missing}
        if added:
            said = " and ".join(f"{kind} '{name}'" for kind, name in added.items())
            tell(f"taking {said} {reason}")
    label = [*names, *added.values()]
    if config.env.variant != NONE.name:
        label.append(config.env.variant)
    fill = {"task": task_folder(config.task), "preset": "-".join(label), "seed": config.seed}
    logdir = config.logdir
    for key, value in fill.items():
        logdir = logdir.replace(f"{{{key}}}", str(value))
    return [*names, *added.values()], {**overrides, "logdir": logdir}


def size_and_recipe(config: TrainConfig, named: Collection[str]) -> tuple[dict[str, str], str]:
    """What to take where no size or no recipe is named, and why.

    Those of the run to go on from; else, where neither is named, what suits the hardware; else the
    recipe of the paper, in the size that suits the hardware.
    """
    source = Path(config.init_from)
    settings = (source if source.is_dir() else source.parent.parent) / "config.yaml"
    if config.init_from and settings.is_file():
        before = load_config(settings)
        return {"size": before.size, "recipe": before.recipe}, f"of {source}"
    from dreamer.utils import choose_device

    small = choose_device(config.device).type == "cpu"
    size, here = ("cpu", "no GPU") if small else ("full", "a GPU")
    if named:
        return {"size": size, "recipe": "paper"}, f"as none is named; this machine has {here}"
    recipe = "quick" if small else "paper"
    return {"size": size, "recipe": recipe}, f"as none is named and this machine has {here}"


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
