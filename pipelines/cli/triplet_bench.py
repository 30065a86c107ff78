"""`a2data triplet-bench`: films with known ground truth, a score for pipeline runs over them, and a self-test of the score."""

import argparse
from pathlib import Path
from typing import Any


def add_flags(bench: argparse.ArgumentParser) -> None:
    """Add the subcommands of `a2data triplet-bench`."""
    commands = bench.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def command(name: str, func: Any, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(func=func)
        return sub

    sub = command("make", _make, "render a film set with its ground truth, or draft ground truth for your own videos")
    sub.add_argument("out", metavar="OUT", type=Path, help="output folder for the set")
    sub.add_argument("videos", nargs="*", metavar="VIDEOS", help="videos to label (tier R only)")
    sub.add_argument(
        "--tier",
        choices=("S", "C", "R"),
        default="S",
        help="kind of films: S rendered, C composited, R your own footage (default: S)",
    )
    sub.add_argument("--seed", type=int, default=0, help="seed of the films of tiers S and C (default: 0)")
    sub.add_argument("--cutouts", type=Path, help="folder with RGBA pictures in human/ and object/ (tier C only)")
    sub.add_argument("--plates", type=Path, help="folder with pictures of places without people (tier C only)")
    sub = command("score", _score, "score a finished run over a set")
    sub.add_argument(
        "truth", metavar="SET", type=Path, help="folder of the set, or a file of pairs that were marked in `a2data ui`"
    )
    sub.add_argument("--work", required=True, type=Path, help="work folder of the run")
    sub.add_argument("--shards", type=Path, help="shards of the run (default: shards inside the work folder)")
    sub.add_argument("--rerun-shards", type=Path, help="shards of a second run, expected to be byte-identical")
    sub.add_argument("--name", help="name of the run (default: its profile)")
    sub.add_argument("--out", type=Path, help="output folder for score.json, score.md and score.html")
    sub = command("report", _report, "combine scores into one table and one page")
    sub.add_argument("scores", nargs="+", metavar="SCORE", type=Path, help="score.json files or their folders")
    sub.add_argument("--html", type=Path, help="HTML file to write")
    sub = command(
        "check", _check, "self-test of the score: the ground truth scores 1 and every planted fault lowers a score"
    )
    sub.add_argument("truth", metavar="SET", type=Path, help="folder of the set")


def _make(args: argparse.Namespace) -> int:
    film_set: Any
    if args.videos and args.tier != "R":
        raise ValueError(f"tier {args.tier} renders its own films: VIDEOS require --tier R")
    if args.tier == "S":
        from pipelines.films.tier_s import make

        film_set = make(args.out, args.seed)
    elif args.tier == "C":
        from pipelines.films.tier_c import make as compose

        film_set = compose(args.out, args.seed, args.cutouts, args.plates)
    else:
        from pipelines.films.tier_r import draft

        film_set = draft(args.out, args.videos)
    shots = sum(len(film.shots) for film in film_set.films)
    print(
        f"{len(film_set.films)} films, {shots} shots, {len(film_set.achievable)} of them can become triplets: {args.out}"
    )
    if args.tier == "R":
        print("fill in the shots in the *.truth.json files as described in docs/triplet-bench.md")
    return 0


def _score(args: argparse.Namespace) -> int:
    from pipelines.bench.triplets import predictions, report
    from pipelines.bench.triplets.score import score
    from pipelines.bench.triplets.statistics import proportion
    from pipelines.films import truth

    shards = args.shards or args.work / "shards"
    if args.truth.is_file():
        return _score_marks(args, shards)
    ground_truth = truth.load(args.truth)
    prediction = predictions.read(args.work, shards)
    name = args.name or predictions.read_provenance(shards).get("profile", "run")
    reproducibility = None
    if args.rerun_shards:
        reproducibility = proportion(
            "samples the same to the byte",
            *predictions.count_identical(prediction, predictions.read(args.work, args.rerun_shards)),
        )
    data = report.to_json(score(ground_truth, prediction, args.truth), name, reproducibility)
    print(report.to_text(data))
    if args.out:
        report.write(data, args.out)
        print(f"\nreport: {args.out / 'score.html'}")
    return 0


def _score_marks(args: argparse.Namespace, shards: Path) -> int:
    from pipelines import marks as marking
    from pipelines.bench.triplets import marked, predictions

    if args.rerun_shards or args.out:
        raise ValueError("--rerun-shards and --out need a set of films: leave them out to score marks")
    marks = marking.read(str(args.truth))
    current = marked.current(args.work, marks)
    print(f"{len(current)} of {len(marks)} marks are of this work folder")
    for figure in marked.score(predictions.read(args.work, shards), current):
        print(figure)
    return 0


def _report(args: argparse.Namespace) -> int:
    from pipelines.bench.triplets import report

    scores = [report.read(path) for path in args.scores]
    print(report.to_markdown(scores), end="")
    if args.html:
        args.html.write_text(report.to_html(scores))
    return 0


def _check(args: argparse.Namespace) -> int:
    """Test the score itself on this set. Returns 1 if the ground truth scores below 1 or a planted fault changes no score."""
    from pipelines.bench.triplets.score import score
    from pipelines.bench.triplets.self_test import FAULTS, oracle
    from pipelines.films import truth

    ground_truth = truth.load(args.truth)
    oracle_prediction = oracle(ground_truth)
    best = score(ground_truth, oracle_prediction, args.truth)
    below_one = [s for s in best.scores if s.value is not None and s.value < 1 - 1e-9]
    print(f"{'the right answer':32} TripletF0.5 {best.headline:.3f}" + "".join(f"\n  not 1: {s}" for s in below_one))
    failed = bool(below_one)
    for name, inject in FAULTS.items():
        after = score(ground_truth, inject(ground_truth, oracle_prediction), args.truth)
        lowered = [
            f"{s.name} {s.value:.3f}"
            for s, b in zip(after.scores, best.scores, strict=True)
            if s.value is not None and b.value is not None and s.value < b.value - 1e-9
        ]
        failed |= not lowered
        print(f"{name:32} TripletF0.5 {after.headline:.3f}  {'; '.join(f'{k} {v}' for k, v in after.worst) or '-'}")
        print(f"{'':34}{', '.join(lowered[:6])}")
    return int(failed)
