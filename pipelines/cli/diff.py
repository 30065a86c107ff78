"""The command `a2data diff`: what differs between two runs or two data sets."""

import argparse
from pathlib import Path

from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.corpus import diff
from pipelines.run.recipe import Recipe
from pipelines.triplets import triplets


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data diff`."""
    for name, metavar in (("first", "RUN_A"), ("second", "RUN_B")):
        command.add_argument(name, metavar=metavar, help=f"{name} work folder, or folder of shards")
    command.add_argument("--html", metavar="FILE", help="also write a page with the pictures of both sides")
    command.add_argument(
        "--limit", type=int, default=40, help="number of triplets to list and draw (default: %(default)s)"
    )
    command.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the differences. Returns 1 if a triplet differs."""
    first, second = _side(args.first), _side(args.second)
    differences = diff.diff(first, second)
    print(diff.format_diff(differences, args.limit), end="")
    if args.html:
        diff.write_page(Path(args.html), differences, first, second, args.limit)
        print(f"page: {args.html}")
    return int(bool(differences.changes))


def _side(name: str) -> diff.Dataset:
    store = Store(name)
    recipe = Recipe.of(store)
    if recipe is None:
        return diff.Dataset.of(Folder(name))
    return diff.Dataset.of(recipe.folder(store), store, recipe.apply(triplets(recipe.profile), store))
