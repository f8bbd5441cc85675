"""Inspect, validate, merge, split and convert datasets: python -m fosp_ext.dataset COMMAND ..."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dreamer.errors import UserError, tell_error
from dreamer.signals import answers_signals
from fosp_ext.commands import as_called
from fosp_ext.dataset.check import check_dataset
from fosp_ext.dataset.conversion_plan import RENDERS
from fosp_ext.dataset.convert import FORMATS, WRITABLE, convert
from fosp_ext.dataset.exchange import Labels
from fosp_ext.dataset.figure import draw_summary, free_figure_path
from fosp_ext.dataset.rearrange import Choice, merge, split
from fosp_ext.dataset.summary import describe, summarise, table, training_command

PROGRAM = as_called("python -m fosp_ext.dataset")


@answers_signals
def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0, 2 for wrong arguments, 4 for a file that is no valid dataset."""
    options = parse(argv)
    try:
        return options.run(options)
    except (UserError, OSError, KeyboardInterrupt) as error:
        return tell_error(error, "stopped; nothing was left half-written")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__.split(":")[0] + ". Nothing is ever overwritten.",
        epilog="Exit codes: 0 done, 2 wrong arguments or files that differ, 4 no valid dataset.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_validate(commands)
    _add_merge(commands)
    _add_split(commands)
    _add_convert(commands)
    return parser.parse_args(argv)


def run_inspect(options: argparse.Namespace) -> int:
    """Print the numbers of a file and draw them."""
    summary = summarise(options.file)
    print("\n".join(describe(summary)))
    if not options.no_figure:
        path = options.figure or free_figure_path(options.file)
        draw_summary(summary, path)
        print(f"\nfigure: {path}")
    return 0


def run_validate(options: argparse.Namespace) -> int:
    """One line for each file; the exit code is that of the worst."""
    worst = 0
    for path in options.files:
        try:
            check_dataset(path, sys.stderr)
            summary = summarise(path)
            print(
                f"{path}: valid, {len(summary.lengths)} episodes, {len(summary.actions)} "
                f"transitions of {summary.info.task}"
            )
        except UserError as error:
            worst = max(worst, tell_error(error))
    return worst


def run_merge(options: argparse.Namespace) -> int:
    """Merge files."""
    merge(options.output, options.inputs, sys.stderr)
    return _show(options.output)


def run_split(options: argparse.Namespace) -> int:
    """Split a file, or extract some of its episodes."""
    choice = Choice(
        policies=options.policy,
        max_cost=options.max_cost,
        episodes=options.episodes,
        fraction=options.fraction,
        seed=options.seed,
    )
    split(options.input, options.output, options.rest, choice, sys.stderr)
    _show(options.output)
    return _show(options.rest) if options.rest else 0


def run_convert(options: argparse.Namespace) -> int:
    """Convert a dataset to another format."""
    labels = Labels(
        task=options.task,
        action_repeat=options.action_repeat,
        render=options.render,
        cameras=options.cameras,
        policy=options.policy,
        rename=options.rename,
        size=options.size,
        action_low=options.action_low,
        action_high=options.action_high,
        clip_actions=options.clip_actions or None,
        cost_from=options.cost_from,
    )
    kinds = (options.kind, options.to)
    remarks = convert(options.source, options.target, kinds, labels, options.time_limit, sys.stderr)
    for remark in remarks:
        print(f"note: {remark}")
    if options.to == "fosp":
        _show(options.target)
        print(as_called(f"train on it: {training_command(options.target)}"))
        return 0
    print(f"written: {options.target}")
    return 0


def _show(path: Path) -> int:
    print(f"written: {path}")
    print("\n".join(table(summarise(path))))
    return 0


def _add(
    commands: argparse._SubParsersAction, name: str, about: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {PROGRAM} {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    about = "print the numbers of a file and draw its summary: returns, actions, images"
    parser = _add(commands, "inspect", about, "logdir/SafetyPointGoal1-v0/dataset.h5")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--figure", type=Path, metavar="PNG", help="where to draw (default: FILE with .png)"
    )
    parser.add_argument("--no-figure", action="store_true", help="only print")
    parser.set_defaults(run=run_inspect)


def _add_validate(commands: argparse._SubParsersAction) -> None:
    about = "check every key and decode every image"
    parser = _add(commands, "validate", about, "first.h5 second.h5")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.set_defaults(run=run_validate)


def _add_merge(commands: argparse._SubParsersAction) -> None:
    about = "merge files of the same task, cameras, size, action repeat and render"
    parser = _add(commands, "merge", about, "all.h5 first.h5 second.h5")
    parser.add_argument("output", type=Path, metavar="OUT", help="new file")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="IN")
    parser.set_defaults(run=run_merge)


def _add_split(commands: argparse._SubParsersAction) -> None:
    about = "take some episodes of a file, and put the others in a second one if it is named"
    parser = _add(commands, "split", about, "data.h5 safe.h5 rest.h5 --policy safe --max-cost 0")
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT", help="new file of the chosen episodes")
    parser.add_argument("rest", type=Path, nargs="?", metavar="REST", help="new file of all others")
    parser.add_argument(
        "--policy", type=_names, default=(), metavar="NAMES", help="only these, as safe,random"
    )
    parser.add_argument(
        "--max-cost", type=float, metavar="COST", help="only episodes that cost no more"
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--episodes", type=int, metavar="N", help="how many of those")
    amount.add_argument("--fraction", type=float, metavar="F", help="what share of those")
    parser.add_argument("--seed", type=int, help="choose at random, not the first ones")
    parser.set_defaults(run=run_split)


def _add_convert(commands: argparse._SubParsersAction) -> None:
    about = "convert a dataset to another format"
    example = "chunks/ data.h5 --from dreamer --task SafetyPointGoal1-v0 --action-repeat 4"
    parser = _add(commands, "convert", about, example)
    kinds = "; ".join(f"{name}: {kind.about}" for name, kind in FORMATS.items())
    parser.description = f"{parser.description} {kinds}."
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("target", type=Path, metavar="TARGET", help="new file or folder")
    for option, target, choices in (("--from", "kind", tuple(FORMATS)), ("--to", "to", WRITABLE)):
        parser.add_argument(
            option, dest=target, choices=choices, default="fosp", help="format (default: fosp)"
        )
    facts = parser.add_argument_group("facts that a foreign source lacks")
    facts.add_argument("--task", help="such as SafetyPointGoal1-v0")
    facts.add_argument("--action-repeat", type=int, metavar="N", help="frames per action")
    facts.add_argument(
        "--render",
        choices=RENDERS,
        help="quality of the images of a Safety-Gymnasium task (default: exact)",
    )
    facts.add_argument("--policy", metavar="NAME", help="policy that acted (default: unknown)")
    facts.add_argument(
        "--time-limit", type=int, metavar="N", help="N transitions or more were cut off, not ended"
    )
    _add_changes(parser.add_argument_group("what the new file takes over, and how"))
    parser.set_defaults(run=run_convert)


def _add_changes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cameras", type=_names, metavar="NAMES", help="take these images alone, as front,wrist"
    )
    group.add_argument(
        "--rename", type=_names, metavar="OLD=NEW", help="names of images and vectors, with commas"
    )
    group.add_argument("--size", type=int, metavar="N", help="resize the images to N x N")
    for side in ("low", "high"):
        group.add_argument(
            f"--action-{side}", type=float, nargs="+", metavar="X",
            help=f"{side} end of the actions' range: one number, or one for each component",
        )  # fmt: skip
    group.add_argument(
        "--clip-actions", action="store_true",
        help="actions beyond the range were played as its ends, as DreamerV3's environments do",
    )  # fmt: skip
    group.add_argument(
        "--cost-from", metavar="MODULE:FUNCTION",
        help="compute costs, or costs and rewards, from the recorded arrays",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
