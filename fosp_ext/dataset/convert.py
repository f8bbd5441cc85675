"""Convert a dataset from one format to another, an episode at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO

from dreamer.data.episode import VIOLATION, DatasetInfo, Episode
from dreamer.data.hdf5 import read_episodes, write_dataset
from dreamer.errors import UserError
from dreamer.outputs import new_output, refuse_existing
from dreamer.signals import checked
from dreamer.training.progress import Progress
from fosp_ext.dataset.conversion_plan import plan_conversion
from fosp_ext.dataset.convert_dreamer import read_dreamer, write_dreamer
from fosp_ext.dataset.convert_dsrl import read_dsrl, write_dsrl
from fosp_ext.dataset.convert_minari import read_minari, write_minari
from fosp_ext.dataset.convert_robomimic import read_robomimic
from fosp_ext.dataset.exchange import Found, Labels, Reader, Recorded, Source, Writer, note_of
from fosp_ext.dataset.summary import summarise

ALL_ENDED = (
    "episodes that ended the task, all of them and after the same number of steps; "
    "if that is a time limit, convert again with --time-limit"
)
NO_VIOLATION = (
    "the largest cost of a step is {:g}, so none violates the constraint; train with "
    "--env.violation {:g} or less, the default is {:g}"
)

CHANGES = ("cameras", "rename", "size", "cost_from")  # labels that say what is made of a file


class Format(NamedTuple):
    """Reader and writer of a dataset format."""

    read: Reader
    write: Writer | None  # None: it is only read
    about: str


def read_own(path: Path, labels: Labels) -> Source:
    """A dataset file of this project; it says all facts itself, and its images may be changed."""
    told = [
        name for name, value in vars(labels).items() if value is not None and name not in CHANGES
    ]
    if told:
        raise UserError(f"{path} says its {told[0].replace('_', ' ')} itself")
    summary = summarise(path)
    info = summary.info
    found = Found(
        images=dict.fromkeys(info.cameras, (info.size, info.size, 3)),
        names={camera: camera for camera in info.cameras},
        action_size=info.action_size,
        has_costs=info.has_costs,
        vectors=info.vectors,
    )
    plan = plan_conversion(path, found, note_of(info), labels)
    return plan.source(len(summary.lengths), map(_recorded, read_episodes(path)))


def _recorded(episode: Episode) -> Recorded:
    """An episode of ours; a cost function sees it under the names of a dataset file."""
    arrays = {
        **{f"images/{name}": frames for name, frames in episode.images.items()},
        **{f"vectors/{name}": rows for name, rows in episode.vectors.items()},
        "actions": episode.action,
        "rewards": episode.reward,
        "costs": episode.cost,
    }
    return Recorded(
        images=episode.images,
        vectors=episode.vectors,
        action=episode.action,
        reward=episode.reward,
        cost=episode.cost,
        terminated=episode.terminated,
        policy=episode.policy,
        seed=episode.seed,
        arrays=arrays,
    )


def write_own(path: Path, info: DatasetInfo, episodes: Iterator[Episode]) -> None:
    """A dataset file of this project; what recorded the episodes is not known."""
    write_dataset(path, episodes, info, versions={})


FORMATS = {
    "fosp": Format(read_own, write_own, "the dataset file of this project"),
    "dsrl": Format(read_dsrl, write_dsrl, "an HDF5 file of DSRL's layout, with images"),
    "minari": Format(read_minari, write_minari, "a Minari dataset folder, named like goal-v0"),
    "dreamer": Format(read_dreamer, write_dreamer, "a folder of DreamerV3's npz chunks"),
    "robomimic": Format(read_robomimic, None, "an HDF5 file of robomimic's layout, with images"),
}
WRITABLE = tuple(name for name, kind in FORMATS.items() if kind.write)


def convert(
    source: Path,
    path: Path,
    kinds: tuple[str, str],
    labels: Labels,
    time_limit: int | None = None,
    stream: TextIO | None = None,
) -> list[str]:
    """Write `source`, in the first format, to the new `path`, in the second; returns remarks.

    Episodes of at least `time_limit` transitions count as cut off, whatever the source says.
    """
    changed = any(getattr(labels, name) is not None for name in CHANGES)
    if kinds[0] == kinds[1] and not (kinds[0] == "fosp" and changed):
        raise UserError(f"both sides are '{kinds[0]}'; name another format with --from or --to")
    refuse_existing(path)
    write = FORMATS[kinds[1]].write
    assert write, "only writable formats are offered"
    opened = FORMATS[kinds[0]].read(source, labels)
    worst = 0.0
    ends: Counter[tuple[bool, int]] = Counter()

    def episodes() -> Iterator[Episode]:
        nonlocal worst
        for episode in opened.episodes:
            if time_limit is not None and episode.length >= time_limit:
                episode = replace(episode, terminated=False)
            ends[(episode.terminated, episode.length)] += 1
            worst = max(worst, float(episode.cost.max()))
            yield episode

    with new_output(path), Progress("converting", opened.total, "episodes", stream) as progress:
        write(path, opened.info, checked(progress.count(episodes())))
    remarks = opened.remarks
    if len(ends) == 1 and (only := next(iter(ends)))[0] and ends[only] > 1:
        remarks[ALL_ENDED] += ends[only]
    counted = [f"{count} {text}" for text, count in remarks.items() if count]
    if kinds[0] != "fosp" and opened.info.has_costs and worst < VIOLATION:
        counted.append(NO_VIOLATION.format(worst, worst, VIOLATION) if worst else "no step costs")
    return [*opened.said, *counted]
