"""HDF5 files as robomimic has them: demonstrations `data/demo_0`, ... with `obs`.

See docs/reference/data_format.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from dreamer.data.layout import open_dataset
from dreamer.errors import DatasetError, UserError
from fosp_ext.dataset.conversion_plan import plan_conversion
from fosp_ext.dataset.exchange import (
    Found,
    GroupArrays,
    Labels,
    Recorded,
    Source,
    camera_names,
    check_actions,
    datasets_of,
    flat,
    is_vector,
)

DATA, OBS, NEXT_OBS = "data", "obs", "next_obs"
COST = "costs"  # not robomimic's own; read where a file has it
NEEDED = ("actions", "rewards", "dones")
NO_LAST = "episodes without next_obs, whose last observation stands for the one after it too"
EARLY = "episodes with dones before their last step, where they go on"


def read_robomimic(path: Path, labels: Labels) -> Source:
    """The demonstrations of a file, in the order of their numbers.

    Images are observations of uint8 (N, height, width, 3). An episode has truly ended where the
    last of its `dones` is 1.
    """
    with open_dataset(path) as file:
        names = _demonstrations(file, path)
        found = _found(_group(file, names[0], path, False), path, labels)
    plan = plan_conversion(path, found, None, labels)
    keys = (*plan.cameras.values(), *plan.vectors.values())
    costs = found.has_costs and plan.cost is None
    policy = labels.policy or "unknown"
    return plan.source(len(names), _episodes(path, names, keys, costs, policy, plan.remarks))


def _demonstrations(file: h5py.File, path: Path) -> list[str]:
    """Names of the demonstrations, `demo_2` before `demo_10`."""
    data = file.get(DATA)
    if not isinstance(data, h5py.Group) or not len(data):
        raise UserError(f"{path} has no demonstrations: the group '{DATA}' is missing or empty")
    return sorted(data, key=lambda name: [int(n) for n in re.findall(r"\d+", name)] or [0])


def _group(file: h5py.File, name: str, path: Path, costs: bool) -> h5py.Group:
    """A demonstration with all that is needed of it, `costs` too if there are to be some."""
    group = file[DATA][name]
    needed = (*NEEDED, COST) if costs else NEEDED
    missing = [key for key in needed if not isinstance(group.get(key), h5py.Dataset)]
    if not isinstance(group.get(OBS), h5py.Group):
        missing.append(OBS)
    if missing:
        raise DatasetError(f"{path}: '{DATA}/{name}/{missing[0]}' is missing")
    return group


def _found(group: h5py.Group, path: Path, labels: Labels) -> Found:
    """What the first demonstration shows."""
    observations = _parts(group, OBS)
    images = {
        key: data.shape
        for key, data in observations.items()
        if data.dtype == np.uint8 and data.ndim == 4 and data.shape[-1] == 3
    }
    if not images:
        raise UserError(f"{path} has no images in '{OBS}', only {', '.join(observations)}")
    vectors = {
        key: int(np.prod(data.shape[1:]))
        for key, data in observations.items()
        if is_vector(data.shape, data.dtype)
    }
    return Found(
        images=images,
        names=camera_names(images, labels.task),
        action_size=check_actions(path, group["actions"].shape),
        has_costs=isinstance(group.get(COST), h5py.Dataset),
        vectors=vectors,
        others=tuple(key for key in observations if key not in images and key not in vectors),
    )


def _parts(group: h5py.Group, which: str) -> dict[str, h5py.Dataset]:
    """The parts of the observations by their name, `outer.inner` where they are nested."""
    return {path.replace("/", "."): data for path, data in datasets_of(group[which]).items()}


def _episodes(
    path: Path,
    names: list[str],
    keys: tuple[str, ...],
    costs: bool,
    policy: str,
    remarks: Counter[str],
) -> Iterator[Recorded]:
    with open_dataset(path) as file:
        for name in names:
            group = _group(file, name, path, costs)
            T = len(group["actions"])
            dones = flat(path, f"{name}/dones", group["dones"][()], T)
            observed = _observed(group, keys, f"{path}, {name}", T)
            remarks[NO_LAST] += int(NEXT_OBS not in group)
            remarks[EARLY] += int(dones[:-1].any())
            yield Recorded(
                images=observed,
                vectors=observed,
                action=group["actions"][()],
                reward=flat(path, f"{name}/rewards", group["rewards"][()], T),
                cost=flat(path, f"{name}/{COST}", group[COST][()], T) if costs else None,
                terminated=bool(dones[-1]) if T else False,
                policy=policy,
                seed=0,
                arrays=GroupArrays(group, lambda data: data[()]),
            )


def _observed(
    group: h5py.Group, keys: tuple[str, ...], where: str, T: int
) -> dict[str, np.ndarray]:
    """The T + 1 observations around T actions: those before each, and the one after the last."""
    before = _parts(group, OBS)
    after = _parts(group, NEXT_OBS) if NEXT_OBS in group else before
    rows = {}
    for key in keys:
        for part in (before, after):
            if key not in part or len(part[key]) != T or not T:
                raise DatasetError(f"{where}: '{key}' must have {T or 'some'} observations")
        rows[key] = np.concatenate([before[key][()], after[key][-1:]])
    return rows
