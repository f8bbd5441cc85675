"""Merge several dataset files into one, and split one into two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.hdf5 import fingerprint, read_episodes, write_dataset
from dreamer.data.validation import first_difference
from dreamer.errors import UserError, did_you_mean
from dreamer.outputs import new_output, refuse_existing
from dreamer.signals import checked
from dreamer.training.progress import Progress
from fosp_ext.dataset.summary import DatasetSummary, summarise


def merge(path: str | Path, sources: Sequence[Path], stream: TextIO | None = None) -> None:
    """Write the episodes of all `sources` to the new file `path`.

    Each source keeps its order, and their episodes alternate so that every part of the new file,
    the held-out end included, has the same share of each. What the sources must have in common is
    all of `DatasetInfo` but the variant; the variants of all are noted, separated by commas.
    """
    refuse_existing(path)
    summaries = [summarise(source) for source in sources]
    info = _common_info(summaries)
    _refuse_copies(sources)
    sizes = [len(summary.lengths) for summary in summaries]

    def episodes() -> Iterator[Episode]:
        readers = [read_episodes(source) for source in sources]
        for source in _alternate(sizes):
            yield next(readers[source])

    _write(path, episodes(), info, _all_versions(summaries), sum(sizes), stream)


@dataclass(frozen=True)
class Choice:
    """The episodes that `split` takes: all that pass the filters, or some of those."""

    policies: tuple[str, ...] = ()  # none named: any
    max_cost: float | None = None  # of an episode
    episodes: int | None = None  # how many of those that pass
    fraction: float | None = None  # or what share of them
    seed: int | None = None  # take them at random instead of the first ones

    def indices(self, summary: DatasetSummary) -> np.ndarray:
        """Indices of the chosen episodes, rising."""
        known = sorted(set(summary.policy))
        for name in self.policies:
            if name not in known:
                hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
                raise UserError(f"{summary.path} has no policy '{name}'{hint}")
        passes = np.ones(len(summary.lengths), bool)
        if self.policies:
            passes &= np.isin(summary.policy, self.policies)
        if self.max_cost is not None:
            passes &= summary.costs <= self.max_cost
        chosen = np.flatnonzero(passes)
        count = self._count(len(chosen), summary.path)
        if self.seed is not None:
            chosen = np.random.default_rng(self.seed).permutation(chosen)
        return np.sort(chosen[:count])

    def _count(self, available: int, path: Path) -> int:
        if self.fraction is not None:
            if not 0 < self.fraction <= 1:
                raise UserError(f"fraction must lie above 0 and not above 1, got {self.fraction}")
            count = round(self.fraction * available)
        else:
            count = available if self.episodes is None else self.episodes
        if not 0 < count <= available:
            raise UserError(f"{path} has {available} episodes to choose from, {count} were to be")
        return count


def split(
    source: str | Path,
    path: str | Path,
    rest: str | Path | None,
    choice: Choice,
    stream: TextIO | None = None,
) -> None:
    """Write the chosen episodes to the new file `path`, and all others to `rest` if it is given."""
    summary = summarise(source)
    total = len(summary.lengths)
    chosen = choice.indices(summary)
    others = np.setdiff1d(np.arange(total), chosen)
    outputs = [(path, chosen)] if rest is None else [(path, chosen), (rest, others)]
    if rest is not None and Path(rest).resolve() == Path(path).resolve():
        raise UserError(f"both parts would be written to {path}")
    if rest is not None and not len(others):
        raise UserError(f"all {total} episodes of {source} go to {path}; none is left for {rest}")
    for output, _ in outputs:
        refuse_existing(output)
    for output, indices in outputs:
        wanted = set(indices.tolist())
        episodes = read_episodes(source, wanted)
        _write(output, episodes, summary.info, summary.versions, len(wanted), stream)


def _write(
    path: str | Path,
    episodes: Iterator[Episode],
    info: DatasetInfo,
    versions: dict[str, str],
    total: int,
    stream: TextIO | None,
) -> None:
    title = f"writing {Path(path).name}"
    with new_output(path), Progress(title, total, "episodes", stream) as progress:
        write_dataset(path, checked(progress.count(episodes)), info, versions)


def _common_info(summaries: Sequence[DatasetSummary]) -> DatasetInfo:
    first = summaries[0]
    shared = {k: v for k, v in first.info.environment.items() if k != "variant"}
    wanted = replace(first.info, environment=shared)
    for other in summaries[1:]:
        different = first_difference(other.info, wanted)
        if different:
            name, have, want = different
            raise UserError(
                f"{other.path} has {name} {have!r}, {first.path} has {want!r}; "
                "they cannot become one dataset"
            )
    noted = [each.info.environment.get("variant", "none") for each in summaries]
    variants = {name for each in noted for name in each.split(",")}
    return replace(first.info, environment={**shared, "variant": ",".join(sorted(variants))})


def _all_versions(summaries: Sequence[DatasetSummary]) -> dict[str, str]:
    """Package -> version; where they differ, all of them."""
    packages = {name: None for each in summaries for name in each.versions}
    return {
        name: " or ".join(sorted({each.versions.get(name, "unknown") for each in summaries}))
        for name in packages
    }


def _refuse_copies(sources: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        digest = fingerprint(source)
        if digest in seen:
            raise UserError(f"{source} holds the same episodes as {seen[digest]}")
        seen[digest] = source


def _alternate(sizes: Sequence[int]) -> list[int]:
    """Order of the sources: each appears `sizes[k]` times, as evenly as can be."""
    places = [((index + 0.5) / size, k) for k, size in enumerate(sizes) for index in range(size)]
    return [k for _, k in sorted(places)]
