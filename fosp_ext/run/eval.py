"""The command line of eval.py: a trained agent plays episodes in its environment."""

from __future__ import annotations

import argparse
from functools import partial

from dreamer.boundary import Parser, guarded, named_path
from dreamer.command_line import parse_command_line
from dreamer.errors import UserError
from dreamer.signals import answers_signals

MOST = 10**9  # of any number here; a seed and its episodes still fit into 32 bits
POLICIES = ("set", "online", "offline", "proposals")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        description="Play episodes with fixed seeds; write a summary, episodes and videos.",
        epilog="--policy_set.KEY VALUE changes a setting of the choice between proposals "
        "(train.py --help), for --policy proposals or a run with a policy set.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--logdir",
        type=named_path,
        metavar="RUN",
        help="run folder; its newest checkpoint is taken",
    )
    source.add_argument("--checkpoint", type=named_path, metavar="FILE", help="one checkpoint file")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to play")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--videos", type=int, default=3, help="episodes to video")
    parser.add_argument("--task", help="refuse a checkpoint that was trained for another task")
    parser.add_argument("--variant", help="variant of the task, instead of the run's own")
    parser.add_argument(
        "--policy",
        type=policies,
        default=(),
        metavar="NAME[,NAME...]",
        help=f"who acts, of {', '.join(POLICIES)}; online, offline: in a run with a policy set, "
        "instead of the set; proposals: in any run with critics of costs, the best of several "
        "actions that the one policy proposes; several names play at the same time",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 takes one")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="environments, each in a process of its own, in which episodes are played at the same "
        "time; 0 takes four, one for a custom task; 1 plays one episode after the other",
    )
    parser.add_argument(
        "--out",
        type=named_path,
        help="folder to write; default RUN/eval/<updates>[-<variant>][-<policy>], "
        "for a file outside a run logdir/<name of FILE>/eval/...",
    )
    arguments, rest = parser.parse_known_args(argv)
    arguments.choice = choice_words(parser, rest)
    least_of = {"episodes": 1, "seed": 0, "videos": 0, "threads": 0, "workers": 0}
    for name, least in least_of.items():
        if not least <= getattr(arguments, name) <= MOST:
            parser.error(f"--{name} must be {least} to {MOST}")
    return arguments


def policies(text: str) -> tuple[str, ...]:
    """Names such as `set,offline`, each once."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(POLICIES)}")
    return names


def choice_words(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, str]:
    """Settings policy_set.KEY -> value among the words that the parser does not know."""
    try:
        names, settings, _ = parse_command_line(words, {})
    except UserError as error:
        parser.error(str(error))
    if names or not all(key.startswith("policy_set.") for key in settings):
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    return settings


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    arguments = parse(argv)
    return guarded(partial(command, arguments), "stopped; the next evaluation begins anew")


def command(arguments: argparse.Namespace) -> int:
    """The same, with its errors."""
    from fosp_ext.run.evaluate import RolloutSettings, play  # torch, not needed for --help

    play(
        RolloutSettings(
            source=arguments.logdir or arguments.checkpoint,
            episodes=arguments.episodes,
            seed=arguments.seed,
            videos=arguments.videos,
            task=arguments.task,
            variant=arguments.variant,
            device=arguments.device,
            out=arguments.out,
            policies=arguments.policy,
            threads=arguments.threads,
            workers=arguments.workers,
            choice=arguments.choice,
        )
    )
    return 0
