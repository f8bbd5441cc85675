"""A run's folder: its settings, what made it, and its checkpoints."""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.config import marks, save_yaml, to_dict, values_before
from dreamer.data.episode import DatasetInfo
from dreamer.errors import NonFiniteError, UserError, shown
from dreamer.files import atomic_path, read_json, write_text
from dreamer.locks import LOCK, locked
from dreamer.outputs import remove_parts
from dreamer.training.checkpoint import POINTER, Checkpoint, check_sound, not_finite, rng_state
from dreamer.training.state_check import check_parts, read_info
from dreamer.yaml_file import read_yaml

META = "meta.json"
CANNOT_LEARN = "is an exported agent, which acts but cannot be trained; name its run instead"
OWN = ("rng", "online")  # what each process adds to a checkpoint; of several it is a list
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "safety-gymnasium", "h5py", "tensorboard")
WRITTEN = ("", "checkpoints", "open_loop", "profile")  # folders in which a start writes files
State = dict[str, Any]  # what a checkpoint holds


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """A block in which no other start may write in the run folder `path`.

    A folder in use is a `UserError`. Of several processes that train together one has the lock.
    """
    with ExitStack() as block:
        with distributed.collective_errors():
            if distributed.is_writer():
                block.enter_context(locked(path / LOCK, f"run folder {path}"))
        yield


class RunFolder:
    """A run's place on disk, new or to be continued. Nothing is written before `open`.

    Of several processes that train together one writes; all call the same methods.
    """

    def __init__(self, path: Path, settings: Any, keep_checkpoints: int) -> None:
        """`settings` (a schema of dreamer/config.py) are kept with the run.

        A folder whose run had other values, in a setting that may not change, is refused.
        """
        self.path, self.settings = path, settings
        self.checkpoints = Checkpoint(self.path / "checkpoints", keep_checkpoints)
        self._file = self.path / "config.yaml"
        if self._file.exists():
            self._check_same(read_yaml(self._file))

    def newest(self) -> State | None:
        """The state to continue from, or nothing; "rng" and "online" with a part per process.

        A damaged checkpoint, an exported agent, or one of another number of processes is a
        `UserError`.
        """
        path = self.checkpoints.latest()
        if path is None:
            return None
        state = saved_state(path)
        if "rng" not in state:
            raise UserError(f"{path} {CANNOT_LEARN}")
        return state | own_parts(state, self.path)

    def require_shared(self, updates: int, dataset: Path | None, content: str) -> None:
        """Refuse processes that see other checkpoints, or a file of other content, than others."""
        files = f"{self.path}{'' if dataset is None else f' and {dataset}'}"
        distributed.require_same(
            (updates, content),
            f"the processes see different files; {files} must be on a disk that all machines share",
        )

    def open(self) -> None:
        """Make the folder where it is missing; write the settings and note this start.

        What a killed start left half-written goes; the caller has the folder `claimed`.
        """
        if not distributed.is_writer():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in WRITTEN:
                remove_parts(self.path / name)
            save_yaml(self.settings, self._file)
            self._note_start()
        except OSError as error:
            raise UserError(f"cannot write to run folder {self.path}: {error.strerror}") from error

    def save(
        self,
        agent: Agent,
        info: DatasetInfo,
        updates: int,
        dataset: str,
        online: dict[str, Any] | None = None,
        pretrain: int = 0,
        missed: bool = False,
    ) -> None:
        """Write everything that the next start needs to go on exactly.

        `dataset` is the fingerprint of the data; `online` is what an online run adds, in each
        process its own; `pretrain` the first updates, in which the world model learns alone. All
        that a process wrote before its call is on the disk before this is. `missed`: the next start
        has to take the looks that were due now. Weights that are not finite are a `NonFiniteError`.
        """
        weights = agent.state_dict()
        broken = not_finite(weights)
        if broken:
            raise NonFiniteError(f"not finite: weights {broken}, after update {updates}")
        own = {"rng": rng_state(), **({} if online is None else {"online": online})}
        everyone = distributed.collect(own)
        if not distributed.is_writer():
            return
        parts = {key: [each[key] for each in everyone] for key in own}
        state = {
            "agent": weights,
            "config": to_dict(self.settings),
            "info": to_dict(info),
            "dataset": dataset,
            "pretrain": pretrain,
            **({"missed": True} if missed else {}),
            **(parts if len(everyone) > 1 else own),
        }
        self.checkpoints.save(updates, state)

    def explained(self, error: NonFiniteError) -> NonFiniteError:
        """The error, with what there is to go on from."""
        if not distributed.is_writer():
            return error
        newest = self.checkpoints.latest()
        if newest is None:
            return NonFiniteError(f"{error}; no checkpoint was saved before")
        try:
            check_sound(newest, Checkpoint.load(newest))
        except UserError as damage:
            return NonFiniteError(f"{error}; and {damage}")
        return NonFiniteError(f"{error}; the last checkpoint is intact")

    def _note_start(self) -> None:
        """Append versions, commit, command and host to meta.json, which never blocks a run."""
        path = self.path / META
        try:
            starts = read_starts(path) if path.exists() else []
            if starts is None:
                aside = _free_name(path.with_name(f"{path.stem}-damaged{path.suffix}"))
                path.rename(aside)
                distributed.warn(f"{path} is damaged; it is kept as {aside.name}")
            with atomic_path(path) as part:
                write_text(part, json.dumps([*(starts or []), provenance()], indent=2))
        except OSError as error:
            distributed.warn(f"{path} cannot be written: {error.strerror}")

    def _check_same(self, before: dict[str, Any]) -> None:
        now, earlier = to_dict(self.settings), values_before(type(self.settings))
        for key, may_change in marks(type(self.settings), "may_change").items():
            new, old = _look_up(now, key), _look_up(before, key)
            if old is None:
                old = earlier.get(key)
            old = list(old) if isinstance(old, tuple) else old
            if old is not None and new != old and not may_change:
                raise UserError(
                    f"{self.path} holds a run with {key} {shown(old)}, this command says "
                    f"{shown(new)}; "
                    "name another --logdir, or give the same settings to continue it"
                )


def read_starts(path: Path) -> list[dict[str, Any]] | None:
    """What meta.json says of each start of a run; None where it is missing or damaged."""
    try:
        starts = read_json(path)
    except (OSError, UserError):
        return None
    good = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return starts if good else None


def provenance() -> dict[str, Any]:
    """What produced a result: time, command, commit, machine and versions."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        # of a module, its name instead of where it lies
        "command": sys.orig_argv[1:] if sys.orig_argv[1:2] == ["-m"] else sys.argv,
        "commit": _git_commit(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processes": distributed.world_size(),
    }


def saved_state(path: str | Path) -> State:
    """The state in a checkpoint file, or in the newest checkpoint of a run folder."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        newest = Checkpoint(path / "checkpoints", 1).latest()
        if newest is None:
            raise UserError(f"{path} has no checkpoint yet; is it a run folder of train.py?")
        path = newest
    elif path.name == POINTER:  # the file that names the newest
        path = Checkpoint(path.parent, 1).latest() or path
    state = Checkpoint.load(path)
    check_sound(path, state)
    check_parts(state, path)
    return state


def saved_info(state: State, path: str | Path) -> DatasetInfo:
    """What the checkpoint at `path` says about the episodes of its run."""
    return read_info(state["info"], path)


def own_parts(state: State, path: str | Path) -> dict[str, list[Any]]:
    """What each process has of its own in a state, as lists; another number is a `UserError`."""
    parts = {key: state[key] for key in OWN if key in state}
    parts = {key: x if isinstance(x, list) else [x] for key, x in parts.items()}
    if "rng" not in parts or not all(isinstance(x, dict) for each in parts.values() for x in each):
        raise UserError(f"the checkpoint of {path} lacks what a process needs to go on")
    if any(len(each) != len(parts["rng"]) for each in parts.values()):
        raise UserError(f"the checkpoint of {path} lacks the parts of some processes")
    if len(parts["rng"]) != distributed.world_size():
        raise UserError(
            f"{path} holds a run with processes {len(parts['rng'])}, this command starts "
            f"{distributed.world_size()}; name another --logdir, or start as many as before"
        )
    return parts


def run_of(source: Path) -> Path | None:
    """The run folder: `source` itself, or that of a file in RUN/checkpoints, else nothing."""
    if source.is_dir():
        return source
    folder = source.resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def _free_name(path: Path) -> Path:
    """The path, or one with a number where that is taken."""
    candidates = (path.with_name(f"{path.stem}-{k}{path.suffix}") for k in itertools.count(2))
    return next(name for name in itertools.chain([path], candidates) if not name.exists())


def _look_up(values: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where it is missing."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _processor() -> str | None:
    """Name of the processor, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def _git_commit() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package, perhaps inside another repository
        (name, *_) = metadata.packages_distributions().get("dreamer", ["unknown"])
        return f"{name} {_version(name)}"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
