"""The commands `a2data prefer make` and `a2data prefer study`."""

import argparse
from functools import partial

from a2data.store.folder import Folder
from pipelines.cli import session
from pipelines.cli.flags import Parser, add_settings, given
from pipelines.prefer.stage import Prefer

NOT_SETTINGS = ("shards", "out", "checkpoint_revision", "results_revision", "device")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the commands of `a2data prefer`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="COMMAND", parser_class=Parser)
    summary = "make preference pairs by rule from packed shards"
    actions.add_parser("make", help=summary, description=summary, build=_make_flags)


def _make_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shards", metavar="SHARDS", help="folder (or URL) of packed shards")
    sub.add_argument("--out", required=True, help="output folder (or URL) for the pairs")
    sub.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        help="fraction of clips whose pairs are held out; ignored if pack made splits (default: 0.1)",
    )
    add_settings(sub.add_argument_group("pairs"), Prefer, leave_out=NOT_SETTINGS)
    execution = sub.add_argument_group("execution")
    execution.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    execution.add_argument("--retry", action="store_true", help="process the tars with failed clips again")
    session.add_flags(execution)  # type: ignore[arg-type]
    sub.set_defaults(do=_make, verbose=False)


def _make(args: argparse.Namespace) -> int:
    """Make the pairs and print how many there are of each kind."""
    from pipelines.prefer.make import make

    # absolute for local folders, since workers may have another working directory
    places = {name: f.base if (f := Folder(getattr(args, name))).local else f.root for name in ("shards", "out")}
    stage = Prefer(**places, device=args.device, **given(args, Prefer, leave_out=NOT_SETTINGS))
    counts = make(stage, args.validation_fraction, partial(session.work, args), args.retry)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"{args.out}: {sum(counts.values())} pairs")
    return 0
