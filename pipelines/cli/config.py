"""`a2data config`: the settings of a run as a settings file."""

import argparse
import sys

from pipelines.cli import session
from pipelines.run.recipe import Recipe
from pipelines.run.settings_file import dump
from pipelines.triplets import triplets


def add_flags(config: argparse.ArgumentParser) -> None:
    """Add the subcommands of `a2data config`."""
    commands = config.add_subparsers(dest="action", required=True, metavar="COMMAND")
    summary = "print the effective settings as TOML, for --config"
    sub = commands.add_parser("dump", help=summary, description=summary)
    sub.set_defaults(func=_dump)
    sub.add_argument("--work", help="work folder (or URL) whose settings are printed (default: those of the profile)")
    session.add_recipe_flags(sub)


def _dump(args: argparse.Namespace) -> int:
    if args.work:
        _, recipe, stages = session.open_work_folder(args)
    else:
        recipe = Recipe()
        session.configure(recipe, args)
        stages = recipe.configured(triplets(recipe.profile))
    sys.stdout.write(dump(stages, recipe.profile))
    return 0
