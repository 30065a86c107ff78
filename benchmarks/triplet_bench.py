"""TripletBench end to end: make the films, run the pipeline on them, score the result, and run the self-test of the score.

    python -m benchmarks.triplet_bench [S] [C] [R] [--recipe builtin --recipe weights] [--set STAGE.FIELD=VALUE] [--seed 0]
                                       [--folder FOLDER] [--brief]

Prints TripletF0.5, the three most frequent failures and all scores for each tier and recipe, writes score.html beside the tables,
and ends with the table of the README. A recipe is a profile, or "weights": `builtin` with the YOLO and insightface weights of the
corpus (benchmarks/corpus.py). Tier R is the real footage in the folder A2DATA_CORPUS: single shots of people who sign, and a film
cut from some of them, with MANIFEST.json as truth. Existing results in the folder are reused.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.corpus import CORPUS, NO_CORPUS, SETTINGS, available
from pipelines.bench.triplets import predictions, report
from pipelines.bench.triplets.score import Result, score
from pipelines.bench.triplets.self_test import oracle
from pipelines.cli.main import main as a2data
from pipelines.films.tier_r import draft_film
from pipelines.films.truth import Entity, Film, Shot, Truth, load, save


def corpus_films() -> list[Path]:
    """Return the films of tier R."""
    names = sorted(p.name for p in (CORPUS / "video").glob("intel_asl_*.mkv"))
    return [CORPUS / "video" / name for name in [*names, "derived_asl_hardcuts.mp4"]]


def corpus_truth(out: Path) -> Truth:
    """Write the truth of tier R: the person in each shot. Shots of the film are copies of the files they were cut from."""
    manifest = json.loads((CORPUS / "MANIFEST.json").read_text())["files"]
    known = {Path(entry["file"]).name: entry for entry in manifest}
    films = []
    for path in corpus_films():
        film, entry = draft_film(str(path)), known[path.name]
        if "identity" in entry:
            films.append(labelled(film, [(0, film.frames, entry["identity"], path.stem.removeprefix("intel_"))]))
        else:
            cut = [(s["start"], s["end"], s["person"], Path(s["source"]).stem) for s in entry["shots"]["shots"]]
            films.append(labelled(film, cut))
    out.mkdir(parents=True, exist_ok=True)
    truth = Truth("R", films)
    save(truth, out)
    return truth


def labelled(film: Film, shots: list[tuple[int, int, str, str]]) -> Film:
    """Return a drafted film with its shots, given as (first frame, end, person, take)."""
    made = [Shot(a, b, take=take, entities=[Entity(who, "human")]) for a, b, who, take in shots]
    return replace(film, shots=made, cuts=[shot.start for shot in made[1:]])


def prepare(tier: str, folder: Path, seed: int) -> list[Path]:
    """Make the set of a tier in a folder unless it exists; return its films."""
    if tier == "R":
        if not (folder / "set.json").exists():
            corpus_truth(folder)
        return corpus_films()
    if not (folder / "set.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        a2data(["triplet-bench", "make", str(folder), "--tier", tier, "--seed", str(seed)])
    return [folder / film.file for film in load(folder).films]


def measure(tier: str, folder: Path, recipe: str, settings: list[str], seed: int, brief: bool) -> tuple[str, str]:
    """Run one tier and recipe; return the report and the row of the table."""
    films, work = prepare(tier, folder / tier, seed), folder / f"{tier}-{recipe}"
    began = time.perf_counter()
    profile, more = ("builtin", SETTINGS[recipe]) if recipe == "weights" else (recipe, [])
    command = [
        "run",
        *map(str, films),
        "--work",
        str(work),
        "--out",
        str(work / "shards"),
        "--profile",
        profile,
        "--quiet",
    ]
    for setting in (*more, *settings):
        command += ["--set", setting]
    if a2data(command) != 0:
        sys.exit(f"the run over {work} failed")
    seconds = time.perf_counter() - began
    truth, made = load(folder / tier), predictions.read(work, work / "shards")
    result = score(truth, made, folder / tier)
    data = report.to_json(result, recipe)
    report.write(data, work / "score")
    lines = [f"{recipe} on tier {tier}:"] if brief else [report.to_text(data)]
    lines.append(f"time: {seconds:.0f} s, {len(truth.units)} shots")
    if not brief:
        lines.append(f"the oracle: {score(truth, oracle(truth), folder / tier).headline:.3f}")
    return "\n".join(lines), row(tier, recipe, result)


COLUMNS = ("tier", "recipe", "TripletF0.5", "precision", "recall", "pairing precision", "first failing checks")


def row(tier: str, recipe: str, result: Result) -> str:
    """Return a row of the table."""
    found = {s.name: s for s in result.scores}
    ratios = [found[n] for n in ("triplets, precision", "triplets, recall", "pairing, precision")]
    cells = [f"{s.right:g}/{s.of:g}" if s.value is not None else "-" for s in ratios]
    worst = ", ".join(f"{count} {name}" for name, count in result.worst) or "no failures"
    return "| " + " | ".join([tier, recipe, f"{result.headline:.3f}", *cells, worst]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiers", nargs="*", default=["S", "C"], help="S, C, R (default: S C)")
    parser.add_argument("--recipe", action="append", help="a profile, or weights; repeatable (default: builtin)")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="folder for films and tables (default: temporary)")
    parser.add_argument("--brief", action="store_true", help="print only the table")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for tier in args.tiers:
            for recipe in args.recipe or ["builtin"]:
                if (tier == "R" or recipe == "weights") and not available():
                    print(f"{recipe} on tier {tier}: {NO_CORPUS}", flush=True)
                    continue
                folder = args.folder or Path(scratch)
                lines, one = measure(tier, folder, recipe, args.set, args.seed, args.brief)
                print(lines, flush=True)
                rows.append(one)
    print("\n".join([f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows]))


if __name__ == "__main__":
    main()
