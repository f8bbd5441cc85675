"""The command line of train.py: presets and settings in, exit code out."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from dreamer import command_line
from dreamer.command_line import config_text, exit_code, parse_command_line, say, tell
from dreamer.config import DEFAULTS, KINDS, Presets, changed, listed, load_presets
from dreamer.help_text import asked_for, help_text
from dreamer.signals import answers_signals
from fosp_ext.commands import as_called
from fosp_ext.config import (
    SCHEMAS,
    Config,
    TrainConfig,
    load_config,
    resolve_config,
    with_task_preset,
)
from fosp_ext.envs import check_task, task_folder
from fosp_ext.envs.variants import NONE, describe_variants
from fosp_ext.run.presets import PRESETS
from fosp_ext.settings import RecordingSettings

USAGE = """usage: python train.py --configs PRESET [PRESET ...] [--key value ...] [--print-config]
       python train.py --help [SECTION ...]

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
size, the recipe, the one of the task's own name, all others from left to right, the command line;
the later wins.
"""
FLAGS = {
    **command_line.FLAGS,
    "--help-variants": "help-variants",
    "--allow-task-mismatch": "allow-task-mismatch",
}
ALIASES = {**command_line.ALIASES, "from": "init_from"}
MIX = "dataset.mix"
MODE_GROUPS = {"collect": "record", "offline": "offline", "online": "online"}
WITHOUT = "without"  # presets that leave something out of a method
SHORT = {  # options that stand for a setting
    "allow-task-mismatch": ("online.allow_task_mismatch", "true"),
    "profile": ("run.profile", "10"),
}


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Parse, resolve, run; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    return exit_code(partial(command, words))


def command(argv: list[str]) -> int:
    """The same, with its errors."""
    presets = load_presets(PRESETS)
    wanted = asked_for(argv)
    if wanted is not None:
        say(help_text(as_called(USAGE), groups(presets), SCHEMAS, presets[DEFAULTS], wanted))
        return 0
    settings = [item.key for item in listed(SCHEMAS, presets[DEFAULTS])]
    names, overrides, flags = parse_command_line(argv, FLAGS, presets, settings)
    if "help-variants" in flags:
        say(describe_variants())
        return 0
    overrides = {ALIASES.get(key, key): value for key, value in overrides.items()}
    overrides |= dict(SHORT[flag] for flag in flags & SHORT.keys())
    names, overrides = complete(presets, names, overrides)
    config = resolve_config(presets, names, overrides)
    if "print-config" in flags:
        applied = with_task_preset(presets, names, overrides)
        say(config_text(config, changed(type(config), presets, applied, overrides, SCHEMAS)))
        return 0
    from fosp_ext.run.modes import run_mode  # torch is imported here, not for --help

    return run_mode(config)


def groups(presets: Presets) -> dict[str, list[str]]:
    """The names of the presets by what they are for."""
    found: dict[str, list[str]] = {group: [] for group in (*MODE_GROUPS.values(), WITHOUT, *KINDS)}
    for name, preset in presets.items():
        group = MODE_GROUPS.get(str(preset.get("mode")), WITHOUT)
        if name != DEFAULTS:
            found[next((kind for kind in KINDS if kind in preset), group)].append(name)
    return found


def complete(
    presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Add what is not named (size, recipe, the only policy), fill in placeholders of `logdir`."""
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
    overrides = {**overrides, **only_policy(config, presets, names, overrides)}
    label = [*names, *added.values()]
    if config.env.variant != NONE.name:
        label.append(config.env.variant)
    fill = {"task": task_folder(config.task), "preset": "-".join(label), "seed": config.seed}
    logdir = config.logdir
    for key, value in fill.items():
        logdir = logdir.replace(f"{{{key}}}", str(value))
    return [*names, *added.values()], {**overrides, "logdir": logdir}


def only_policy(
    config: Config, presets: Presets, names: Sequence[str], overrides: Mapping[str, str]
) -> dict[str, str]:
    """The mix of a recording where a task has one policy and no mix is named, else nothing."""
    named = MIX in overrides or any("mix" in presets[name].get("dataset", {}) for name in names)
    if named or not isinstance(config.dataset, RecordingSettings):
        return {}
    from fosp_ext.envs.scripted import available_policies  # numpy is imported here

    policies = available_policies(check_task(config.task))
    if len(policies) > 1:
        return {}
    if config.mode == "collect":
        tell(f"recording with the policy '{policies[0]}', the only one for {config.task}")
    return {MIX: f"{policies[0]}=1"}


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
