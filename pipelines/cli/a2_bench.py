"""`a2data bench`: A2-Bench, the paper's benchmark: cases, a score of videos, a study with people, a page that compares."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import a2_bench_run
from pipelines.cli.a2_bench_make import made


def add_flags(bench: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data bench` its own commands."""
    commands = bench.add_subparsers(dest="action", required=True, metavar="COMMAND")
    sub = _command(commands, "make", _make, "draw cases, or bring another benchmark's into our form")
    sub.add_argument("out", metavar="OUT", type=Path, help="the folder of the cases: cases.jsonl, and every picture")
    _case_flags(sub)
    run = _command(commands, "run", None, "make cases, sample them, score the videos, write the page")
    run.add_argument(
        "out", metavar="OUT", type=Path, help="the folder of everything; the same again goes on from there"
    )
    _case_flags(run)
    score = _command(commands, "score", None, "measure the videos of a system; what is done stays")
    a2_bench_run.add_flags(run, score)
    sub = _command(commands, "leaderboard", _leaderboard, "one page: the paper's four systems, as published, and ours")
    sub.add_argument("scores", nargs="*", metavar="SCORE", type=Path, help="score.json files, or their folders")
    sub.add_argument("--out", required=True, type=Path, metavar="HTML", help="where to write the page")
    sub.add_argument("--study", type=Path, metavar="FILE", help="what `study aggregate --out` wrote")
    sub.add_argument("--cases", type=Path, metavar="FILE", help="the cases: with them the page shows samples")
    _study_flags(commands)


def _case_flags(sub: argparse.ArgumentParser) -> None:
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="human/, object/ and background/, labelled; cases are drawn from them",
    )
    what.add_argument(
        "--cases", type=Path, metavar="FILE", help="cases there are: ours, OpenS2V-Eval's, or folders by role"
    )
    what.add_argument("--triplets", type=Path, metavar="SHARDS", help="held-out shards: a triplet each, with its truth")
    sub.add_argument("--split", default="", help="of those shards, such as eval (default: all)")
    sub.add_argument("--count", type=int, default=50, help="cases to draw (default: 50, as in the paper)")
    sub.add_argument("--draw", type=int, default=0, metavar="SEED", help="of the draw (default: 0)")
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SHARDS",
        help="training shards that must share no picture, person or source; with --split the others of the same shards",
    )
    sub.add_argument("--looks", default="phash", metavar="CARD", help="tells copies of pictures (default: phash)")
    sub.add_argument("--faces", default="", metavar="CARD", help="tells faces, such as dlib; slow (default: none)")


def _study_flags(commands: Any) -> None:
    study = commands.add_parser(
        "study", help="a study with people", description="A study with people: its page, its results."
    )
    actions = study.add_subparsers(dest="study_action", required=True, metavar="COMMAND")
    sub = _command(actions, "make", _study_make, "the page on which people rate videos of several systems")
    sub.add_argument("out", metavar="OUT", type=Path, help="the folder of the page; key.json in it is not for raters")
    sub.add_argument("--cases", required=True, type=Path, metavar="FILE", help="the cases")
    sub.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="a system and the folder of its <case>.mp4; repeat",
    )
    sub.add_argument("--seed", type=int, default=0, help="of the order of the videos")
    sub.add_argument("--embed", action="store_true", help="put the videos into the page: one file, a third larger")
    sub.add_argument("--title", default="", help="what the page is called")
    sub = _command(actions, "judge", _study_judge, "let a language model that sees fill in the form, marked as one")
    sub.add_argument("--model", required=True, metavar="CARD", help="openai:http://HOST:8000/v1#MODEL")
    sub.add_argument("--cases", required=True, type=Path, metavar="FILE", help="the cases")
    sub.add_argument("--key", required=True, type=Path, help="key.json of the study")
    sub.add_argument("--system", action="append", required=True, metavar="NAME=DIR", help="as for make")
    sub.add_argument("--name", default="", help="what to call the model (default: the name on its server)")
    sub.add_argument("--out", required=True, type=Path, metavar="FILE", help="where to write its answers")
    sub = _command(
        actions, "aggregate", _study_aggregate, "what the raters said: means, agreement, correlation with metrics"
    )
    sub.add_argument("ratings", nargs="+", metavar="RATINGS", type=Path, help="the files that the page exported")
    sub.add_argument("--key", required=True, type=Path, help="key.json of the study")
    sub.add_argument(
        "--score", action="append", default=[], type=Path, help="score.json of a system of the study; repeat"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the intervals")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON")


def _command(commands: Any, name: str, do: Any, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    sub.set_defaults(do=do)
    return sub


def _make(args: argparse.Namespace) -> int:
    """1 where the cases share something with the training shards."""
    return int(made(args, args.out)[1])


def _leaderboard(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import cases, grid, leaderboard, score_file

    people = json.loads(args.study.read_text()) if args.study else None
    results = [score_file.read(path) for path in args.scores]
    shown = grid.grid(cases.read(args.cases), grid.folders(results, args.scores)) if args.cases else ""
    args.out.write_text(leaderboard.page(results, people, shown))
    print(args.out)
    return 0


def _study_make(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import cases
    from pipelines.bench.a2.study import page as study

    systems = _systems(args.system)
    key = study.make(cases.read(args.cases), systems, args.out, args.seed, args.embed, args.title)
    for case, names in key["missing"].items():
        print(f"no video of {case} by {', '.join(names)}", file=sys.stderr)
    print(f"{len(key['slots'])} cases, {sum(map(len, key['slots'].values()))} videos: {args.out / 'study.html'}")
    print(f"keep {args.out / 'key.json'} from the raters: it says whose videos they are")
    return 0


def _systems(texts: Sequence[str]) -> dict[str, Path]:
    systems: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in systems:
            raise ValueError(f"--system {text}: write NAME=DIR, every name once")
        systems[name] = Path(folder)
    return systems


def _study_judge(args: argparse.Namespace) -> int:
    """1 where a video has no answers."""
    from model_zoo import cards
    from model_zoo.caption import endpoint
    from pipelines.bench.a2 import cases
    from pipelines.bench.a2.study import judge

    key, systems = json.loads(args.key.read_text()), _systems(args.system)
    if strange := sorted(set(key["systems"]) - set(systems)):
        raise ValueError(f"the study shows videos of {', '.join(strange)}: name their folders with --system, too")
    server = endpoint.connect(cards.card(args.model))
    made, failed = judge.judged(
        endpoint.chat_client(server), args.name or server.model, cases.read(args.cases), key, systems
    )
    for where, why in failed.items():
        print(f"{where}: {why}", file=sys.stderr)
    args.out.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(made['ratings'])} answers, {len(failed)} videos without: {args.out}")
    return int(bool(failed))


def _study_aggregate(args: argparse.Namespace) -> int:
    from pipelines.bench.a2 import score_file
    from pipelines.bench.a2.study import ratings

    key = json.loads(args.key.read_text())
    scores = {score["name"]: score for score in map(score_file.read, args.score)}
    strange = sorted(set(scores) - set(key["systems"]))
    if strange:
        raise ValueError(f"the study has no system called {', '.join(strange)}: it has {', '.join(key['systems'])}")
    made = ratings.aggregate(ratings.read(args.ratings, key), scores, key["study"], args.seed)
    print(ratings.to_text(made))
    if args.out:
        args.out.write_text(json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return 0
