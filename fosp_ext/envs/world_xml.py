"""Edits of the worlds that Safety-Gymnasium writes, made between its XML and MuJoCo's compiler."""

from __future__ import annotations

import importlib
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import mujoco
import yaml

from fosp_ext.envs.variant_world import change_looks_
from fosp_ext.envs.variants import Variant

# Level and wide, where the development version of Safety-Gymnasium has it since autumn 2023. Doggo
# and Ant have none there: theirs sits where their front camera is.
BACK_CAMERA = {
    "Point": {"pos": "0 0 .15", "xyaxes": "0 1 0 0 0 1"},
    "Car": {"pos": "0 0 .2", "xyaxes": "1 0 0 0 0 1"},
    "Racecar": {"pos": "0.1 0 0.1", "xyaxes": "0 1 0 0 0 1"},
    "Doggo": {"pos": ".0625 0 .1", "xyaxes": "0 1 0 0 0 1"},
    "Ant": {"pos": "0 0.05 0.05", "xyaxes": "-1 0 0 0 0 1"},
}

_LOADED: dict[str, Any] = {}  # file name -> contents, which Safety-Gymnasium only reads


def edit_world(xml: str, robot: str, variant: Variant) -> str:
    """Adds the camera `vision_back`, drops the sky and gives objects and lamps the variant's looks.

    The sky is six images of ten million pixels, decoded anew at every reset: 0.3 s and 190 MB.
    """
    root = ElementTree.fromstring(xml)
    agent = root.find("./worldbody/body[@name='agent']")
    assets = root.find("./asset")
    assert agent is not None, "not a Safety-Gymnasium world"
    assert assets is not None, "not a Safety-Gymnasium world"
    camera = {"name": "vision_back", "fovy": "90", **BACK_CAMERA[robot]}
    ElementTree.SubElement(agent, "camera", camera)
    for texture in assets.findall("./texture[@type='skybox']"):
        assets.remove(texture)
    change_looks_(root, variant)
    return ElementTree.tostring(root, encoding="unicode")


def sky_last(xml: str) -> str:
    """The world with its sky behind all other textures.

    Those have the numbers then that they have in a world without sky, by which MuJoCo 4 finds what
    to draw in the textures that were loaded.
    """
    root = ElementTree.fromstring(xml)
    assets = root.find("./asset")
    assert assets is not None, "not a Safety-Gymnasium world"
    for texture in assets.findall("./texture[@type='skybox']"):
        assets.remove(texture)
        assets.append(texture)
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def compiled_from(edit: Callable[[str], str]) -> Iterator[None]:
    """Within the block, Safety-Gymnasium compiles `edit(xml)` in place of each XML it writes.

    Its world module sees stand-ins that hold the names it uses: one for `mujoco`, and one for
    `yaml` that reads a file only once. That file, the same each time, is half the time of a reset.
    """

    def from_xml_string(xml: str) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(edit(xml))

    world: Any = importlib.import_module("safety_gymnasium.world")
    original = world.mujoco, world.yaml
    world.mujoco = types.SimpleNamespace(
        MjModel=types.SimpleNamespace(from_xml_string=from_xml_string),
        MjData=mujoco.MjData,
        mj_forward=mujoco.mj_forward,
    )
    world.yaml = types.SimpleNamespace(load=_load_once, FullLoader=yaml.FullLoader)
    try:
        yield
    finally:
        world.mujoco, world.yaml = original


def _load_once(file: TextIO, Loader: type) -> Any:
    if file.name not in _LOADED:
        _LOADED[file.name] = yaml.load(file, Loader=Loader)
    return _LOADED[file.name]
