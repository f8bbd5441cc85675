"""A run's folder: its configuration, what made it, its checkpoints, and how to load it again."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer import distributed
from dreamer.agent import Agent
from dreamer.config import differences, marks, save_yaml, to_dict
from dreamer.data.episode import DatasetInfo
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.training.checkpoint import Checkpoint, rng_state
from fosp_ext.build import build_agent
from fosp_ext.config import Config, TrainConfig, config_from_dict, load_config

CANNOT_LEARN = "is an exported agent, which acts but cannot be trained; name its run instead"
OWN = ("rng", "online")  # what each process adds to a checkpoint; of several it is a list
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "safety-gymnasium", "h5py", "tensorboard")


class LoadedRun(NamedTuple):
    """A trained agent and what it was trained for."""

    agent: Agent
    config: TrainConfig
    info: DatasetInfo
    updates: int
    dataset: str  # fingerprint of the dataset it was trained on
    exported: bool  # a file of fosp_ext/export.py: it lacks what learning needs


class RunFolder:
    """A run's place on disk, new or to be continued. Nothing is written before `open`.

    Of several processes that train together one writes; all call the same methods.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Refuse a folder whose run had other settings in anything that decides its result."""
        self.path = Path(config.logdir)
        self.config = config
        self.checkpoints = Checkpoint(self.path / "checkpoints", config.run.keep_checkpoints)
        self._settings = self.path / "config.yaml"
        if self._settings.exists():
            _check_same(config, load_config(self._settings), self.path)

    def newest(self) -> dict[str, Any] | None:
        """The state to continue from, or nothing; "rng" and "online" with a part per process.

        A damaged checkpoint, an exported agent, or one of another number of processes is a
        `UserError`.
        """
        path = self.checkpoints.latest()
        if path is None:
            return None
        state = Checkpoint.load(path)
        if "left_out" in state:
            raise UserError(f"{path} {CANNOT_LEARN}")
        return state | own_parts(state, self.path)

    def require_shared(self, updates: int, dataset: Path, content: str) -> None:
        """Refuse processes that see other checkpoints, or a file of other content, than others."""
        distributed.require_same(
            (updates, content),
            f"the processes see different files; {self.path} and {dataset} must be on a disk that "
            "all machines share",
        )

    def open(self) -> None:
        """Make the folder where it is missing; write the settings and note this start."""
        if not distributed.is_writer():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            save_yaml(self.config, self._settings)
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
    ) -> None:
        """Write everything that the next start needs to go on exactly.

        `dataset` is the fingerprint of the data; `online` is what an online run adds, in each
        process its own. All that a process wrote before its call is on the disk before this is.
        """
        own = {"rng": rng_state(), **({} if online is None else {"online": online})}
        everyone = distributed.collect(own)
        if not distributed.is_writer():
            return
        parts = {key: [each[key] for each in everyone] for key in own}
        state = {
            "agent": agent.state_dict(),
            "config": to_dict(self.config),
            "info": _plain_info(info),
            "dataset": dataset,
            **(parts if len(everyone) > 1 else own),
        }
        self.checkpoints.save(updates, state)

    def _note_start(self) -> None:
        """Append versions, commit, command and host to meta.json."""
        path = self.path / "meta.json"
        starts = json.loads(path.read_text()) if path.exists() else []
        with atomic_path(path) as part:
            part.write_text(json.dumps([*starts, provenance()], indent=2))


def provenance() -> dict[str, Any]:
    """What produced a result: time, command, commit, machine and versions."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        # of a module, its name instead of where it lies
        "command": sys.orig_argv[1:] if sys.orig_argv[1:2] == ["-m"] else sys.argv,
        "commit": _git_commit(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processes": distributed.world_size(),
    }


def load_run(path: str | Path, device: torch.device) -> LoadedRun:
    """The agent of a checkpoint file, or of the newest checkpoint of a run folder.

    The file may be an exported agent: then the parts that it leaves out are missing.
    """
    state = saved_state(path)
    config = saved_config(state, path)
    info = saved_info(state)
    agent = build_agent(config, info, device)
    leave_out(agent, state.get("left_out", []))
    agent.load_state_dict(state["agent"])
    exported = "left_out" in state
    return LoadedRun(agent, config, info, state["step"], state["dataset"], exported)


def saved_state(path: str | Path) -> dict[str, Any]:
    """The state in a checkpoint file, or in the newest checkpoint of a run folder."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        newest = Checkpoint(path / "checkpoints", 1).latest()
        if newest is None:
            raise UserError(f"{path} has no checkpoint yet; is it a run folder of train.py?")
        path = newest
    state = Checkpoint.load(path)
    missing = {"agent", "config", "info", "dataset"} - state.keys()
    if missing:
        raise UserError(f"checkpoint {path} lacks {', '.join(sorted(missing))}")
    return state


def saved_config(state: dict[str, Any], path: str | Path) -> TrainConfig:
    """The settings in a checkpoint's state."""
    config = config_from_dict(state["config"], str(path))
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path} is of mode {config.mode}, which trains nothing")
    return config


def leave_out(agent: Agent, parts: list[str]) -> None:
    """Remove modules by their dotted names: to ask one is an error then, not a wrong answer."""
    for part in parts:
        parent, _, name = part.rpartition(".")
        delattr(agent.get_submodule(parent), name)


def run_of(source: Path) -> Path | None:
    """The run folder: `source` itself, or that of a file in RUN/checkpoints, else nothing."""
    if source.is_dir():
        return source
    folder = source.resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def saved_info(state: dict[str, Any]) -> DatasetInfo:
    """What a checkpoint says about the episodes of its run."""
    return DatasetInfo(**{**state["info"], "cameras": tuple(state["info"]["cameras"])})


def own_parts(state: dict[str, Any], path: str | Path) -> dict[str, list[Any]]:
    """What each process has of its own in a state, as lists; another number is a `UserError`."""
    parts = {key: state[key] for key in OWN if key in state}
    parts = {key: x if isinstance(x, list) else [x] for key, x in parts.items()}
    if len(parts["rng"]) != distributed.world_size():
        raise UserError(
            f"{path} holds a run with processes {len(parts['rng'])}, this command starts "
            f"{distributed.world_size()}; name another --logdir, or start as many as before"
        )
    return parts


def _check_same(config: Config, before: Config, path: Path) -> None:
    may_change = marks(type(config), "may_change")
    for key, (new, old) in differences(config, before).items():
        if not may_change[key]:
            raise UserError(
                f"{path} holds a run with {key} {old!r}, this command says {new!r}; "
                "name another --logdir, or give the same settings to continue it"
            )


def _plain_info(info: DatasetInfo) -> dict[str, Any]:
    return {**dataclasses.asdict(info), "cameras": list(info.cameras)}


def _git_commit() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package, perhaps inside another repository
        version = _version("fosp-pytorch")
        return f"fosp-pytorch {version}" if version else "unknown"
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
