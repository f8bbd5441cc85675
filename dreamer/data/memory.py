"""Choice between memory and disk for the images of a dataset, made before any is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamer.data.layout import open_dataset
from dreamer.data.validation import validate_dataset
from dreamer.errors import UserError

STORAGES = ("ram", "disk")
RAM_SHARE = 0.8  # of the memory that is free now; above it, decoded images do not fit
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")  # where Linux tells its numbers
GROUP_FILES = {  # of a control group, version 1 and 2: its limit, its use, its idle file cache
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    "": ("memory.max", "memory.current", "inactive_file"),
}


@dataclass(frozen=True)
class MemoryPlan:
    """The place where the images of a dataset are kept, and the reason; as text, one line."""

    path: Path
    rows: int
    cameras: int
    needed: int  # bytes of all images, decoded
    batches: int  # bytes of the batches that exist at one time
    free: int | None  # bytes that may be taken now, where the system says so
    storage: str  # "ram" or "disk"
    reason: str  # why not "ram", or nothing

    def __str__(self) -> str:
        free = "" if self.free is None else f", {self.free / 2**30:.1f} GiB free"
        place = "kept in memory" if self.storage == "ram" else "streamed from disk"
        return (
            f"dataset: {self.path}, {self.rows} rows, {self.cameras} cameras: "
            f"{self.needed / 2**30:.2f} GiB decoded{free}: {place}{self.reason}, "
            f"{self.batches / 2**20:.0f} MiB for batches"
        )

    @property
    def images(self) -> int:
        """Images of all cameras."""
        return self.rows * self.cameras


def plan_memory(
    path: str | Path,
    storage: str,
    ram_limit_gb: float,
    batch_rows: int,
    copies: int = 1,
    cameras: int | None = None,
) -> MemoryPlan:
    """Choose between memory and disk for a dataset; reads no image.

    `storage`: "auto" takes memory for images that stay below `ram_limit_gb` (GiB) and below a
    share of what is free; "disk" never does; "ram" always, a `UserError` where it cannot.
    `batch_rows` counts the rows of all batches that exist at one time, `copies` the processes of
    this machine that each keep the images; the limit is one for each, what is free is for all.
    So many `cameras` of the file are read; None: all.
    """
    path, info = Path(path), validate_dataset(path)
    cameras = len(info.cameras) if cameras is None else cameras
    with open_dataset(path) as file:
        rows = len(file["rewards"]) + len(file["episode_starts"])
    row = cameras * info.size**2 * 3  # bytes
    needed, free = rows * row, free_memory()
    too_much = free is not None and copies * needed > RAM_SHARE * free
    if storage == "ram" and free is not None and too_much:
        each = "" if copies == 1 else f" in each of {copies} processes"
        raise UserError(
            f"the images of {path} take {needed / 2**30:.1f} GiB decoded{each} and "
            f"{free / 2**30:.1f} GiB are free; use storage 'disk'"
        )
    reason = ""
    if storage == "auto":
        above = f" (the limit is {ram_limit_gb:g} GiB)" if needed > ram_limit_gb * 2**30 else ""
        reason = above or (" (that would not fit)" if too_much else "")
        storage = "disk" if reason else "ram"
    batches = batch_rows * row
    return MemoryPlan(path, rows, cameras, needed, batches, free, storage, reason)


def free_memory() -> int | None:
    """Bytes that new arrays may take, where the system says so (Linux).

    The machine's free memory, or less where a container or a batch job has a limit of its own.
    """
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        groups = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    free: list[int | None] = [int(values["MemAvailable"].split()[0]) * 1024]
    for line in groups:
        _, controllers, name = line.split(":", 2)
        for controller, files in GROUP_FILES.items():
            if controller in controllers.split(","):
                root = CGROUPS / controller
                folder = root / name.lstrip("/")
                free += [
                    _left_in(each, files)
                    for each in (folder, *folder.parents)
                    if each.is_relative_to(root)
                ]
    return max(0, min(value for value in free if value is not None))


def _left_in(folder: Path, files: tuple[str, str, str]) -> int | None:
    """Bytes left to a control group; nothing where it has no limit."""
    limit, used, idle = files
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    cache = dict(line.split() for line in lines).get(idle, "0")
    return None if most == "max" else int(most) - now + int(cache)
