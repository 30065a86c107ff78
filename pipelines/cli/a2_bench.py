"""`a2data bench`: A2-Bench, the paper's benchmark. Draw cases, score videos, run a user study, write a leaderboard."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import a2_bench_run
from pipelines.cli.a2_bench_make import make_cases


def add_flags(bench: argparse.ArgumentParser) -> None:
    """Add the subcommands of `a2data bench`."""
    commands = bench.add_subparsers(dest="action", required=True, metavar="COMMAND")
    sub = _command(commands, "make", _make, "draw cases, or convert those of another benchmark")
    sub.add_argument("out", metavar="OUT", type=Path, help="output folder for cases.jsonl and the pictures")
    _case_flags(sub)
    run = _command(commands, "run", None, "make cases, sample them, score the videos, write the page")
    run.add_argument(
        "out", metavar="OUT", type=Path, help="output folder for cases, videos, scores and page; resumed if it exists"
    )
    _case_flags(run)
    score = _command(commands, "score", None, "score the videos of a system; a rerun reuses finished results")
    a2_bench_run.add_flags(run, score)
    sub = _command(
        commands, "leaderboard", _leaderboard, "write a page with the paper's four systems, as published, and ours"
    )
    sub.add_argument("scores", nargs="*", metavar="SCORE", type=Path, help="score.json files or their folders")
    sub.add_argument("--out", required=True, type=Path, metavar="HTML", help="HTML file to write")
    sub.add_argument("--study", type=Path, metavar="FILE", help="output file of `study aggregate --out`")
    sub.add_argument("--cases", type=Path, metavar="FILE", help="cases file; if given, the page shows samples")
    _study_flags(commands)


def _case_flags(sub: argparse.ArgumentParser) -> None:
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="folder with labelled pictures in human/, object/ and background/, from which cases are drawn",
    )
    source.add_argument(
        "--cases", type=Path, metavar="FILE", help="existing cases: ours, OpenS2V-Eval's, or folders by role"
    )
    source.add_argument(
        "--triplets", type=Path, metavar="SHARDS", help="held-out shards; each case is a triplet with its ground truth"
    )
    sub.add_argument("--split", default="", help="split of the --triplets shards, such as eval (default: all)")
    sub.add_argument("--count", type=int, default=50, help="number of cases to draw (default: 50, as in the paper)")
    sub.add_argument("--case-seed", type=int, default=0, metavar="SEED", help="seed for drawing cases (default: 0)")
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SHARDS",
        help="training shards to check for shared pictures, persons and sources; with --split, the other splits of the same "
        "shards; repeatable",
    )
    sub.add_argument(
        "--copy-model", default="phash", metavar="CARD", help="model that detects copies of pictures (default: phash)"
    )
    sub.add_argument(
        "--faces", default="", metavar="CARD", help="model that compares faces, such as dlib; slow (default: none)"
    )


def _study_flags(commands: Any) -> None:
    study = commands.add_parser(
        "study", help="run a user study", description="run a user study: make the page, aggregate the ratings"
    )
    actions = study.add_subparsers(dest="study_action", required=True, metavar="COMMAND")
    sub = _command(actions, "make", _study_make, "write the page on which people rate videos of several systems")
    sub.add_argument(
        "out", metavar="OUT", type=Path, help="output folder for the page; do not give key.json in it to raters"
    )
    sub.add_argument("--cases", required=True, type=Path, metavar="FILE", help="cases file")
    sub.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="name of a system and the folder with its <case>.mp4 files; repeatable",
    )
    sub.add_argument("--seed", type=int, default=0, help="seed for the order of the videos (default: 0)")
    sub.add_argument("--embed", action="store_true", help="embed the videos in the page: one file, a third larger")
    sub.add_argument("--title", default="", help="title of the page")
    sub = _command(
        actions, "judge", _study_judge, "have a vision-language model fill in the form; its answers are marked as such"
    )
    sub.add_argument("--model", required=True, metavar="CARD", help="model card: openai:http://HOST:8000/v1#MODEL")
    sub.add_argument("--cases", required=True, type=Path, metavar="FILE", help="cases file")
    sub.add_argument("--key", required=True, type=Path, help="key.json of the study")
    sub.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="name of a system and the folder with its <case>.mp4 files, as for make; repeatable",
    )
    sub.add_argument("--name", default="", help="name of the model in the results (default: its name on the server)")
    sub.add_argument("--out", required=True, type=Path, metavar="FILE", help="output file for the answers")
    sub = _command(
        actions,
        "aggregate",
        _study_aggregate,
        "summarise the ratings: means, agreement, correlation with metrics",
    )
    sub.add_argument("ratings", nargs="+", metavar="RATINGS", type=Path, help="files exported from the page")
    sub.add_argument("--key", required=True, type=Path, help="key.json of the study")
    sub.add_argument(
        "--score", action="append", default=[], type=Path, help="score.json of a system of the study; repeatable"
    )
    sub.add_argument("--seed", type=int, default=0, help="seed for the confidence intervals (default: 0)")
    sub.add_argument("--out", type=Path, metavar="FILE", help="JSON file for the complete results")


def _command(commands: Any, name: str, func: Any, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    sub.set_defaults(func=func)
    return sub


def _make(args: argparse.Namespace) -> int:
    """Make the cases. Returns 1 if they share something with the training shards."""
    return int(make_cases(args, args.out)[1])


def _leaderboard(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import cases, grid, leaderboard, score_file

    study = json.loads(args.study.read_text()) if args.study else None
    results = [score_file.read(path) for path in args.scores]
    samples = grid.grid(cases.read(args.cases), grid.score_folders(results, args.scores)) if args.cases else None
    args.out.write_text(leaderboard.page(results, study, samples))
    print(args.out)
    return 0


def _study_make(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import cases
    from pipelines.bench.a2.study import page as study

    systems = _systems(args.system)
    key = study.make(cases.read(args.cases), systems, args.out, args.seed, args.embed, args.title)
    for case, names in key["missing"].items():
        print(f"case {case}: missing video of {', '.join(names)}", file=sys.stderr)
    print(f"{len(key['slots'])} cases, {sum(map(len, key['slots'].values()))} videos: {args.out / 'study.html'}")
    print(f"do not give {args.out / 'key.json'} to the raters: it maps the videos to the systems")
    return 0


def _systems(texts: Sequence[str]) -> dict[str, Path]:
    systems: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in systems:
            raise ValueError(f"--system {text}: write NAME=DIR, with each name once")
        systems[name] = Path(folder)
    return systems


def _study_judge(args: argparse.Namespace) -> int:
    """Rate the videos with a model. Returns 1 if a video has no answers."""
    from model_zoo import cards
    from model_zoo.caption import endpoint
    from pipelines.bench.a2 import cases
    from pipelines.bench.a2.study import judge

    key, systems = json.loads(args.key.read_text()), _systems(args.system)
    if missing := sorted(set(key["systems"]) - set(systems)):
        raise ValueError(f"the study shows videos of {', '.join(missing)}: give their folders with --system too")
    server = endpoint.connect(cards.card(args.model))
    answers, failed = judge.judge_videos(
        endpoint.chat_client(server), args.name or server.model, cases.read(args.cases), key, systems
    )
    for video, error in failed.items():
        print(f"{video}: {error}", file=sys.stderr)
    args.out.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(answers['ratings'])} answers, {len(failed)} videos without answers: {args.out}")
    return int(bool(failed))


def _study_aggregate(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import score_file
    from pipelines.bench.a2.study import ratings

    key = json.loads(args.key.read_text())
    scores = {score["name"]: score for score in map(score_file.read, args.score)}
    unknown = sorted(set(scores) - set(key["systems"]))
    if unknown:
        raise ValueError(
            f"the study does not include {', '.join(unknown)}; its systems are {', '.join(key['systems'])}"
        )
    summary = ratings.aggregate(ratings.read(args.ratings, key), scores, key["study"], args.seed)
    print(ratings.to_text(summary))
    if args.out:
        args.out.write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return 0
