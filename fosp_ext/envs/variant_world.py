"""Apply a variant to a Safety-Gymnasium world: to its task, its XML and its images.

Everything that a variant does not name stays as it is in the task itself with the same seed: the
places of the other objects, headings, the physics. Only what is drawn later and meets the changed
objects, such as the next goal, may turn out differently.
"""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from fosp_ext.envs.variants import Shape, Variant

TRIES = 200  # places tried for one hazard
ROUNDS = 20  # times that all hazards are tried in one layout of the other objects
LAYOUTS = 500  # layouts of the other objects tried before a seed is given up
ANYWHERE = ((-1, -1, 1, 1),)


def change_task_(task: Any, variant: Variant) -> None:
    """Change number, size and places of the hazards of a task that was never reset."""
    if variant.hazard_size != 1:
        task.hazards.size *= variant.hazard_size
    if variant.hazard_count != 1 or variant.hazard_areas:
        _HazardLayout(task, variant).install_()


def change_looks_(world: Element, variant: Variant) -> None:
    """Change shapes, colours and lights in the XML of a world."""
    bodies = world.findall("./worldbody/body")
    hazards = [body for body in bodies if body.get("name", "").startswith("hazard")]
    goals = [body for body in bodies if body.get("name") == "goal"]
    if variant.hazard_shape:
        _reshape_(hazards, variant.hazard_shape)
    if variant.goal_shape:
        _reshape_(goals, variant.goal_shape)
    if variant.swap_colours:
        of_hazards, of_goal = _colour(hazards[0]), _colour(goals[0])
        _paint_(hazards, of_goal)
        _paint_(goals, of_hazards)
    if variant.lamp != 1:
        for lamp in world.findall("./worldbody/light"):
            lamp.set("diffuse", " ".join([str(variant.lamp)] * 3))


def add_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """The uint8 image with Gaussian noise of that standard deviation on every number."""
    noise = rng.standard_normal(image.shape, np.float32) * deviation
    return (image + noise).round().clip(0, 255).astype(np.uint8)


class _HazardLayout:
    """Adds hazards to the task's own layouts, or moves its hazards, around all other objects.

    The places come from random numbers of their own, so that whatever the task draws afterwards is
    what it would have drawn without them.
    """

    def __init__(self, task: Any, variant: Variant) -> None:
        self._task, self._generator = task, task.random_generator
        self._build_layout = self._generator.build_layout
        self._build_world_config = task._build_world_config
        self._own = task.hazards.num  # as many as the task has
        self._count = math.ceil(self._own * variant.hazard_count)
        first = 0 if variant.hazard_areas else self._own
        self._placed = [f"hazard{index}" for index in range(first, self._count)]
        keepout = task.hazards.keepout  # and so far from the border, as the task does
        areas = np.array(variant.hazard_areas or ANYWHERE, float)  # (n, 4)
        corners = areas * np.tile(np.abs(task.placements_conf.extents[:2]), 2)
        self._low, self._high = corners[:, :2] + keepout, corners[:, 2:] - keepout
        self._failed = importlib.import_module("safety_gymnasium.builder").ResamplingError

    def install_(self) -> None:
        """Take the place of the two methods of the task that lay out its world."""
        self._task.hazards.num = self._count
        self._generator.build_layout = self.build_layout
        self._task._build_world_config = self.build_world_config

    def build_layout(self) -> dict[str, np.ndarray]:
        """The task's layout with our hazards in it; another one where they find no place."""
        placements = self._generator.placements
        added = {f"hazard{index}" for index in range(self._own, self._count)}
        own = {name: place for name, place in placements.items() if name not in added}
        for _ in range(LAYOUTS):
            self._generator.placements = own
            try:
                layout = self._build_layout()
            finally:
                self._generator.placements = placements
            future = copy.deepcopy(self._generator.random_generator)
            rng = np.random.default_rng(future.randint(2**32, size=4, dtype=np.uint32))
            for _ in range(ROUNDS):
                places = self._place(layout, rng)
                if places is not None:
                    layout.update(places)  # in place: the generator keeps it, too
                    return layout
        raise self._failed("no room for the hazards of this variant")

    def build_world_config(self, layout: dict[str, np.ndarray]) -> dict[str, Any]:
        """The task's own, which draws a heading for each of its hazards; then the added ones."""
        hazards = self._task.hazards
        hazards.num = self._own
        config = self._build_world_config(layout)
        hazards.num = self._count
        for index in range(self._own, self._count):
            name = f"hazard{index}"
            config["geoms"][name] = {**hazards.get_config(layout[name], rot=0.0), "name": name}
        return config

    def _place(
        self, layout: dict[str, np.ndarray], rng: np.random.Generator
    ) -> dict[str, np.ndarray] | None:
        """Places for our hazards that keep clear of the other objects and of each other, or None.

        The goal is none of these: the task will draw it anew, or put it on a button.
        """
        keepout = self._task.hazards.keepout
        others = [name for name in layout if name not in (*self._placed, "goal")]
        taken = np.array([layout[name] for name in others])  # (n, 2)
        apart = np.array([self._generator.placements[name][1] for name in others]) + keepout
        places = {}
        for name in self._placed:
            area = rng.integers(len(self._low), size=TRIES)
            tries = rng.uniform(self._low[area], self._high[area])  # (TRIES, 2)
            distance = np.linalg.norm(tries[:, None] - taken, axis=-1)  # (TRIES, n)
            free = (distance >= apart).all(1)
            if not free.any():
                return None
            places[name] = tries[free.argmax()]
            taken = np.vstack([taken, places[name]])
            apart = np.append(apart, 2 * keepout)
        return places


def _reshape_(bodies: list[Element], shape: Shape) -> None:
    """Draw the bodies anew, standing on the floor. The bodies stay where they are.

    Rewards and costs are distances to bodies; these geoms touch nothing.
    """
    for body in bodies:
        geom = _geom(body)
        radius = float(geom.attrib["size"].split()[0])
        half = shape.height * radius / 2
        size = (radius, half) if shape.geom == "cylinder" else (radius, radius, half)
        height = half - float(body.attrib["pos"].split()[2])
        geom.set("type", shape.geom)
        geom.set("size", " ".join(map(str, size)))
        geom.set("pos", f"0 0 {height}")


def _geom(body: Element) -> Element:
    geom = body.find("geom")
    assert geom is not None, "a body of Safety-Gymnasium has a geom"
    return geom


def _colour(body: Element) -> list[str]:
    return _geom(body).attrib["rgba"].split()[:3]


def _paint_(bodies: list[Element], colour: list[str]) -> None:
    """Give the bodies a colour; their transparency stays."""
    for body in bodies:
        geom = _geom(body)
        geom.set("rgba", " ".join([*colour, geom.attrib["rgba"].split()[3]]))
