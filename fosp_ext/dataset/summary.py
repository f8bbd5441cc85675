"""Summary of a dataset file: read from its small arrays, no image is decoded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamer.data.episode import DatasetInfo
from dreamer.data.layout import ARRAYS, open_dataset, text
from dreamer.data.validation import validate_dataset
from dreamer.envs.adapter import bounds_text
from fosp_ext.envs import is_custom


@dataclass(frozen=True)
class Group:
    """Some episodes of a dataset, as a row of a table."""

    name: str
    returns: np.ndarray  # (E,)
    costs: np.ndarray  # (E,)
    lengths: np.ndarray  # (E,), transitions
    costly_steps: int  # transitions with a cost above 0


@dataclass(frozen=True)
class DatasetSummary:
    """The numbers of a dataset file with E episodes and N transitions."""

    path: Path
    info: DatasetInfo
    versions: dict[str, str]  # package -> version it was recorded with
    file_bytes: int
    policy: np.ndarray  # (E,) names
    returns: np.ndarray  # (E,)
    costs: np.ndarray  # (E,)
    lengths: np.ndarray  # (E,)
    terminated: np.ndarray  # (E,) bool: not cut off by a time limit
    actions: np.ndarray  # (N, A)
    step_costs: np.ndarray  # (N,)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded images."""
        images = len(self.actions) + len(self.lengths)
        return images * len(self.info.cameras) * self.info.size**2 * 3

    def group(self, name: str, chosen: np.ndarray) -> Group:
        """The episodes where `chosen` (E,) is true."""
        steps = np.repeat(chosen, self.lengths)  # (N,)
        return Group(
            name,
            self.returns[chosen],
            self.costs[chosen],
            self.lengths[chosen],
            int((self.step_costs[steps] > 0).sum()),
        )

    def by_policy(self) -> list[Group]:
        """One group for each policy, in alphabetical order."""
        return [self.group(str(name), self.policy == name) for name in np.unique(self.policy)]


def summarise(path: str | Path) -> DatasetSummary:
    """Check a dataset file, except for its images, and add up its episodes."""
    path = Path(path)
    info = validate_dataset(path)
    with open_dataset(path) as file:
        arrays = {name: file[name][()] for name in ARRAYS}
        names = np.array([text(name) for name in file.attrs["policies"]])
        versions = json.loads(text(file.attrs["versions"]))
    starts = arrays["episode_starts"]
    ends = np.append(starts[1:], len(arrays["rewards"]))
    return DatasetSummary(
        path=path,
        info=info,
        versions=versions,
        file_bytes=path.stat().st_size,
        policy=names[arrays["episode_policies"]],
        returns=np.add.reduceat(arrays["rewards"], starts),
        costs=np.add.reduceat(arrays["costs"], starts),
        lengths=ends - starts,
        terminated=arrays["terminals"][ends - 1],
        actions=arrays["actions"],
        step_costs=arrays["costs"],
    )


def describe(summary: DatasetSummary) -> Iterator[str]:
    """The summary as lines of text."""
    info, environment = summary.info, summary.info.environment
    ended = int(summary.terminated.sum())
    yield str(summary.path)
    yield f"  task           {info.task}, variant {environment.get('variant', 'none')}"
    drawn = ", ".join([f"{info.size}x{info.size}", *filter(None, [environment.get("render")])])
    yield f"  images         {' and '.join(info.cameras)}, {drawn}"
    if info.vectors:
        sizes = (f"{name} ({size} numbers)" for name, size in info.vectors.items())
        yield f"  vectors        {', '.join(sizes)}"
    scale = " ".join(f"{x:g}" for x in info.action_scale)
    yield (
        f"  action         {info.action_size} numbers, held for {info.action_repeat} frames; "
        f"1 is {scale} of the range"
    )
    if info.action_bounds:
        yield f"  range          {bounds_text(*info.action_bounds)}, scaled to -1 to 1"
    if not info.has_costs:
        yield "  costs          none recorded"
    yield f"  episodes       {len(summary.lengths)}, of which {ended} truly ended"
    yield f"  transitions    {len(summary.actions)}"
    yield (
        f"  size           {summary.file_bytes / 2**20:.1f} MiB on disk, "
        f"{summary.decoded_bytes / 2**20:.1f} MiB decoded"
    )
    versions = ", ".join(f"{name} {number}" for name, number in summary.versions.items())
    yield f"  recorded with  {versions or 'unknown programs'}"
    yield ""
    yield from table(summary)


def table(summary: DatasetSummary) -> Iterator[str]:
    """Lines of a table: mean +- standard deviation over the episodes of each policy."""
    groups = summary.by_policy()
    if len(groups) > 1:
        groups.append(summary.group("all", np.ones(len(summary.lengths), bool)))
    width = max(len("policy"), *(len(group.name) for group in groups))
    yield (
        f"  {'policy':{width}}  {'episodes':>8}  {'return':>15}  {'cost':>15}  "
        f"{'steps with cost':>15}  length"
    )
    for group in groups:
        shortest, longest = group.lengths.min(), group.lengths.max()
        length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        share = 100 * group.costly_steps / group.lengths.sum()
        yield (
            f"  {group.name:{width}}  {len(group.returns):8}  {_spread(group.returns)}  "
            f"{_spread(group.costs)}  {share:13.1f} %  {length}"
        )


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():6.2f} +- {values.std():5.2f}"


def training_command(path: str | Path) -> str:
    """The words that train on a dataset file, where it differs from what train.py takes."""
    info = validate_dataset(path)
    words = ["--configs", "fosp_offline" if info.has_costs else "dreamerv3", "--task", info.task]
    words += ["--dataset.path", str(path), "--env.cameras", ",".join(info.cameras)]
    if info.vectors:
        words += ["--env.vectors", ",".join(info.vectors)]
    words += ["--env.size", str(info.size), "--env.action_repeat", str(info.action_repeat)]
    if "render" in info.environment and not is_custom(info.task):
        words += ["--env.render", info.environment["render"]]
    return f"python train.py {shlex.join(words)}"
