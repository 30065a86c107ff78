"""The command `a2data calibrate`."""

import argparse

from pipelines.cli import session
from pipelines.corpus.calibrate import calibrate, format_table, write
from pipelines.marks import read
from pipelines.run.recipe import FILE


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data calibrate`."""
    sub.add_argument(
        "--target-far",
        type=_rate,
        default=0.001,
        metavar="RATE",
        help="target false accept rate: fraction of pairs of different elements accepted as the same, above 0 and below 0.5 "
        "(default: 0.001)",
    )
    sub.add_argument(
        "--marks",
        metavar="FILE",
        help="pairs that were marked right or wrong in `a2data ui`, which replace the negatives and positives of their kinds",
    )
    sub.add_argument("--dry-run", action="store_true", help="print the thresholds without writing them")
    sub.set_defaults(func=_calibrate)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid rate: give a number above 0 and below 0.5, such as 0.001"
        )
    return value


def _calibrate(args: argparse.Namespace) -> int:
    from pipelines.run.lock import exclusive_lock

    store, _, stages = session.open_work_folder(args)
    marks = read(args.marks) if args.marks else {}
    if args.marks and not marks:
        raise ValueError(f"{args.marks} does not have marks: mark pairs with `a2data ui --work {args.work}`")
    calibrated, skipped = calibrate(store, args.target_far, stages, marks)
    for line in format_table(calibrated, args.target_far):
        print(line)
    for reason in skipped:
        print(f"not calibrated: {reason}")
    if calibrated and not args.dry_run:
        with exclusive_lock(store):
            write(store, calibrated, args.target_far)
        print(
            f"wrote {store.path(FILE)}: the next `a2data run` uses it; delete it to return to the models' default thresholds"
        )
    return 0 if calibrated else 1
