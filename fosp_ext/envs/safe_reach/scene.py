"""The model of a SafeReach scene: arm.xml with obstacles and a goal, as a variant has them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np

from fosp_ext.envs.safe_reach.space import GOAL_HEIGHT, GOAL_RADIUS, OBSTACLES
from fosp_ext.envs.variants import Shape, Variant

ARM = Path(__file__).with_name("arm.xml")
OBSTACLE_COLOUR, GOAL_COLOUR = "0.45 0.8 0.1 1", "0.9 0.1 0.1 1"
GOAL = Shape("cylinder", height=GOAL_HEIGHT / GOAL_RADIUS)


def obstacle_sizes(variant: Variant) -> np.ndarray:
    """Half the depth, width and height of each obstacle in a variant: (4, 3)."""
    return OBSTACLES * np.array([*variant.obstacle_stretch, 1.0])


def build_model(variant: Variant, obstacles: int) -> mujoco.MjModel:
    """A scene with so many obstacles, whose places an episode sets.

    The bodies are named obstacle0, obstacle1, ... and goal, which is moved as a mocap body and
    touches nothing.
    """
    root = ElementTree.parse(ARM).getroot()
    world = root.find("./worldbody")
    lamp = root.find("./worldbody/light")
    assert world is not None
    assert lamp is not None
    colours = [OBSTACLE_COLOUR, GOAL_COLOUR]
    if variant.swap_colours:
        colours.reverse()
    for index, size in enumerate(obstacle_sizes(variant)[:obstacles]):
        _add_obstacle(world, f"obstacle{index}", size, colours[0])
    _add_goal(world, variant.goal_shape or GOAL, colours[1])
    bright = np.array(lamp.attrib["diffuse"].split(), float) * variant.lamp
    lamp.set("diffuse", _text(bright))
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))


def _add_obstacle(world: Element, name: str, size: np.ndarray, colour: str) -> None:
    body = SubElement(world, "body", {"name": name, "pos": f"0 0 {size[2]}"})
    SubElement(body, "freejoint")
    look = {"class": "obstacle", "type": "box", "size": _text(size), "rgba": colour}
    SubElement(body, "geom", {"name": name, **look})


def _add_goal(world: Element, shape: Shape, colour: str) -> None:
    half = shape.height * GOAL_RADIUS / 2
    size = [GOAL_RADIUS, half] if shape.geom == "cylinder" else [GOAL_RADIUS, GOAL_RADIUS, half]
    body = SubElement(world, "body", {"name": "goal", "mocap": "true", "pos": f"0 0 {half}"})
    look = {"type": shape.geom, "size": _text(np.array(size)), "rgba": colour}
    SubElement(body, "geom", {"name": "goal", **look})


def _text(numbers: np.ndarray) -> str:
    return " ".join(f"{number:g}" for number in numbers)
