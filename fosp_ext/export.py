"""A small file with what acting needs of a run: python -m fosp_ext.export RUN --out FILE

FILE.pt is played by eval.py; FILE.onnx by fosp_ext/runtime, without PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamer.boundary import Parser, guarded, named_path
from dreamer.config import DEFAULTS, load_presets, to_dict
from dreamer.errors import UserError
from dreamer.files import atomic_path
from dreamer.outputs import new_output, refuse_existing
from dreamer.signals import answers_signals
from dreamer.training.checkpoint import Checkpoint
from dreamer.training.run_folder import META, provenance, read_starts, run_of, saved_state
from fosp_ext.commands import as_called
from fosp_ext.config import OnlineConfig
from fosp_ext.envs.tasks import action_rate, is_custom
from fosp_ext.policy_set import PolicySet
from fosp_ext.run.presets import PRESETS
from fosp_ext.run.run_folder import LoadedRun, leave_out_learning, load_run
from fosp_ext.runtime.file import FORMAT, PolicyFacts

EPILOG = """example:
  python -m fosp_ext.export logdir/SafetyPointGoal1-v0/fosp_offline-cpu-quick/seed0 --out mine.pt
  python eval.py --checkpoint mine.pt
  python -m fosp_ext.export mine.pt --out mine.onnx

The agent in a FILE.pt acts and judges states as the run's does, but for the rounding of its weights
to float16, and it predicts images. It cannot be trained. A FILE.onnx acts and judges in float32,
without PyTorch and without images (docs/reference/runtime.md). Exit codes: 0 done, 2 wrong words, a
RUN without a checkpoint, or a FILE that exists."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog=as_called("python -m fosp_ext.export"),
        description="Write the agent of a run as one small file that acts.",
        epilog=as_called(EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=named_path, metavar="RUN",
        help="run folder of train.py, whose newest checkpoint is taken, or one checkpoint file; "
        "for FILE.onnx also an exported FILE.pt",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="FILE",
        help="file to write, .pt or .onnx; it must not exist",
    )
    return parser.parse_args(argv)


def export(source: Path, out: Path) -> Path:
    """Write the agent of a run folder or checkpoint, online or offline, to a new file `out`.

    Matrices become float16, which halves them; vectors are few and stay float32. The file is a
    checkpoint without what learning needs, with `left_out`, the names of the missing parts, and
    `provenance`: run, updates, dataset, `training` (the starts of the run) and `export` (this
    command). A source that cannot be exported, and a file that exists, are a `UserError`.
    """
    with new_output(out):
        return _export(source, out)


def _export(source: Path, out: Path) -> Path:
    run = load_run(source, torch.device("cpu"))
    if run.exported:
        raise UserError(f"{source} is an exported agent already")
    parts = leave_out_learning(run.agent, heads=not judges_by_rollouts(run))
    weights = run.agent.state_dict()
    state = {
        "agent": {name: x.half() if x.ndim > 1 else x for name, x in weights.items()},
        "config": to_dict(run.config),
        "info": to_dict(run.info),
        "dataset": run.dataset,
        "left_out": parts,
        "provenance": origin(run, source),
    }
    Checkpoint.write(out, run.updates, state)
    return out


def export_onnx(source: Path, out: Path) -> Path:
    """Write the agent of a run folder, checkpoint or exported file to a new ONNX file `out`.

    An agent whose choice draws numbers of its own, missing packages and a file that exists are a
    `UserError`.
    """
    from fosp_ext.onnx_graph import check_exportable, estimate_names, onnx_file

    refuse_existing(out)
    run = load_run(source, torch.device("cpu"))
    check_exportable(run.agent)
    run.agent.float()
    info, state = run.info, run.agent.initial(1).latent
    facts = PolicyFacts(
        format=FORMAT,
        task=info.task,
        cameras=info.cameras,
        size=info.size,
        action_size=info.action_size,
        action_scale=info.action_scale,
        rate=action_rate(info.task, info.action_repeat),
        latent=(tuple(state.deter.shape[1:]), tuple(state.stoch.shape[1:])),
        estimates=estimate_names(run.agent, info.cameras, info.size),
        warning=warning_threshold(run),
        calibration=None,
        updates=run.updates,
        provenance=origin(run, source),
    )
    content = onnx_file(run.agent, facts)
    with new_output(out), atomic_path(out) as part:
        part.write_bytes(content)
    return out


def warning_threshold(run: LoadedRun) -> float:
    """Violation probability above which a step warns: the run's, offline that of `defaults`."""
    if isinstance(run.config, OnlineConfig):
        return run.config.online.warning
    return float(load_presets(PRESETS)[DEFAULTS]["online"]["warning"])


def origin(run: LoadedRun, source: Path) -> dict[str, Any]:
    """Where an exported agent comes from: its run, the starts of that, and this command."""
    return {
        "run": run.config.logdir,
        "updates": run.updates,
        "dataset": run.dataset,
        "training": starts_of(source),
        "export": provenance(),
    }


def judges_by_rollouts(run: LoadedRun) -> bool:
    """Does the agent of a run imagine rewards and costs when it acts?"""
    policy = run.agent.policy
    return isinstance(policy, PolicySet) and policy.choice.settings.score == "rollout"


def starts_of(source: Path) -> list[dict[str, Any]]:
    """What meta.json of the run says of each of its starts; nothing for a file outside a run."""
    folder = run_of(source)
    return [] if folder is None else read_starts(folder / META) or []


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit code."""
    return guarded(partial(command, parse(argv)))


def command(options: argparse.Namespace) -> int:
    """The same, with its errors."""
    write = export_onnx if options.out.suffix == ".onnx" else export
    file = write(options.run, options.out)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    if file.suffix != ".onnx":
        task = saved_state(file)["info"]["task"]
        named = f" --task {task}" if is_custom(task) else ""  # or its module is not imported
        print(as_called(f"play it: python eval.py --checkpoint {file}{named}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
