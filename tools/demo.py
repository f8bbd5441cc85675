"""A small complete example for `make demo`: record, train offline, fine-tune, evaluate, compare."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATASET = "logdir/demo/dataset.h5"
RUN = "logdir/demo/run"
ONLINE = "logdir/demo/online"
VARIANT = "clustered"
REPORT = "logdir/demo/report"
DATA = ["--dataset.path", DATASET, "--dataset.episodes", "40"]
TRAIN = [
    *("--configs", "fosp_offline", "cpu", "quick", *DATA, "--logdir", RUN, "--run.updates", "500"),
    *("--run.eval_every", "0", "--run.heldout_every", "250", "--run.log_every", "25"),
]
FINE_TUNE = [
    *("--configs", "fosp_online", "cpu", "quick", "--from", RUN, "--env.variant", VARIANT),
    *("--logdir", ONLINE, "--online.steps", "1500", "--run.eval_every", "0"),
    *("--run.heldout_every", "0", "--run.log_every", "25"),
]


def main() -> int:
    """Run the steps one after the other; returns the exit code of the first that fails."""
    begin = time.monotonic()
    steps = [
        ["train.py", *TRAIN],
        ["eval.py", "--logdir", RUN, "--episodes", "5", "--videos", "2"],
        ["eval.py", "--logdir", RUN, "--episodes", "5", "--videos", "1", "--variant", VARIANT],
        ["train.py", *FINE_TUNE],
        ["eval.py", "--logdir", ONLINE, "--episodes", "5", "--videos", "2"],
        ["-m", "fosp_ext.report", RUN, ONLINE, "--out", REPORT],
    ]
    if not (ROOT / DATASET).exists():
        steps.insert(0, ["train.py", "--configs", "collect", *DATA])
    for words in steps:
        print(f"\n$ python {shlex.join(words)}", flush=True)
        code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
        if code:
            return code
    print(f"\nDone in {(time.monotonic() - begin) / 60:.1f} minutes. Look at:")
    for name, place in {
        "report": newest(f"{REPORT}*/index.html"),
        "dataset (HDF5)": DATASET,
        "offline run": RUN,
        "online run": f"{ONLINE}  (TensorBoard: .venv/bin/tensorboard --logdir logdir/demo)",
        "open-loop videos": f"{RUN}/open_loop",
        "evaluations": f"{RUN}/eval, {ONLINE}/eval",
        "a video": newest(f"{ONLINE}/eval/*/videos/ep_000.mp4"),
    }.items():
        print(f"  {name:<16} {place}")
    return 0


def newest(pattern: str) -> Path:
    """The file of that name that was written last."""
    file = max(ROOT.glob(pattern), key=lambda path: path.stat().st_mtime)
    return file.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
