"""Variants of the tasks, unseen in training: the changes of each, declared as data.

`variant_world.py` carries the changes out in Safety-Gymnasium, `safe_reach/scene.py` in SafeReach.
Importing this imports no simulator.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import reduce
from typing import Any

from dreamer.errors import UserError, did_you_mean
from fosp_ext.envs.tasks import REACH, check_task, is_custom

Area = tuple[float, float, float, float]  # x and y from, x and y to; the arena is (-1, -1, 1, 1)

_OBJECTS = {"hazard": "hazards", "obstacle": "obstacles", "goal": "goal"}  # in names of fields
_TASK = re.compile(r"^Safety[A-Z][a-z]+?(?:Goal|Button|Push|FadingEasy|FadingHard)(\d)-v0$")


@dataclass(frozen=True)
class Shape:
    """Shape that an object is drawn with; its circle on the floor, which decides costs, stays."""

    geom: str  # a MuJoCo geom: "cylinder", "ellipsoid" or "box"
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
    obstacle_stretch: tuple[float, float] = (1.0, 1.0)  # times as deep and as wide
    obstacles_added: tuple[int, int] = (0, 0)  # least and most; an episode draws how many
    goal_shape: Shape | None = None
    swap_colours: bool = False  # goal and what costs exchange theirs; each keeps its transparency
    lamp: float = 1.0  # brightness of the lamp above the arena; the one at the camera stays
    pixel_noise: float = 0.0  # standard deviation in grey levels of 255, drawn anew for each pixel

    @property
    def changes(self) -> dict[str, object]:
        """The fields that differ from their defaults, without name and description."""
        values = {field: getattr(self, field.name) for field in dataclasses.fields(self)[2:]}
        return {field.name: value for field, value in values.items() if value != field.default}

    @property
    def needs(self) -> frozenset[str]:
        """The objects a task must have, such as "goal"; "a or b" is one or the other."""
        begins = _OBJECTS.items()
        needs = {kind for name in self.changes for word, kind in begins if name.startswith(word)}
        if self.swap_colours:
            needs |= {"goal", "hazards or obstacles"}
        return frozenset(needs)

    def missing(self, present: frozenset[str]) -> list[str]:
        """The objects it needs that are not among those present."""
        return sorted(need for need in self.needs if present.isdisjoint(need.split(" or ")))


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
    Variant(
        "goal_cube",
        "the goal is a cube instead of a cylinder, as wide as that",
        goal_shape=Shape("box", height=2.0),
    ),
    Variant(
        "slabs",
        "obstacles are two thirds as deep and five thirds as wide",
        obstacle_stretch=(2 / 3, 5 / 3),
    ),
    Variant("more_obstacles", "three or four obstacles instead of two", obstacles_added=(1, 2)),
    Variant(
        "swapped_colours",
        "the goal has the colour of hazards or obstacles, and they have the goal's",
        swap_colours=True,
    ),
    Variant("night", "the light from above is dim", lamp=0.15),
    Variant("noise", "every pixel is noisy, by 20 of 255 grey levels", pixel_noise=20.0),
)
VARIANTS = {variant.name: variant for variant in _ALL}


def objects_of(task: str) -> frozenset[str]:
    """The objects of a task that variants can change; a custom environment has none."""
    if task == REACH:
        return frozenset({"goal", "obstacles"})
    found = _TASK.match(task)
    if found is None:
        return frozenset()
    return frozenset({"goal"} if found[1] == "0" else {"goal", "hazards"})


def fitting_variants(task: str) -> tuple[str, ...]:
    """Names of the variants that fit a built-in task."""
    present = objects_of(task)
    return tuple(name for name, variant in VARIANTS.items() if not variant.missing(present))


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
        "Goal, Button, Push and Fading tasks have a goal, and hazards from level 1; SafeReach has",
        "a goal and obstacles. Circle and Run tasks have none of them. Custom environments take",
        "only 'none'.",
    ]
    return "\n".join(lines)


def _check_fits(variant: Variant, task: str) -> None:
    if is_custom(task) and variant.changes:
        raise UserError(f"variants change built-in tasks, not '{task}'; leave it at 'none'")
    missing = " and no ".join(variant.missing(objects_of(task)))
    if missing:
        raise UserError(
            f"variant '{variant.name}' does not fit {task}, which has no {missing} "
            f"(fitting: {', '.join(fitting_variants(task))})"
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
