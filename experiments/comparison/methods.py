"""The methods that are compared: which presets they are, and which offline runs they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dreamer.config import Presets, flatten, load_presets
from dreamer.errors import UserError, did_you_mean
from fosp_ext.config import (
    FOSPOnline,
    OfflineConfig,
    OnlineConfig,
    choose_schema,
    read_by,
    resolve_config,
)
from fosp_ext.run.presets import PRESETS

PHASES = ("offline", "online")
OFFLINE = {"fosp": "fosp_offline"}  # other methods have an offline preset of their own name
OWN = {  # settings that the commands of a comparison name themselves -> the option that says so
    "mode": "--methods",
    "method": "--methods",
    "size": "--size",
    "recipe": "--recipe",
    "task": "--task",
    "seed": "--seeds",
    "logdir": "--out",
    "threads": "--threads",
    "device": None,
    "env.variant": "--variant",
    "dataset.path": "--dataset",
    "dataset.episodes": "--episodes",
    "run.updates": "--updates",
    "run.eval_every": None,
    "init_from": None,
    "online.steps": "--online-steps",
}


@dataclass(frozen=True)
class Method:
    """A method as it is compared, such as `fosp` or `fosp-no_policy_set`."""

    name: str
    offline: str  # the name whose offline run it goes on from
    expanded: bool  # online, a policy set acts
    diagnosed: bool  # is its offline run asked by `experiments.diagnose`?
    envs: int  # environments of its online run
    ratio: float  # updates per agent step, online
    alone: float  # share of the offline updates that teach a world model others could use; 0: none


def offline_names(methods: Sequence[Method]) -> list[str]:
    """The names of the offline runs that the methods go on from, each once, in order."""
    return list(dict.fromkeys(method.offline for method in methods))


def shared_part(methods: Sequence[Method]) -> float:
    """Share of the updates that one world model learns alone for several offline runs; or 0.

    It is the same for all of them: the recipe decides it, not the method.
    """
    shares = {method.offline: method.alone for method in methods if method.alone}
    return next(iter(shares.values())) if len(shares) > 1 else 0.0


def preset_names(name: str, phase: str) -> list[str]:
    """The presets of a method in a phase, "offline" or "online", without size and recipe."""
    base, *parts = name.split("-")
    return [_offline(base) if phase == "offline" else f"{base}_online", *parts]


def read_settings(texts: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as settings of train.py; what it does not know, `read_methods` refuses."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"--set takes KEY=VALUE, such as lagrange.penalty=1e-8, not '{text}'")
        if key in OWN:
            hint = f", by {OWN[key]}" if OWN[key] else ""
            raise UserError(f"--set {key}: the comparison sets it itself{hint}")
        found[key] = value
    return found


def read_methods(text: str, scale: Sequence[str], settings: Mapping[str, str]) -> list[Method]:
    """Methods of a comma-separated list; what is unknown is a `UserError`.

    `scale` are the size and the recipe. Each of the settings must be read by one of the methods.
    """
    presets = load_presets(PRESETS)
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    methods = [_method(name, scale, presets, settings) for name in names]
    commands = [["collect"], *(preset_names(m.name, phase) for m in methods for phase in PHASES)]
    for key, value in settings.items():
        if not any(settings_for({key: value}, words, presets) for words in commands):
            resolve_config(presets, commands[1], {key: value})  # says why
    return methods


def settings_for(
    settings: Mapping[str, str], names: Sequence[str], presets: Presets | None = None
) -> dict[str, str]:
    """Those of the settings that a command with these presets reads."""
    return read_by(choose_schema(presets or load_presets(PRESETS), names, {}), settings)


def _method(
    name: str, scale: Sequence[str], presets: Presets, settings: Mapping[str, str]
) -> Method:
    base, *parts = name.split("-")
    bases = [word.removesuffix("_online") for word in presets if word.endswith("_online")]
    ablations = [word for word in presets if word.startswith("no_")]
    if base not in bases:
        raise UserError(f"no method '{base}'{did_you_mean(base, bases)} ({', '.join(bases)})")
    for part in parts:
        if part not in ablations:
            hint = did_you_mean(part, ablations)
            raise UserError(f"{name}: no part '{part}'{hint} ({', '.join(ablations)})")
        if not base.startswith("fosp"):
            raise UserError(f"{name}: only fosp has parts that can be left out")
    _check_own(name, presets, settings)
    names = preset_names(name, "online")
    online = resolve_config(presets, [*names, *scale], settings_for(settings, names, presets))
    assert isinstance(online, OnlineConfig)  # as its presets say
    # A part that the offline phase does not read leaves the offline run as it is.
    matter = [
        part for part in parts if settings_for(flatten(presets[part]), [_offline(base)], presets)
    ]
    offline = "-".join([base, *matter])
    return Method(
        name=name,
        offline=offline,
        expanded=isinstance(online, FOSPOnline) and online.policy_set.enabled,
        diagnosed=online.method == "fosp" and online.dataset.holdout > 0,
        envs=online.online.envs,
        ratio=online.online.ratio,
        # dreamerv3 has no cost decoder, so its model is another one
        alone=0.0
        if online.method == "dreamerv3"
        else offline_config(offline, scale, settings, presets).run.pretrain,
    )


def _check_own(name: str, presets: Presets, settings: Mapping[str, str]) -> None:
    """Refuse to change what makes the method what it is."""
    for preset in dict.fromkeys([*preset_names(name, "offline"), *preset_names(name, "online")]):
        for key in flatten(presets[preset]).keys() & settings.keys():
            raise UserError(f"--set {key}: {name} has a value of its own, in the preset {preset}")


def _offline(base: str) -> str:
    """The offline preset of a method."""
    return OFFLINE.get(base, base)


def offline_config(
    name: str, scale: Sequence[str], settings: Mapping[str, str], presets: Presets | None = None
) -> OfflineConfig:
    """The settings of an offline run, of which it takes those that it reads."""
    known, names = presets or load_presets(PRESETS), preset_names(name, "offline")
    config = resolve_config(known, [*names, *scale], settings_for(settings, names, known))
    assert isinstance(config, OfflineConfig)  # as its presets say
    return config
