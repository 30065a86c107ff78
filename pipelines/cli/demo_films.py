"""`a2data demo-films`."""

import argparse
from pathlib import Path


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `a2data demo-films`."""
    sub.set_defaults(func=_render)
    sub.add_argument("folder", metavar="OUT", help="output folder")


def _render(args: argparse.Namespace) -> int:
    from pipelines.films.demo import render

    print(render(Path(args.folder)))
    return 0
