"""Variants of the tasks, unseen in training: the changes of each, declared as data.

`variant_world.py` carries the changes out. Importing this imports no simulator.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import reduce
from typing import Any

from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs.tasks import check_task, is_custom

Area = tuple[float, float, float, float]  # x and y from, x and y to; the arena is (-1, -1, 1, 1)

_TASK = re.compile(r"^Safety[A-Z][a-z]+?(?:Goal|Button|Push|FadingEasy|FadingHard)(\d)-v0$")


@dataclass(frozen=True)
class Shape:
    """Shape that an object is drawn with; its circle on the floor, which decides costs, stays."""

    geom: str  # a MuJoCo geom: "cylinder" or "ellipsoid"
    height: float  # in radii of the object


@dataclass(frozen=True)
class Variant:
    """A change of a task, declared field by field; a default value changes nothing."""

    name: str
    description: str
    hazard_count: float = 1.0  # times as many, rounded up
    hazard_size: float = 1.0  # times the radius, in the image and in the rule of cost
    hazard_areas: tuple[Area, ...] = ()  # where hazards lie; empty: wherever the task puts them
    hazard_shape: Shape | None = None
    goal_shape: Shape | None = None
    swap_colours: bool = False  # goal and hazards exchange theirs; each keeps its transparency
    lamp: float = 1.0  # brightness of the lamp above the arena; the one at the camera stays
    pixel_noise: float = 0.0  # standard deviation in grey levels of 255, drawn anew for each pixel

    @property
    def changes(self) -> dict[str, object]:
        """The fields that differ from their defaults, without name and description."""
        values = {field: getattr(self, field.name) for field in dataclasses.fields(self)[2:]}
        return {field.name: value for field, value in values.items() if value != field.default}

    @property
    def needs(self) -> frozenset[str]:
        """The objects a task must have: "hazards", "goal", both or neither."""
        needs = set()
        for name in self.changes:
            if name.startswith("hazard") or name == "swap_colours":
                needs.add("hazards")
            if name.startswith("goal") or name == "swap_colours":
                needs.add("goal")
        return frozenset(needs)


NONE = Variant("none", "the task as it is")
_ALL = (
    NONE,
    Variant("more_hazards", "half as many hazards again", hazard_count=1.5),
    Variant("large_hazards", "hazards of 1.5 times the radius, costing as far", hazard_size=1.5),
    Variant(
        "clustered",
        "hazards crowd in two opposite quarters of the arena",
        hazard_areas=((-1, -1, 0, 0), (0, 0, 1, 1)),
    ),
    Variant(
        "belt",
        "hazards lie in a belt across the middle of the arena",
        hazard_areas=((-1, -1 / 3, 1, 1 / 3),),
    ),
    Variant(
        "columns",
        "hazards stand up as columns, as wide as the discs were",
        hazard_shape=Shape("cylinder", height=2.5),
    ),
    Variant(
        "ball_goal",
        "the goal is a ball instead of a flat cylinder, as wide as that",
        goal_shape=Shape("ellipsoid", height=2.0),
    ),
    Variant("swapped_colours", "the goal is blue and the hazards are green", swap_colours=True),
    Variant("night", "the light from above is dim", lamp=0.15),
    Variant("noise", "every pixel is noisy, by 20 of 255 grey levels", pixel_noise=20.0),
)
VARIANTS = {variant.name: variant for variant in _ALL}


def objects_of(task: str) -> frozenset[str]:
    """The objects of a task, of "goal" and "hazards"; a custom environment has neither."""
    found = _TASK.match(task)
    if found is None:
        return frozenset()
    return frozenset({"goal"} if found[1] == "0" else {"goal", "hazards"})


def check_variant(name: str, task: str) -> Variant:
    """The variant of that name, or of several joined by `+`, whose order does not matter.

    Unknown names, variants that do not fit the task and two that change the same are a `UserError`.
    """
    task, known, parts = check_task(task), list(VARIANTS), name.split("+")
    for part in parts:
        if part not in VARIANTS:
            hint = did_you_mean(part, known)
            raise UserError(f"unknown variant '{part}'{hint} (known: {', '.join(known)})")
        _check_fits(VARIANTS[part], task)
    return reduce(_join, [VARIANTS[part] for part in sorted(parts, key=known.index)])


def describe_variants() -> str:
    """Help for `--env.variant`: one line for each variant, and the tasks they fit."""
    width = max(map(len, VARIANTS))
    lines = ["--env.variant NAME, or several joined by +, such as night+more_hazards:", ""]
    for name, variant in VARIANTS.items():
        needs = " and ".join(sorted(variant.needs))
        suffix = f" (needs {needs})" if needs else ""
        lines.append(f"  {name:<{width}}  {variant.description}{suffix}")
    lines += [
        "",
        "Goal, Button, Push and Fading tasks have a goal, and hazards from level 1;",
        "Circle and Run tasks have neither. Custom environments take only 'none'.",
    ]
    return "\n".join(lines)


def _check_fits(variant: Variant, task: str) -> None:
    if is_custom(task) and variant.changes:
        raise UserError(f"variants change Safety-Gymnasium tasks, not '{task}'; leave it at 'none'")
    present = objects_of(task)
    if variant.needs <= present:
        return
    fitting = [name for name, other in VARIANTS.items() if other.needs <= present]
    missing = " and no ".join(sorted(variant.needs - present))
    raise UserError(
        f"variant '{variant.name}' does not fit {task}, which has no {missing} "
        f"(fitting: {', '.join(fitting)})"
    )


def _join(one: Variant, other: Variant) -> Variant:
    """Both changes at once; `none` adds nothing."""
    if not one.changes or not other.changes:
        return one if one.changes else other
    both = one.changes.keys() & other.changes.keys()
    if both:
        what = " and ".join(sorted(both)).replace("_", " ")
        raise UserError(f"variants '{one.name}' and '{other.name}' both change the {what}")
    changes: dict[str, Any] = {
        "name": f"{one.name}+{other.name}",
        "description": f"{one.description}; {other.description}",
        **other.changes,
    }
    return dataclasses.replace(one, **changes)
