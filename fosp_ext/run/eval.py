"""The command line of eval.py: a trained agent plays episodes in its environment."""

from __future__ import annotations

import argparse
from pathlib import Path

from dreamer.errors import UserError, tell_error


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Play episodes with fixed seeds; write a summary, episodes and videos.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--logdir", metavar="RUN", help="run folder; its newest checkpoint is taken"
    )
    source.add_argument("--checkpoint", metavar="FILE", help="one checkpoint file")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to play")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--videos", type=int, default=3, help="episodes to video")
    parser.add_argument("--task", help="refuse a checkpoint that was trained for another task")
    parser.add_argument("--variant", help="variant of the task, instead of the run's own")
    parser.add_argument(
        "--policy",
        choices=("set", "online", "offline"),
        help="who acts in a run with a policy set, instead of the set",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of torch; 0 takes every core"
    )
    parser.add_argument(
        "--out",
        help="folder to write; default RUN/eval/<updates>[-<variant>][-<policy>], "
        "for a file outside a run logdir/<name of FILE>/eval/...",
    )
    arguments = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("seed", 0), ("videos", 0), ("threads", 0)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    arguments = parse(argv)
    try:
        from fosp_ext.run.evaluate import RolloutSettings, play  # torch, not needed for --help

        play(
            RolloutSettings(
                source=Path(arguments.logdir or arguments.checkpoint),
                episodes=arguments.episodes,
                seed=arguments.seed,
                videos=arguments.videos,
                task=arguments.task,
                variant=arguments.variant,
                device=arguments.device,
                out=Path(arguments.out) if arguments.out else None,
                policy=arguments.policy,
                threads=arguments.threads,
            )
        )
        return 0
    except (UserError, KeyboardInterrupt) as error:
        return tell_error(error, "stopped; the episodes that were finished are kept")
