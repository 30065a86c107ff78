"""`a2data bench run` and `a2data bench score`: sample the cases, or take the videos of any system, and score them by stages."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import session
from pipelines.cli.flags import add_settings, given_values
from pipelines.sample.checkpoint import Checkpoint
from pipelines.sample.job import NOT_SETTINGS, Job

CASES, WORK = "cases", "work"  # folders of a run


def add_flags(run: argparse.ArgumentParser, score: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data bench run` and `a2data bench score`, except those of the cases."""
    _score_flags(score)
    run.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="checkpoint: A2, Wan2.1-I2V for diffusers, or an export"
    )
    run.add_argument(
        "--dtype", default="float32", help="dtype of the weights: float32, float16 or bfloat16 (default: float32)"
    )
    _model_flags(run)
    session.add_flags(run)
    add_settings(run.add_argument_group("sampling"), Job, exclude=NOT_SETTINGS)
    run.set_defaults(func=_run)


def _score_flags(score: argparse.ArgumentParser) -> None:
    score.add_argument("videos", metavar="VIDEOS", type=Path, help="folder with a <case>.mp4 for each case")
    score.add_argument("--cases", required=True, type=Path, metavar="FILE", help="cases file")
    score.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="output folder for score.json, score.md and the tables"
    )
    _model_flags(score)
    score.add_argument(
        "--measured", action="append", default=[], type=Path, metavar="FILE",
        help="values measured elsewhere: JSON lines with case, metric and value; repeatable",
    )  # fmt: skip
    session.add_flags(score)
    score.set_defaults(func=_score)


def _model_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--name", help="name of the system (default: the name of its folder)")
    sub.add_argument(
        "--profile",
        default="paper",
        help="set of models: paper, or builtin, which does not need weights (default: paper)",
    )
    sub.add_argument(
        "--model", action="append", default=[], metavar="KIND=CARD",
        help="other model for a kind: faces, ground, masks, pictures, quality, aesthetic, interpolate, flow or words; its "
        "metrics are then labelled with its name; repeatable",
    )  # fmt: skip
    sub.add_argument(
        "--metric", action="append", default=[], metavar="METRIC",
        help="metric to compute: identity, copy-paste, subject-consistency, quality, aesthetic, motion-smoothness, "
        "dynamic-degree or text-alignment; repeatable (default: all)",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    """Make, sample and score cases. Returns 1 if a case has no video or a job failed."""
    from pipelines.bench.a2 import grid, leaderboard, score_file
    from pipelines.bench.a2 import stages as metrics
    from pipelines.bench.a2 import tables as recipe
    from pipelines.cli.a2_bench_make import make_cases

    metric_stages = metrics.metric_stages(_models(args), args.metric)
    bench_cases, leaked = make_cases(args, args.out / CASES)
    if leaked:
        return 1
    settings = Checkpoint.with_references(args.checkpoint).defaults | given_values(args, Job, exclude=NOT_SETTINGS)
    sample = metrics.Sample(str(Path(args.checkpoint).resolve()), args.dtype, json.dumps(settings, sort_keys=True))
    sample.models()  # reject a folder that is not a checkpoint early
    score, code = _score_videos(
        args, bench_cases, args.out, args.name or Path(args.checkpoint).resolve().name, metric_stages, sample
    )
    page_path = args.out / "board.html"
    page_path.write_text(leaderboard.page([score], samples=grid.grid(bench_cases, {score["name"]: args.out})))
    score_file.write(score, args.out)
    print(score_file.to_text(score))
    print(f"videos: {args.out / recipe.VIDEOS}\nleaderboard: {page_path}")
    return code


def _score(args: argparse.Namespace) -> int:
    """Score videos. Returns 1 if a case has no video or a job failed."""
    from pipelines.bench.a2 import cases, score_file
    from pipelines.bench.a2 import stages as metrics

    metric_stages = metrics.metric_stages(_models(args), args.metric)
    bench_cases = cases.read(args.cases)
    score, code = _score_videos(
        args, bench_cases, args.out, args.name or args.videos.resolve().name, metric_stages, None
    )
    score_file.write(score, args.out)
    print(score_file.to_text(score))
    return code


def _score_videos(
    args: argparse.Namespace,
    bench_cases: Sequence[Any],
    out: Path,
    name: str,
    metric_stages: Sequence[Any],
    sample: Any,
) -> tuple[dict[str, Any], int]:
    """Return the score of the videos that `sample` makes, or of those in args.videos, by these stages, and the exit code."""
    from a2data.store.tables import Store
    from pipelines.bench.a2 import profiles, score_file, strips
    from pipelines.bench.a2 import tables as recipe
    from pipelines.run.lock import exclusive_lock

    external = [
        profiles.read_external(f.read_text().splitlines(), str(f), bench_cases) for f in getattr(args, "measured", [])
    ]
    store = Store(str(out / WORK))
    with exclusive_lock(store):
        shard_of = recipe.write_cases(store, bench_cases)
        missing = {} if sample else recipe.import_videos(store, shard_of, args.videos)
        stages = [*([sample] if sample else []), *metric_stages]
        summary = session.run_stages(args, stages, store, sorted(shard_of.values()))
        table, missing_cases = recipe.result_table(store, bench_cases, shard_of, metric_stages)
        if sample:
            recipe.export_videos(store, shard_of, out / recipe.VIDEOS)
            missing = recipe.sampling_errors(store, shard_of, missing_cases)
        strips.write(store, shard_of, out)
    for reason in missing.values():
        print(reason, file=sys.stderr)
    models = recipe.measured_by(metric_stages, table)
    _merge_external(table, external, getattr(args, "measured", []), models)
    profiles.fill_missing(table, missing_cases)
    score = score_file.to_json(table, name, models, 0, [case.id for case in missing_cases])
    return score, int(bool(missing_cases)) or session.print_failures(summary)


def _models(args: argparse.Namespace) -> dict[str, str]:
    """Return kind -> card. Raises ValueError for an unknown profile, kind or card."""
    from model_zoo import cards
    from pipelines.bench.a2 import profiles

    if args.profile not in profiles.PROFILES:
        raise ValueError(f"--profile {args.profile}: choose from {', '.join(profiles.PROFILES)}")
    selected = dict(profiles.PROFILES[args.profile])
    for text in args.model:
        kind, equals, card = text.partition("=")
        if kind not in profiles.KINDS or not equals or not (card or kind == "masks"):
            raise ValueError(f"--model {text}: write KIND=CARD, where KIND is one of {', '.join(profiles.KINDS)}")
        try:
            selected[kind] = cards.card(card).name if card else ""  # reject a missing path early
        except KeyError as error:
            raise ValueError(error.args[0]) from error
    return selected


def _merge_external(
    table: dict[str, Any], external: Sequence[Any], files: Sequence[Path], models: dict[str, str]
) -> None:
    """Add values measured elsewhere, file by file. Raises ValueError for a metric that is also measured here."""
    for file, rows in zip(files, external, strict=True):
        for case, row in rows.items():
            if duplicates := [m for m in row if m in models and models[m] != file.name]:
                raise ValueError(
                    f"{file} has {duplicates[0]}, which is measured here too: choose another model or remove it from the file"
                )
            table[case].update(row)
        models |= dict.fromkeys({m for row in rows.values() for m in row}, file.name)
