"""`a2data bench`: A2-Bench, the paper's benchmark: cases, a score of videos, a study with people, a page that compares."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_flags(bench: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data bench` its own commands."""
    commands = bench.add_subparsers(dest="action", required=True, metavar="COMMAND")
    _make_flags(commands)
    _score_flags(commands)
    sub = _command(commands, "leaderboard", _leaderboard, "one page: the paper's four systems, as published, and ours")
    sub.add_argument("scores", nargs="*", metavar="SCORE", type=Path, help="score.json files, or their folders")
    sub.add_argument("--out", required=True, type=Path, metavar="HTML", help="where to write the page")
    sub.add_argument("--study", type=Path, metavar="FILE", help="what `study aggregate --out` wrote")
    _study_flags(commands)


def _make_flags(commands: Any) -> None:
    sub = _command(
        commands, "make", _make, "draw cases from labelled pictures, or bring another benchmark's into our form"
    )
    sub.add_argument("out", metavar="OUT", type=Path, help="the folder of the cases: cases.jsonl, and every picture")
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
    sub.add_argument("--count", type=int, default=50, help="cases to draw (default: 50, as in the paper)")
    sub.add_argument("--seed", type=int, default=0, help="of the draw")
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SHARDS",
        help="training shards that must share no picture",
    )


def _score_flags(commands: Any) -> None:
    sub = _command(commands, "score", _score, "measure the videos of a system; what is done stays")
    sub.add_argument("videos", metavar="VIDEOS", type=Path, help="the folder with a <case>.mp4 for each case")
    sub.add_argument("--cases", required=True, type=Path, metavar="FILE", help="the cases")
    sub.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="score.json, score.md, and what is done so far"
    )
    sub.add_argument("--name", help="what to call the system (default: the name of the folder)")
    sub.add_argument(
        "--model", action="append", default=[], metavar="KIND=CARD",
        help="faces, aesthetic, flow, ground, masks or pictures by another model; its metrics then bear its name; repeat",
    )  # fmt: skip
    sub.add_argument(
        "--measured", action="append", default=[], type=Path, metavar="FILE",
        help="values measured elsewhere: JSON lines with case, metric and value; repeat",
    )  # fmt: skip
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument("--seed", type=int, default=0, help="of the intervals")


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
    """1 where pictures of the cases are in the training shards."""
    from pipelines.a2_bench import cases, draw, overlap

    drawn = draw.draw(draw.pool(args.pictures), args.count, args.seed) if args.pictures else cases.read(args.cases)
    found = overlap.overlaps(drawn, args.against) if args.against else []
    for each in found:
        print(
            f"{each.case} shows {each.picture}, which is {each.reference} of {each.sample} in {each.shard} (the same {each.how})",
            file=sys.stderr,
        )
    print(f"{len(drawn)} cases: {cases.write(drawn, args.out)}")
    if args.against:
        print(
            f"{len(found)} pictures shared with the training shards"
            + ("" if found else ", byte for byte or pixel for pixel")
        )
    return int(bool(found))


def _score(args: argparse.Namespace) -> int:
    """1 where a case has no video."""
    from pipelines.a2_bench import cases, measure, result, videos

    chosen = {}
    for text in args.model:
        kind, _, card = text.partition("=")
        if kind not in measure.DEFAULTS or not card:
            raise ValueError(f"--model {text}: write KIND=CARD, a kind of {', '.join(measure.DEFAULTS)}")
        chosen[kind] = card
    try:
        asked = measure.experts(chosen, args.device)
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    wanted = cases.read(args.cases)
    elsewhere = [measure.given(file.read_text().splitlines(), str(file), wanted) for file in args.measured]
    table, gone = videos.table(wanted, args.videos, asked, args.out, lambda text: print(text, file=sys.stderr))
    models = {metric: expert.made_by for expert in asked for metric in expert.metrics if expert.made_by}
    for file, rows in zip(args.measured, elsewhere, strict=True):
        for case, row in rows.items():
            if double := [m for m in row if m in models and models[m] != file.name]:
                raise ValueError(f"{file} has {double[0]}, which is measured here: name another model, or leave it out")
            table[case].update(row)
        models |= dict.fromkeys({m for row in rows.values() for m in row}, file.name)
    measure.fill_in(table, gone)
    name = args.name or args.videos.resolve().name
    made = result.to_json(table, name, models, args.seed, [case.id for case in gone])
    result.write(made, args.out)
    print(result.to_text(made))
    return int(bool(gone))


def _leaderboard(args: argparse.Namespace) -> int:
    from pipelines.a2_bench import leaderboard, result

    people = json.loads(args.study.read_text()) if args.study else None
    args.out.write_text(leaderboard.page([result.read(path) for path in args.scores], people))
    print(args.out)
    return 0


def _study_make(args: argparse.Namespace) -> int:
    from pipelines.a2_bench import cases, study

    systems = {}
    for text in args.system:
        name, _, folder = text.partition("=")
        if not name or not folder or name in systems:
            raise ValueError(f"--system {text}: write NAME=DIR, every name once")
        systems[name] = Path(folder)
    key = study.make(cases.read(args.cases), systems, args.out, args.seed, args.embed, args.title)
    for case, names in key["missing"].items():
        print(f"no video of {case} by {', '.join(names)}", file=sys.stderr)
    print(f"{len(key['slots'])} cases, {sum(map(len, key['slots'].values()))} videos: {args.out / 'study.html'}")
    print(f"keep {args.out / 'key.json'} from the raters: it says whose videos they are")
    return 0


def _study_aggregate(args: argparse.Namespace) -> int:
    from pipelines.a2_bench import ratings, result

    key = json.loads(args.key.read_text())
    scores = {score["name"]: score for score in map(result.read, args.score)}
    strange = sorted(set(scores) - set(key["systems"]))
    if strange:
        raise ValueError(f"the study has no system called {', '.join(strange)}: it has {', '.join(key['systems'])}")
    made = ratings.aggregate(ratings.read(args.ratings, key), scores, key["study"], args.seed)
    print(ratings.to_text(made))
    if args.out:
        args.out.write_text(json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return 0
