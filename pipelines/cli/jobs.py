"""The commands that run the pipeline: run, estimate, one stage, retry."""

import argparse
import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any

from a2data.stage import Stage
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.cli import session, sources
from pipelines.cli.flags import Parser, add_settings, argparse_type, given_values, positive_int
from pipelines.run import estimate, ownership
from pipelines.run import status as planning
from pipelines.run.lock import exclusive_lock
from pipelines.run.recipe import RUNNER_OWNED, Recipe
from pipelines.sources import enrolment
from pipelines.triplets import IMPORTED, PROFILES, triplets
from stages.pack.stage import Pack
from stages.segment.stage import Segment


def add_run_flags(sub: Parser) -> None:
    """Add the flags of `a2data run`."""
    sub.set_defaults(func=_run)
    sub.add_argument(
        "videos", nargs="*", metavar="VIDEOS", help="files, folders, globs, URLs or manifests (csv, jsonl, parquet)"
    )
    sub.add_argument("--work", required=True, help="work folder (or URL) for the tables; an existing one is resumed")
    sub.add_argument("--out", help="output folder for the WebDataset shards (default: shards inside the work folder)")
    sub.add_argument(
        "--videos-per-shard", type=positive_int, help="number of source videos per work shard (default: 8)"
    )
    session.add_recipe_flags(sub)
    sources.add_flags(sub.add_argument_group("sources"))  # type: ignore[arg-type]
    session.add_flags(sub)
    session.add_out_flags(sub)


def add_estimate_flags(sub: Parser) -> None:
    """Add the flags of `a2data estimate`."""
    add_run_flags(sub)
    sub.set_defaults(func=_estimate)
    sub.add_argument(
        "--sample-shards", type=positive_int, default=4, metavar="N", help="shards to run, spread evenly (default: 4)"
    )
    sub.add_argument("--cpus", type=positive_int, default=1, help="CPU workers of the planned run (default: 1)")
    sub.add_argument("--gpus", type=positive_int, default=1, help="GPUs of the planned run (default: 1)")
    price = argparse_type("a price", float)
    sub.add_argument("--cpu-price", type=price, default=0.0, help="price of a CPU worker per hour (default: 0)")
    sub.add_argument("--gpu-price", type=price, default=0.0, help="price of a GPU per hour (default: 0)")


def add_stage_flags(sub: Parser) -> None:
    """Add the flags of the stage that the command is named after: its fields."""
    (stage,) = (stage for stage in triplets() if stage.name() == sub.prog.split()[-1])
    sub.add_argument(
        "--profile", choices=sorted(PROFILES), help="profile to take settings from (default: that of the last run)"
    )
    add_settings(sub.add_argument_group("settings"), stage, exclude=_runner_owned(stage))
    session.add_flags(sub)
    if isinstance(stage, Segment):
        session.add_clock_flag(sub)
    if isinstance(stage, Pack):
        session.add_out_flags(sub)
    sub.set_defaults(func=_stage, stage=stage.name())


def _runner_owned(stage: Stage) -> list[str]:
    return [field for name, field in RUNNER_OWNED if name == stage.name()]


def add_retry_flags(sub: Parser) -> None:
    """Add the flags of `a2data retry`."""
    sub.set_defaults(func=_retry)
    names = [stage.name() for stage in triplets()]
    sub.add_argument("--stage", dest="only", choices=names, help="stage whose failures are retried (default: all)")
    session.add_flags(sub)
    session.add_out_flags(sub)


def _run(args: argparse.Namespace) -> int:
    with _open_run(args) as (ledger, recipe, stages, shards, owner):
        store = ledger.store
        summary = session.run_stages(args, stages, store, shards, ledger=ledger)
        return session.finish(store, stages, recipe, summary, owner, args.allow_shrink, args.quiet)


def _estimate(args: argparse.Namespace) -> int:
    with _open_run(args) as (ledger, _, stages, shards, _):
        store = ledger.store
        sample = estimate.choose_sample(shards, args.sample_shards)
        session.run_stages(args, stages[:1], store, shards, ledger=ledger)
        summary = session.run_stages(args, stages, store, sample, ledger=ledger)
        session.print_failures(summary)
        result = estimate.measure(store, stages, sample)
    print("\n".join(estimate.format_lines(result, args.cpus, args.gpus, args.cpu_price, args.gpu_price)))
    print("the sample is kept in the work folder; `a2data run` with the same arguments continues from it")
    return 0


@contextlib.contextmanager
def _open_run(args: argparse.Namespace) -> Iterator[tuple[Ledger, Recipe, list[Stage], list[int], dict[str, Any]]]:
    """Lock a work folder with its videos listed and its settings saved; yield ledger, recipe, stages, shards and owner."""
    store = Store(args.work)
    ledger = Ledger(store)
    saved_recipe = Recipe.of(store)
    recipe = copy.deepcopy(saved_recipe) or Recipe()
    session.configure(recipe, args)
    if recipe.profile == IMPORTED and args.videos:
        raise ValueError(f"{args.work} is an imported set: add entries to the set and import it again")
    if args.out:
        recipe.set_folder(store, args.out)
    recipe.videos_per_shard = args.videos_per_shard or recipe.videos_per_shard
    stages = recipe.apply(triplets(recipe.profile), store)
    out = recipe.folder(store)
    with exclusive_lock(store):
        # before anything is saved
        checked = ownership.check(store, out, args.take_over)
        shards = enrolment.enroll(store, args.videos, recipe.videos_per_shard, sources.access(args, store), ledger)
        enrolment.check_sources(ledger)
        if recipe != saved_recipe:
            recipe.save(store)
        with ownership.claim(store, out, args.take_over, checked) as owner:
            yield ledger, recipe, stages, shards, owner


def _stage(args: argparse.Namespace) -> int:
    store, recipe, stages = session.open_work_folder(args)
    (stage,) = (s for s in stages if s.name() == args.stage)
    recipe.settings[stage.name()] = recipe.settings.get(stage.name(), {}) | given_values(
        args, stage, _runner_owned(stage)
    )
    stages = recipe.apply(stages, store)
    (stage,) = (s for s in stages if s.name() == args.stage)
    is_pack = isinstance(stage, Pack)
    with exclusive_lock(store), contextlib.ExitStack() as stack:
        owner = stack.enter_context(ownership.claim(store, recipe.folder(store), args.take_over)) if is_pack else {}
        recipe.save(store)
        ledger = Ledger(store)
        enrolment.move_damaged_lists(ledger)
        enrolment.check_sources(ledger)
        summary = session.run_stages(args, [stage], store, ledger.shards("manifest"), ledger=ledger)
        print(f"{summary.jobs} jobs done")
        if is_pack:
            return session.finish(store, stages, recipe, summary, owner, args.allow_shrink, args.quiet)
    return session.conclude(session.print_failures(summary), planning.all_failed(summary.ledger, [stage.name()]))


def _retry(args: argparse.Namespace) -> int:
    store, recipe, stages = session.open_work_folder(args)
    with exclusive_lock(store), ownership.claim(store, recipe.folder(store), args.take_over) as owner:
        ledger = Ledger(store)
        enrolment.move_damaged_lists(ledger)
        enrolment.check_sources(ledger)
        failed = [f for f in planning.failures(ledger, [s.name() for s in stages]) if args.only in (None, f[0])]
        manifest_rows = planning.sources(store, [shard for _, shard, _, _ in failed])
        for stage, shard, unit, _ in failed:
            source = manifest_rows.get((shard, unit))
            if source and planning.is_replaced(source):
                print(
                    f"{source.path} has changed since it failed; add it with `a2data run` and the same VIDEOS",
                    file=sys.stderr,
                )
            elif unit:  # a job that failed as a whole is retried anyway
                store.remove(stage, f"{shard:05d}.parquet")
                ledger.reread([(stage, shard)])
        summary = session.run_stages(args, stages, store, ledger.shards("manifest"), ledger=ledger)
        return session.finish(store, stages, recipe, summary, owner, args.allow_shrink, args.quiet)
