"""The command `a2data import`: a data set that others made becomes the tables and shards of a work folder."""

import argparse
import sys

from a2data.store.tables import Store
from pipelines.cli import session
from pipelines.corpus import imports, sets
from pipelines.run import ownership
from pipelines.run.lock import exclusive_lock
from pipelines.run.recipe import Recipe
from pipelines.triplets import IMPORTED, triplets

MAX_PRINTED = 10  # entries that are printed


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data import`."""
    command.add_argument("set", metavar="SET", help="parquet, JSON or folder of the data set")
    command.add_argument(
        "--from", dest="kind", required=True, choices=["phantom", "opens2v", "folder", "shards"],
        help="format of the set, see docs/import.md",
    )  # fmt: skip
    command.add_argument("--work", required=True, help="new work folder for the tables; the same set resumes it")
    command.add_argument("--out", help="folder for the shards (default: shards inside the work folder)")
    command.add_argument("--videos", default="", help="folder of the clips (phantom, opens2v)")
    command.add_argument(
        "--pairs", default="", help="folder of the cross-frame pairs (opens2v; default: within one clip)"
    )
    command.add_argument("--license", default="", help="licence of the clips, where the set states none")
    command.add_argument("--videos-per-shard", type=int, default=64, help="files per work shard (default: %(default)s)")
    command.add_argument(
        "--set",
        dest="assign",
        action="append",
        default=[],
        metavar="STAGE.FIELD=VALUE",
        help="setting of a stage; repeatable",
    )
    session.add_flags(command.add_argument_group("execution"))  # type: ignore[arg-type]
    session.add_out_flags(command)
    command.set_defaults(func=import_set)


def import_set(args: argparse.Namespace) -> int:
    """Write the manifest and the table `imported`, and run the stages of the profile "imported"."""
    store = Store(args.work)
    recipe = Recipe.of(store) or Recipe(profile=IMPORTED)
    if recipe.profile != IMPORTED:
        raise ValueError(f"{args.work} belongs to `a2data run`: give another --work")
    if args.out:
        recipe.set_folder(store, args.out)
    recipe.set(triplets(IMPORTED), args.assign)
    stages, out = recipe.apply(triplets(IMPORTED), store), recipe.folder(store)
    with exclusive_lock(store):
        ownership.check(store, out, args.take_over)
        entries = sets.read_entries(args.kind, args.set, args.videos, args.pairs, store.path("unpacked"))
        result = imports.write(store, entries, args.license, args.videos_per_shard)
        recipe.save(store)
        print(f"{result.clips} clips with {result.references} references, {len(result.bad)} entries not imported")
        for bad in result.bad[:MAX_PRINTED]:
            print(f"{bad.key}: {bad.reason}", file=sys.stderr)
        with ownership.claim(store, out, args.take_over) as owner:
            summary = session.run_stages(args, stages, store, store.shards("manifest"))
            return session.finish(store, stages, recipe, summary, owner, args.allow_shrink, args.quiet)
