"""TripletBench from end to end: make the films, run the pipeline over them, score what it made, and test the score on them.

    python -m benchmarks.triplet_bench [S] [C] [R] [--profile builtin] [--set STAGE.FIELD=VALUE] [--seed 0] [--folder FOLDER]

Prints TripletF0.5, the three worst checks and every figure, and writes score.html beside the tables. Tier R is the corpus of real
footage named by A2DATA_CORPUS: single shots of people who sign and a film cut from some of them, with its MANIFEST.json as truth.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pipelines.cli import main as a2data
from pipelines.triplet_bench import predictions, report
from pipelines.triplet_bench.oracle import oracle
from pipelines.triplet_bench.real import draft_film
from pipelines.triplet_bench.truth import Entity, Film, Shot, Truth, load, save
from pipelines.triplet_bench.verdict import score

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


def corpus_films() -> list[Path]:
    """The films of tier R."""
    names = sorted(p.name for p in (CORPUS / "video").glob("intel_asl_*.mkv"))
    return [CORPUS / "video" / name for name in [*names, "derived_asl_hardcuts.mp4"]]


def corpus_truth(out: Path) -> Truth:
    """Tier R: who is in which shot; shots of the film are copies of the files that they were cut from."""
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
    """A drafted film with its shots: first frame, end, who is in it, which take it shows."""
    made = [Shot(a, b, take=take, entities=[Entity(who, "human")]) for a, b, who, take in shots]
    return replace(film, shots=made, cuts=[shot.start for shot in made[1:]])


def prepare(tier: str, folder: Path, seed: int) -> list[Path]:
    """The set of a tier in a folder, made unless it is there; returns its films."""
    if tier == "R":
        if not (CORPUS / "MANIFEST.json").exists():
            sys.exit("no corpus of real footage: set A2DATA_CORPUS to its folder")
        if not (folder / "set.json").exists():
            corpus_truth(folder)
        return corpus_films()
    if not (folder / "set.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        a2data(["bench-data", "make", str(folder), "--tier", tier, "--seed", str(seed)])
    return [folder / film.file for film in load(folder).films]


def measure(tier: str, folder: Path, profile: str, settings: list[str], seed: int) -> str:
    """The lines of one tier."""
    films, work = prepare(tier, folder / tier, seed), folder / f"{tier}-{profile}"
    began = time.perf_counter()
    command = ["run", *map(str, films), "--work", str(work), "--profile", profile, "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    if a2data(command) != 0:
        sys.exit(f"the run over {work} did not end well")
    seconds = time.perf_counter() - began
    truth, made = load(folder / tier), predictions.read(work, work / "shards")
    data = report.to_json(score(truth, made, folder / tier), profile)
    report.write(data, work / "score")
    best = score(truth, oracle(truth), folder / tier)
    lines = [
        report.to_text(data),
        f"time: {seconds:.0f} s, {len(truth.units)} shots",
        f"the oracle: {best.headline:.3f}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiers", nargs="*", default=["S", "C"], help="S, C, R (default: S C)")
    parser.add_argument("--profile", default="builtin")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep films and tables here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for tier in args.tiers:
            print(measure(tier, args.folder or Path(scratch), args.profile, args.set, args.seed), flush=True)


if __name__ == "__main__":
    main()
