"""Edits of the worlds that Safety-Gymnasium writes, made between its XML and MuJoCo's compiler."""

from __future__ import annotations

import importlib
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mujoco

# Level and wide, where the development version of Safety-Gymnasium has it since autumn 2023. Doggo
# and Ant have none there: theirs sits where their front camera is.
BACK_CAMERA = {
    "Point": {"pos": "0 0 .15", "xyaxes": "0 1 0 0 0 1"},
    "Car": {"pos": "0 0 .2", "xyaxes": "1 0 0 0 0 1"},
    "Racecar": {"pos": "0.1 0 0.1", "xyaxes": "0 1 0 0 0 1"},
    "Doggo": {"pos": ".0625 0 .1", "xyaxes": "0 1 0 0 0 1"},
    "Ant": {"pos": "0 0.05 0.05", "xyaxes": "-1 0 0 0 0 1"},
}


def edit_world(xml: str, robot: str) -> str:
    """Adds the camera `vision_back` and drops the sky.

    The sky is six pictures of ten million pixels, decoded anew at every reset: 0.3 s and 190 MB.
    """
    root = ElementTree.fromstring(xml)
    agent = root.find("./worldbody/body[@name='agent']")
    assets = root.find("./asset")
    assert agent is not None, "not a Safety-Gymnasium world"
    assert assets is not None, "not a Safety-Gymnasium world"
    ElementTree.SubElement(agent, "camera", name="vision_back", fovy="90", **BACK_CAMERA[robot])
    for texture in assets.findall("./texture[@type='skybox']"):
        assets.remove(texture)
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def compiled_from(edit: Callable[[str], str]) -> Iterator[None]:
    """Within the block, Safety-Gymnasium compiles `edit(xml)` in place of each XML it writes.

    Its world module sees a stand-in for `mujoco` that holds the three names it uses.
    """

    def from_xml_string(xml: str) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(edit(xml))

    world = importlib.import_module("safety_gymnasium.world")
    original = world.mujoco
    world.mujoco = types.SimpleNamespace(
        MjModel=types.SimpleNamespace(from_xml_string=from_xml_string),
        MjData=mujoco.MjData,
        mj_forward=mujoco.mj_forward,
    )
    try:
        yield
    finally:
        world.mujoco = original
