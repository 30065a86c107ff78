"""a2data: turn raw video into prompt-reference-video triplets, one stage at a time or all at once."""

import argparse
import contextlib
import copy
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.parquet import DamagedError
from a2data.store.tables import Store
from a2data.store.url import public_name, scrub
from pipelines.cli import session, sources
from pipelines.cli.flags import Parser, Top, Version, add_settings, argparse_type, given
from pipelines.run import estimate, ownership, verify
from pipelines.run import status as planning
from pipelines.run.lock import exclusive_lock
from pipelines.run.recipe import RUNNER_OWNED, Recipe
from pipelines.run.schedule import MAX_WORKER_DEATHS, CrewLostError
from pipelines.sources import enrolment
from pipelines.triplets import IMPORTED, PROFILES, triplets
from stages.pack.stage import Pack
from stages.segment.stage import Segment

log = logging.getLogger("a2data")

# What a command needs beyond the core. A stage is not here: the cards of its models name theirs.
EXTRAS = {
    "encode": "train",
    "train": "train",
    "prefer": "train",
    "reward": "train",
    "sample": "train",
    "ui": "ui",
    "triplet-bench": "demo",
    "bench": "bench",
    "demo-films": "demo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: success. 1: a job failed and the failure was reported. 2: the command or its arguments are invalid. 130: interrupted.
    """
    args = parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO if args.verbose else logging.ERROR)
    try:
        return _do(args)
    except KeyboardInterrupt:
        print("a2data: interrupted; re-run the same command to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `a2data explain ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CrewLostError as error:
        print(f"a2data: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError) as error:
        if args.verbose:
            raise
        print(scrub(f"a2data: {_missing_extra(error, args) or error}{_refused(error)}"), file=sys.stderr)
        return 2


def _refused(error: Exception) -> str:
    """Return what to do if S3 refused the credentials; "" otherwise. Its answers to HEAD requests have a status and no text."""
    refused = re.search(r"AWS Error (?!SLOW_DOWN).*\b(HTTP status 40[013]|ACCESS_DENIED|ExpiredToken)\b", str(error))
    return ". Check the credentials of the object store: they may be missing, wrong or expired" if refused else ""


def _missing_extra(error: Exception, args: argparse.Namespace) -> str:
    """Name the extra that installs the package a command lacks; "" for other errors, and where the error names it already."""
    if not isinstance(error, ModuleNotFoundError) or not str(error).startswith("No module named"):
        return ""
    package = (error.name or "").partition(".")[0]
    # any command with --ray may lack ray
    extra = {"ray": "ray", "prometheus_client": "metrics"}.get(package) or EXTRAS.get(args.command, "")
    if not extra or package in ("a2data", "model_zoo", "stages", "pipelines"):
        return ""
    return f"`a2data {args.command}` needs the package {package!r}: pip install 'a2data[{extra}]'"


def _do(args: argparse.Namespace) -> int:
    """Run the command; rerun it if it found a damaged part that was moved aside. Every command is safe to rerun."""
    met: Counter = Counter()
    while True:
        try:
            return int(args.do(args) or 0)
        except DamagedError as error:
            met[error.path] += 1
            if not error.moved or met[error.path] == MAX_WORKER_DEATHS:
                raise
            log.error("%s", error)


# commands of a module each: `add_flags` there adds the flags and sets what is done
MODULES = {
    "models": ("models", "manage models: list, show, doctor, fetch, verify, licences"),
    "encode": ("encode", "encode shards with A2's encoders for training"),
    "train": ("train", "fine-tune A2 on shards; `train estimate` estimates the cost"),
    "prefer": ("prefer", "make preference pairs and have people compare them: make, study"),
    "reward": ("reward", "train a reward model on preference pairs"),
    "sample": ("sample", "sample videos from prompts and references"),
    "export": ("export", "export shards to the data that another trainer reads"),
    "import": ("import_", "import a data set that others made: Phantom-Data, OpenS2V-5M, folders, shards"),
    "audit": ("audit", "report the faults of the references of a data set, measured on its pictures"),
    "diff": ("diff", "compare two runs or two data sets: counts, triplets that came or went with reasons, references"),
    "ui": ("ui", "serve a local page to sample videos and browse shards"),
    "calibrate": ("calibrate", "estimate the thresholds of retrieve from the corpus"),
    "forget": ("forget", "permanently delete a source or a person from every table and every shard"),
    "triplet-bench": ("triplet_bench", "run TripletBench: make, score, report, check"),
    "bench": ("a2_bench", "run A2-Bench: make, run, score, study, leaderboard"),
}
TAKES_WORK = {"calibrate", "forget"}


def parser() -> argparse.ArgumentParser:
    """Return the parser with all commands. The flags of a stage command are the stage's fields."""
    top = Top("a2data", description=__doc__)
    top.add_argument("--version", action=Version, help="print the version")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        name: str, do: Any, summary: str, flags: Callable[[Parser], None] | None = None, work: bool = True
    ) -> None:
        def build(sub: Parser) -> None:
            sub.set_defaults(do=do)
            sub.add_argument("--verbose", action="store_true", help="log progress and tracebacks")
            if work:
                sub.add_argument("work", metavar="WORK", help="work folder (or URL) with the tables")
            if flags:
                flags(sub)

        commands.add_parser(name, help=summary, description=summary, build=build)

    command("run", _run, "run videos through the whole pipeline", _run_flags, work=False)
    command(
        "estimate", _estimate, "estimate the cost of a run from a sample of its videos", _estimate_flags, work=False
    )
    for stage in triplets():
        command(stage.name(), _stage, _first_line(stage), partial(_stage_flags, stage))
    command("status", _status, "show the progress of every stage", _json_flags)
    command(
        "verify",
        _verify,
        "check shards against their manifest and tables against their checksums",
        _verify_flags,
        work=False,
    )
    command("plan", _plan, "list the jobs that a run with these settings would do, with the reasons", _plan_flags)
    command("failures", _failures, "list all failures with their reasons", _json_flags)
    command("retry", _retry, "retry failed units and jobs", _retry_flags)
    command(
        "explain",
        _explain,
        "explain why a video, clip, element or reference was kept, rejected or paired",
        _explain_flags,
    )
    command("report", _report, "write the report as one HTML file", _report_flags)
    for name, (module, summary) in MODULES.items():
        command(name, None, summary, partial(_module_flags, module), work=name in TAKES_WORK)
    command("demo-films", _demo_films, "render the demo films with their ground truth", _demo_films_flags, work=False)
    return top


def _run_flags(sub: Parser) -> None:
    sub.add_argument(
        "videos", nargs="*", metavar="VIDEOS", help="files, folders, globs, URLs or manifests (csv, jsonl, parquet)"
    )
    sub.add_argument("--work", required=True, help="work folder (or URL) for the tables; an existing one is resumed")
    sub.add_argument("--out", help="output folder for the WebDataset shards (default: shards inside the work folder)")
    sub.add_argument("--videos-per-shard", type=_count, help="number of source videos per work shard (default: 8)")
    _recipe_flags(sub)
    sources.add_flags(sub.add_argument_group("sources"))  # type: ignore[arg-type]
    session.add_flags(sub)
    session.add_out_flags(sub)


def _estimate_flags(sub: Parser) -> None:
    _run_flags(sub)
    sub.add_argument(
        "--sample-shards", type=_count, default=4, metavar="N", help="shards to run, spread evenly (default: 4)"
    )
    sub.add_argument("--cpus", type=_count, default=1, help="CPU workers of the planned run (default: 1)")
    sub.add_argument("--gpus", type=_count, default=1, help="GPUs of the planned run (default: 1)")
    price = argparse_type("a price", float)
    sub.add_argument("--cpu-price", type=price, default=0.0, help="price of a CPU worker per hour (default: 0)")
    sub.add_argument("--gpu-price", type=price, default=0.0, help="price of a GPU per hour (default: 0)")


def _stage_flags(stage: Stage, sub: Parser) -> None:
    sub.add_argument(
        "--profile", choices=sorted(PROFILES), help="profile to take settings from (default: that of the last run)"
    )
    add_settings(sub.add_argument_group("settings"), stage, leave_out=_runner_owned(stage))
    session.add_flags(sub)
    if isinstance(stage, Segment):
        session.add_clock_flag(sub)
    if isinstance(stage, Pack):
        session.add_out_flags(sub)
    sub.set_defaults(stage=stage.name())


def _runner_owned(stage: Stage) -> list[str]:
    return [field for name, field in RUNNER_OWNED if name == stage.name()]


def _verify_flags(sub: Parser) -> None:
    sub.add_argument("shards", metavar="SHARDS", help="folder (or URL) of the shards")
    sub.add_argument("--work", help="work folder whose tables are verified too")
    sub.add_argument(
        "--decode",
        nargs="?",
        type=_count_or_all,
        const=0,
        metavar="N",
        help="number of samples to decode, spread evenly over the shards (without N: all)",
    )
    sub.add_argument("--quiet", action="store_true", help="hide progress")


def _retry_flags(sub: Parser) -> None:
    names = [stage.name() for stage in triplets()]
    sub.add_argument("--stage", dest="only", choices=names, help="stage whose failures are retried (default: all)")
    session.add_flags(sub)
    session.add_out_flags(sub)


def _json_flags(sub: Parser) -> None:
    sub.add_argument("--json", action="store_true", help="print JSON")


def _plan_flags(sub: Parser) -> None:
    _recipe_flags(sub)
    _json_flags(sub)


def _explain_flags(sub: Parser) -> None:
    sub.add_argument("key", metavar="KEY", help="id of a video, clip, element or reference, or a prefix of it")


def _report_flags(sub: Parser) -> None:
    sub.add_argument("--out", dest="html", help="HTML file to write (default: report.html in the work folder)")
    sub.add_argument("--pairs", type=_count, default=80, help="number of pairs shown with frames (default: 80)")


def _demo_films_flags(sub: Parser) -> None:
    sub.add_argument("folder", metavar="OUT", help="output folder")


def _module_flags(module: str, sub: Parser) -> None:
    import_module(f"pipelines.cli.{module}").add_flags(sub)


def _recipe_flags(sub: Parser) -> None:
    sub.add_argument(
        "--profile", choices=sorted(PROFILES), help="set of models (default: that of the last run, or builtin)"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", help="setting of a stage; repeatable"
    )
    session.add_clock_flag(sub)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _count_or_all(text: str) -> int:
    return 0 if text == "all" else _count(text)


def _first_line(stage: Stage) -> str:
    return (type(stage).__doc__ or "").strip().splitlines()[0]


# -- commands ----------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    with _enrolled(args) as (ledger, recipe, stages, shards, owner):
        store = ledger.store
        summary = session.work(args, stages, store, shards, ledger=ledger)
        return session.finish(store, stages, recipe, summary, owner, args.allow_shrink)


def _estimate(args: argparse.Namespace) -> int:
    with _enrolled(args) as (ledger, _, stages, shards, _):
        store = ledger.store
        sample = estimate.choose(shards, args.sample_shards)
        session.work(args, stages[:1], store, shards, ledger=ledger)
        summary = session.work(args, stages, store, sample, ledger=ledger)
        session.print_failures(summary)
        found = estimate.measure(store, stages, sample)
    print("\n".join(estimate.lines(found, args.cpus, args.gpus, args.cpu_price, args.gpu_price)))
    print("the sample is kept in the work folder; `a2data run` with the same arguments continues from it")
    return 0


@contextlib.contextmanager
def _enrolled(args: argparse.Namespace) -> Iterator[tuple[Ledger, Recipe, list[Stage], list[int], dict[str, Any]]]:
    """Lock a work folder with its videos listed and its settings saved; yield ledger, recipe, stages, shards and owner."""
    store = Store(args.work)
    ledger = Ledger(store)
    saved = Recipe.of(store)
    recipe = copy.deepcopy(saved) or Recipe()
    session.set_profile(recipe, args.profile, args.work)
    if recipe.profile == IMPORTED and args.videos:
        raise ValueError(f"{args.work} is an imported set: add entries to the set and import it again")
    if args.out:
        recipe.set_folder(store, args.out)
    recipe.videos_per_shard = args.videos_per_shard or recipe.videos_per_shard
    recipe.set(triplets(recipe.profile), session.assignments(args))
    stages = recipe.apply(triplets(recipe.profile), store)
    out = recipe.folder(store)
    with exclusive_lock(store):
        # before anything is saved
        ownership.check(store, out, args.take_over)
        shards = enrolment.enroll(store, args.videos, recipe.videos_per_shard, sources.access(args, store), ledger)
        enrolment.check_sources(ledger)
        if recipe != saved:
            recipe.save(store)
        with ownership.claimed(store, out, args.take_over) as owner:
            yield ledger, recipe, stages, shards, owner


def _stage(args: argparse.Namespace) -> int:
    store, recipe, stages = session.opened(args)
    (stage,) = (s for s in stages if s.name() == args.stage)
    recipe.settings[stage.name()] = recipe.settings.get(stage.name(), {}) | given(args, stage, _runner_owned(stage))
    stages = recipe.apply(stages, store)
    (stage,) = (s for s in stages if s.name() == args.stage)
    packs = isinstance(stage, Pack)
    with exclusive_lock(store), contextlib.ExitStack() as stack:
        owner = stack.enter_context(ownership.claimed(store, recipe.folder(store), args.take_over)) if packs else {}
        recipe.save(store)
        ledger = Ledger(store)
        enrolment.move_damaged_lists(ledger)
        enrolment.check_sources(ledger)
        summary = session.work(args, [stage], store, ledger.shards("manifest"), ledger=ledger)
        print(f"{summary.jobs} jobs done")
        if packs:
            return session.finish(store, stages, recipe, summary, owner, args.allow_shrink)
    return session.conclude(session.print_failures(summary), planning.all_failed(summary.ledger, [stage.name()]))


def _status(args: argparse.Namespace) -> int:
    store, recipe, stages = session.opened(args)
    ledger = Ledger(store)
    rows = []
    for step in planning.plan(stages, ledger, ledger.shards("manifest")):
        entries = ledger.entries(step.stage).values()
        rejected, failed = sum(e.num_rejected for e in entries), sum(e.num_failed for e in entries)
        done = sum(e.num_inputs for e in entries) - failed
        counts = {"fresh": step.total - step.todo, "parts": step.total, "done": done}
        rows.append({"stage": step.stage, **counts, "rejected": rejected, "failed": failed})
    ledger.save()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'stage':14} {'fresh':>9} {'done':>8} {'rejected':>9} {'failed':>7}")
    for row in rows:
        fresh = f"{row['fresh']}/{row['parts']}"
        print(f"{row['stage']:14} {fresh:>9} {row['done']:8} {row['rejected']:9} {row['failed']:7}")
    for name, folder in (("shards", recipe.folder(store)), ("work folder", store)):
        found = verify.last(folder)
        print(f"{name} last verified {found.line if found else 'never: see `a2data verify`'}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from pipelines.run.progress import steps

    out = Folder(args.shards)
    with steps("verify", args.quiet) as report:
        tars, problems = verify.verify_shards(out, report)
        decoded = parts = unsealed = 0
        if args.decode is not None:
            decoded, more = verify.decode_samples(out, args.decode, report)
            problems += more
        if args.work:
            store, _, stages = session.opened(args)
            parts, unsealed, more = verify.verify_parts(
                store, ["manifest", *(stage.name() for stage in stages)], report
            )
            problems += more
    found = verify.Verification(verify.now(), len(tars), parts, decoded, unsealed, problems=problems)
    verify.record(out, found)
    if args.work:
        verify.record(store, found)
    for name in verify.unlisted(out):
        print(f"{out.path(name)} is not in the manifest; skipped")
    for problem in problems:
        print(problem)
    print(found.line)
    return 1 if problems else 0


def _plan(args: argparse.Namespace) -> int:
    store, _, stages = session.opened(args)
    ledger = Ledger(store)
    steps = planning.plan(stages, ledger, ledger.shards("manifest"))
    ledger.save()
    if args.json:
        rows = [{"stage": s.stage, "todo": s.todo, "parts": s.total, "reasons": s.reasons} for s in steps]
        print(json.dumps(rows, indent=1))
        return 0
    for step in steps:
        why = "; ".join(f"{n} x {reason}" if n > 1 else reason for reason, n in step.reasons.items())
        print(f"{step.stage:14} {step.todo:5} of {step.total} jobs   {why}".rstrip())
    print(f"at most {sum(step.todo for step in steps)} jobs; jobs whose inputs turn out unchanged are skipped")
    return 0


def _failures(args: argparse.Namespace) -> int:
    store, _, stages = session.opened(args)
    ledger = Ledger(store)
    failed = planning.failures(ledger, [s.name() for s in stages])
    ledger.save()
    listed = planning.sources(store, [shard for _, shard, _, _ in failed])
    rows = []
    for stage, shard, unit, why in failed:
        source = listed.get((shard, unit)) or listed.get((shard, unit.rpartition("-")[0]))
        name = public_name(source.path) if source else None
        rows.append({"stage": stage, "shard": shard, "unit": unit, "source": name, "error": why})
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        called = f"{row['unit']} ({row['source']})" if row["source"] else row["unit"] or "(whole job)"
        print(f"{row['stage']} shard {row['shard']} {called}: {row['error']}")
    return 0


def _retry(args: argparse.Namespace) -> int:
    store, recipe, stages = session.opened(args)
    with exclusive_lock(store), ownership.claimed(store, recipe.folder(store), args.take_over) as owner:
        ledger = Ledger(store)
        enrolment.move_damaged_lists(ledger)
        enrolment.check_sources(ledger)
        failed = [f for f in planning.failures(ledger, [s.name() for s in stages]) if args.only in (None, f[0])]
        listed = planning.sources(store, [shard for _, shard, _, _ in failed])
        for stage, shard, unit, _ in failed:
            source = listed.get((shard, unit))
            if source and planning.replaced(source):
                print(
                    f"{source.path} has changed since it failed; add it with `a2data run` and the same VIDEOS",
                    file=sys.stderr,
                )
            elif unit:  # a job that failed as a whole is retried anyway
                store.remove(stage, f"{shard:05d}.parquet")
                ledger.reread([(stage, shard)])
        summary = session.work(args, stages, store, ledger.shards("manifest"), ledger=ledger)
        return session.finish(store, stages, recipe, summary, owner, args.allow_shrink)


def _explain(args: argparse.Namespace) -> int:
    from pipelines.corpus.explain import explain

    store, _, stages = session.opened(args)
    print(explain(store, args.key, stages))
    return 0


def _report(args: argparse.Namespace) -> int:
    from pipelines.report.page import write_report

    store, recipe, stages = session.opened(args)
    if not (args.html or store.local):
        raise ValueError("the work folder is a URL and the report is a local file: give its path with --out")
    shards = recipe.folder(store)
    html = Path(args.html or store.path("report.html"))
    print(write_report(store, html, stages, Path(shards.base) if shards.local else None, pairs_drawn=args.pairs))
    return 0


def _demo_films(args: argparse.Namespace) -> int:
    from pipelines.films.demo import render

    print(render(Path(args.folder)))
    return 0
