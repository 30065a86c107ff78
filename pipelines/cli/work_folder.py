"""The commands that read a work folder: status, verify, plan, failures, explain, report."""

import argparse
import json

from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from pipelines.cli import session
from pipelines.cli.flags import Parser, add_json_flag, positive_int, positive_int_or_all
from pipelines.run import status as planning
from pipelines.run import verify


def add_verify_flags(sub: Parser) -> None:
    """Add the flags of `a2data verify`."""
    sub.set_defaults(func=_verify)
    sub.add_argument("shards", metavar="SHARDS", help="folder (or URL) of the shards")
    sub.add_argument("--work", help="work folder whose tables are verified too")
    sub.add_argument(
        "--decode",
        nargs="?",
        type=positive_int_or_all,
        const=0,
        metavar="N",
        help="number of samples to decode, spread evenly over the shards (without N: all)",
    )
    sub.add_argument("--quiet", action="store_true", help="print only the result and errors")


def add_plan_flags(sub: Parser) -> None:
    """Add the flags of `a2data plan`."""
    sub.set_defaults(func=_plan)
    session.add_recipe_flags(sub)
    add_json_flag(sub)


def add_status_flags(sub: Parser) -> None:
    """Add the flags of `a2data status`."""
    sub.set_defaults(func=_status)
    add_json_flag(sub)


def add_failures_flags(sub: Parser) -> None:
    """Add the flags of `a2data failures`."""
    sub.set_defaults(func=_failures)
    add_json_flag(sub)


def add_explain_flags(sub: Parser) -> None:
    """Add the flags of `a2data explain`."""
    sub.set_defaults(func=_explain)
    sub.add_argument("key", metavar="KEY", help="id of a video, clip, element or reference, or a prefix of it")
    add_json_flag(sub)


def add_report_flags(sub: Parser) -> None:
    """Add the flags of `a2data report`."""
    sub.set_defaults(func=_report)
    sub.add_argument("--out", dest="html", help="HTML file or URL to write (default: report.html in the work folder)")
    sub.add_argument("--pairs", type=positive_int, default=80, help="number of pairs shown with frames (default: 80)")


def _status(args: argparse.Namespace) -> int:
    store, recipe, stages = session.open_work_folder(args)
    ledger = Ledger(store)
    rows = planning.progress(stages, ledger)
    ledger.save()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'stage':14} {'fresh':>9} {'done':>8} {'rejected':>9} {'failed':>7}")
    for row in rows:
        fresh = f"{row['fresh']}/{row['parts']}"
        print(f"{row['stage']:14} {fresh:>9} {row['done']:8} {row['rejected']:9} {row['failed']:7}")
    for name, folder in (("shards", recipe.folder(store)), ("work folder", store)):
        verification = verify.last_verification(folder)
        print(f"{name} last verified {verification.line if verification else 'never: see `a2data verify`'}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from pipelines.run.progress import status_line

    out = Folder(args.shards)
    with status_line("verify", args.quiet) as report:
        tars, problems = verify.verify_shards(out, report)
        decoded = parts = unsealed = 0
        if args.decode is not None:
            decoded, more = verify.decode_samples(out, args.decode, report)
            problems += more
        if args.work:
            store, _, stages = session.open_work_folder(args)
            parts, unsealed, more = verify.verify_parts(
                store, ["manifest", *(stage.name() for stage in stages)], report
            )
            problems += more
    verification = verify.Verification(verify.now(), len(tars), parts, decoded, unsealed, problems=problems)
    verify.record_verification(out, verification)
    if args.work:
        verify.record_verification(store, verification)
    for name in verify.unlisted(out):
        print(f"{out.path(name)} is not in the manifest; skipped")
    for problem in problems:
        print(problem)
    print(verification.line)
    return 1 if problems else 0


def _plan(args: argparse.Namespace) -> int:
    store, _, stages = session.open_work_folder(args)
    ledger = Ledger(store)
    steps = planning.plan(stages, ledger, ledger.shards("manifest"))
    ledger.save()
    if args.json:
        rows = [{"stage": s.stage, "todo": s.todo, "parts": s.total, "reasons": s.reasons} for s in steps]
        print(json.dumps(rows, indent=1))
        return 0
    for step in steps:
        reasons = "; ".join(f"{n} x {reason}" if n > 1 else reason for reason, n in step.reasons.items())
        print(f"{step.stage:14} {step.todo:5} of {step.total} jobs   {reasons}".rstrip())
    print(f"at most {sum(step.todo for step in steps)} jobs; jobs whose inputs turn out unchanged are skipped")
    return 0


def _failures(args: argparse.Namespace) -> int:
    store, _, stages = session.open_work_folder(args)
    ledger = Ledger(store)
    rows = planning.failed_units(ledger, [s.name() for s in stages])
    ledger.save()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        unit = f"{row['unit']} ({row['source']})" if row["source"] else row["unit"] or "(whole job)"
        print(f"{row['stage']} shard {row['shard']} {unit}: {row['error']}")
    return 0


def _explain(args: argparse.Namespace) -> int:
    from pipelines.corpus.explain import explain, history

    store, _, stages = session.open_work_folder(args)
    if args.json:
        print(json.dumps(history(store, args.key, stages), indent=1, allow_nan=False))
        return 0
    print(explain(store, args.key, stages))
    return 0


def _report(args: argparse.Namespace) -> int:
    from pipelines.report.page import default_path, write_report

    store, recipe, stages = session.open_work_folder(args)
    html = args.html or default_path(store)
    write_report(store, html, stages, recipe.folder(store), num_audit_pictures=args.pairs)
    print(html)
    return 0
