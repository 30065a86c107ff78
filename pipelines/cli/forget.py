"""The command `a2data forget`."""

import argparse

from a2data.job import UNIT
from a2data.store.ledger import Ledger
from pipelines.cli import session
from pipelines.corpus.forget import forget, remove_damaged, request_for_identity, request_for_source
from pipelines.sources import enrolment


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data forget`."""
    target = sub.add_mutually_exclusive_group(required=True)
    target.add_argument("--source", metavar="ID|PATH", help="video to delete: its id, a prefix of it, or its path")
    target.add_argument(
        "--identity", type=int, metavar="ID", help="identity number; all shots that show it are deleted"
    )
    session.add_flags(sub)
    session.add_out_flags(sub)
    sub.set_defaults(func=_forget)


def _forget(args: argparse.Namespace) -> int:
    from pipelines.run.lock import exclusive_lock
    from pipelines.run.ownership import claim

    store, recipe, stages = session.open_work_folder(args)
    with exclusive_lock(store), claim(store, recipe.folder(store), args.take_over) as owner:
        ledger = Ledger(store)
        enrolment.move_damaged_lists(ledger)
        enrolment.check_sources(ledger)
        request = (
            request_for_source(store, args.source)
            if args.source
            else request_for_identity(store, args.identity, stages)
        )
        removed = forget(store, request, stages)
        damaged = {stage for stage in stages if store.damaged(stage.name())}
        remove_damaged(store, stages)
        for stage, count in removed.items():
            print(f"{stage:14} {count:8} rows removed")
        to_rerun = [
            stage for stage in stages if stage in damaged or (stage.per not in UNIT and store.shards(stage.name()))
        ]
        summary = session.run_stages(args, to_rerun, store, store.shards("manifest"))
        remove_damaged(store, stages)  # found by the jobs
        return session.finish(store, stages, recipe, summary, owner, args.allow_shrink, args.quiet, request.covers)
