"""The main job, small: record a dataset, train offline, evaluate and film, for `make demo`."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATASET = "logdir/demo/dataset.h5"
RUN = "logdir/demo/run"
DATA = ["--dataset.path", DATASET, "--dataset.episodes", "40"]
TRAIN = [
    *("--configs", "fosp_offline", "cpu", *DATA, "--logdir", RUN, "--run.updates", "500"),
    *("--run.eval_every", "0", "--run.report_every", "250", "--run.log_every", "25"),
]


def main() -> int:
    """Run the steps one after the other; returns the exit code of the first that fails."""
    begin = time.monotonic()
    steps = [
        ["train.py", *TRAIN],
        ["eval.py", "--logdir", RUN, "--episodes", "5", "--videos", "2"],
    ]
    if not (ROOT / DATASET).exists():
        steps.insert(0, ["train.py", "--configs", "collect", *DATA])
    for words in steps:
        print(f"\n$ python {shlex.join(words)}", flush=True)
        code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
        if code:
            return code
    summary = max((ROOT / RUN / "eval").glob("*/summary.json"), key=lambda p: p.stat().st_mtime)
    folder = summary.parent.relative_to(ROOT)
    print(f"\nDone in {(time.monotonic() - begin) / 60:.1f} minutes. Look at:")
    for name, place in {
        "dataset (HDF5)": DATASET,
        "run folder": f"{RUN}  (TensorBoard: .venv/bin/tensorboard --logdir {RUN})",
        "checkpoints": f"{RUN}/checkpoints",
        "open-loop films": f"{RUN}/report",
        "summary": folder / "summary.json",
        "episodes": folder / "episodes.jsonl",
        "videos": folder / "videos",
    }.items():
        print(f"  {name:<16} {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
