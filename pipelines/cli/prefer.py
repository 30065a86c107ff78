"""The commands `a2data prefer make` and `a2data prefer study`."""

import argparse
import json
from functools import partial
from pathlib import Path

from a2data.store.folder import Folder
from pipelines.cli import session
from pipelines.cli.flags import Parser, add_settings, given_values
from pipelines.prefer.stage import Prefer

NOT_SETTINGS = ("shards", "out", "checkpoint_revision", "results_revision", "device")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the commands of `a2data prefer`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="COMMAND", parser_class=Parser)
    summary = "make preference pairs by rule from packed shards"
    actions.add_parser("make", help=summary, description=summary, build=_make_flags)
    summary = "have people compare the videos of pairs: make the page, join the answers"
    actions.add_parser("study", help=summary, description=summary, build=_study_flags)


def _make_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shards", metavar="SHARDS", help="folder (or URL) of packed shards")
    sub.add_argument("--out", required=True, help="output folder (or URL) for the pairs")
    sub.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        help="fraction of clips whose pairs are held out; ignored if pack made splits (default: 0.1)",
    )
    add_settings(sub.add_argument_group("pairs"), Prefer, exclude=NOT_SETTINGS)
    execution = sub.add_argument_group("execution")
    execution.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    execution.add_argument("--retry", action="store_true", help="process the tars with failed clips again")
    session.add_flags(execution)  # type: ignore[arg-type]
    sub.set_defaults(func=_make, verbose=False)


def _make(args: argparse.Namespace) -> int:
    """Make the pairs and print how many there are of each kind."""
    from pipelines.prefer.make import make

    # absolute for local folders, since workers may have another working directory
    shards, out = (f.base if (f := Folder(path)).local else f.root for path in (args.shards, args.out))
    stage = Prefer(shards=shards, out=out, device=args.device, **given_values(args, Prefer, exclude=NOT_SETTINGS))
    counts = make(stage, args.validation_fraction, partial(session.run_stages, args), args.retry)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"{args.out}: {sum(counts.values())} pairs")
    return 0


def _study_flags(study: argparse.ArgumentParser) -> None:
    actions = study.add_subparsers(dest="study_action", required=True, metavar="COMMAND")
    summary = "write the page on which people compare the two videos of each pair"
    sub = actions.add_parser("make", help=summary, description=summary)
    sub.add_argument("pairs", metavar="PAIRS", help="folder of preference pairs")
    sub.add_argument(
        "--out", required=True, type=Path, help="output folder for the page; do not give key.json in it to raters"
    )
    sub.add_argument("--count", type=int, default=0, help="number of pairs, chosen by the seed; 0: all (default: 0)")
    sub.add_argument("--seed", type=int, default=0, help="seed of choice, order and sides (default: 0)")
    sub.add_argument("--embed", action="store_true", help="embed the videos in the page: one file, a third larger")
    sub.add_argument("--title", default="", help="title of the page")
    sub.set_defaults(func=_study_make)
    summary = "write the pairs that raters agree about, with their preferences"
    sub = actions.add_parser("join", help=summary, description=summary)
    sub.add_argument("pairs", metavar="PAIRS", help="folder of the pairs that the study was made from")
    sub.add_argument("ratings", metavar="RATINGS", type=Path, nargs="+", help="files that the page exported")
    sub.add_argument("--key", required=True, type=Path, help="key.json of the study")
    sub.add_argument("--out", required=True, help="output folder for the pairs")
    sub.set_defaults(func=_study_join)
    study.set_defaults(verbose=False)


def _study_make(args: argparse.Namespace) -> int:
    from pipelines.prefer import study

    key = study.make(args.pairs, args.out, args.count, args.seed, args.embed, args.title)
    print(f"{len(key['slots'])} pairs: {args.out / 'study.html'}")
    return 0


def _study_join(args: argparse.Namespace) -> int:
    from pipelines.prefer import study

    counts = study.join(args.pairs, args.ratings, json.loads(args.key.read_text()), args.out)
    print(f"{args.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0
