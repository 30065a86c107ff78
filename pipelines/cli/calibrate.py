"""The command `a2data calibrate`."""

import argparse

from a2data.store.tables import Store
from pipelines.corpus.calibrate import calibrate, table, write
from pipelines.run.recipe import FILE


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data calibrate` its flags."""
    sub.add_argument(
        "--false-accept",
        type=_rate,
        default=0.001,
        metavar="RATE",
        help="share of different ones that may be taken for the same (default: 0.001)",
    )
    sub.add_argument("--dry-run", action="store_true", help="print the thresholds and write nothing")
    sub.set_defaults(do=_calibrate)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: give a number above 0 and below 0.5, such as 0.001")
    return value


def _calibrate(args: argparse.Namespace) -> int:
    from pipelines.run.lock import exclusive_lock

    store = Store(args.work)
    found, refused = calibrate(store, args.false_accept)
    for line in table(found, args.false_accept):
        print(line)
    for sentence in refused:
        print(f"not calibrated: {sentence}")
    if found and not args.dry_run:
        with exclusive_lock(store):
            write(store, found, args.false_accept)
        print(
            f"{store.path(FILE)}: the next `a2data run` pairs by it; remove it to go back to the models' own thresholds"
        )
    return 0 if found else 1
