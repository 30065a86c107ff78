"""Real film: how many clips get a right person, how many references are right and clean, and why the others get none.

    A2DATA_CORPUS=<folder> python -m benchmarks.real_film [--films FOLDER] [--recipe builtin --recipe weights] [--work FOLDER]
                                                          [--set STAGE.FIELD=VALUE]

Without --films: tier R of TripletBench (benchmarks/triplet_bench.py) and the three films of two people who turn their heads, in a
tuning and a held-out half. --films: a folder of films and their truth (docs/triplet-bench.md), all held out. A clip could have a
person if a person of its shot is in a kept clip of another take. It has one if a reference with the role human or face shows
that person. A human reference is clean if its mask has an IoU of 0.85 with that of a YOLOv8n-seg in the same frame, which
`builtin` does not use. Prints both halves by film, and the reasons of the clips that could have a person and have none.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from a2data.media import video
from a2data.store.tables import Store
from benchmarks.corpus import CORPUS, NO_CORPUS, SETTINGS, WEIGHTS, available
from benchmarks.people_masks import HELD_OUT
from benchmarks.triplet_bench import corpus_truth
from model_zoo import cards
from pipelines.bench.triplets import pairs, predictions
from pipelines.bench.triplets.match_truth import GroundTruthMatcher
from pipelines.cli.main import main as a2data
from pipelines.films.tier_r import draft_film
from pipelines.films.truth import Entity, Film, Shot, Sight, Truth, Unit, load, save, sight

PEOPLE = ("human", "face")
YOLO = "yolov8n-seg_int8_320.onnx"
OUTLINES = Path(__file__).with_name("real_outlines.json")
FOUND_IOU = 0.3  # with the other network's mask, from which it has found the person
MIN_CLEAN_IOU = 0.85  # as pipelines.bench.triplets.pictures
HEADS = {"female": ["F"], "male": ["M"], "female-and-male": ["F", "M"]}  # people from the left to the right


class Ratio(NamedTuple):
    """A part of a whole."""

    part: int = 0
    of: int = 0

    def __str__(self) -> str:
        return f"{self.part}/{self.of}" + (f" = {self.part / self.of:.2f}" if self.of else "")


class Row(NamedTuple):
    """The figures of a film, or of several."""

    clips: Ratio = Ratio()  # with a right person, of those that could have one
    right: Ratio = Ratio()  # references
    clean: Ratio = Ratio()  # human references

    def plus(self, other: "Row") -> "Row":
        return Row(*(Ratio(a.part + b.part, a.of + b.of) for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"clips with a right person {self.clips}, references right {self.right}, clean {self.clean}"


def truth_of_corpus(out: Path) -> list[Path]:
    """Write the truth of the corpus films; return their paths."""
    films = list(corpus_truth(out).films)
    outlines = json.loads(OUTLINES.read_text())
    for name, people in HEADS.items():
        file = f"intel_head-pose-face-detection-{name}.mp4"
        films.append(heads(draft_film(str(CORPUS / "video" / file)), people, outlines[f"video/{file}"]))
    save(Truth("R", films), out)
    return [CORPUS / "video" / film.file for film in films]


def heads(film: Film, people: list[str], outlines: dict[str, list]) -> Film:
    """Return a drafted film of one shot with these people, from the left to the right. outlines: frame -> polygons of each."""
    sights: dict[str, dict[int, Sight]] = {who: {} for who in people}
    for frame, found in outlines.items():
        for who, polygons in zip(people, sorted(found, key=lambda one: np.mean([x for x, _ in one[0]])), strict=True):
            mask = np.zeros((film.height, film.width), np.uint8)
            cv2.fillPoly(mask, [np.array(polygon, np.int32) for polygon in polygons], 1)
            sights[who][int(frame)] = sight(mask > 0, 1.0)
    entities = [Entity(who, "human", sights=seen) for who, seen in sights.items()]
    return replace(film, shots=[Shot(0, film.frames, entities=entities)], reach=film.frames)


def measure(truth: Truth, files: dict[str, Path], work: Path) -> tuple[dict[str, Row], Counter[tuple[str, str]]]:
    """Return the figures by film, and how many clips without a person have each reason, with the stage."""
    made = predictions.read(work, work / "shards")
    ground = GroundTruthMatcher(truth, made)
    people = [p for p in pairs.make_pairs(ground) if p.ref.role in PEOPLE]
    served = {p.sample.clip for p in people if p.is_correct}
    clean = {}
    if (WEIGHTS / YOLO).exists():
        clean = clean_references({p.ref.origin.file: [] for p in people}, people, files)
    by_film: dict[str, Row] = defaultdict(Row)
    lost: Counter[tuple[str, str]] = Counter()
    reasons = refusals(Store(work))
    shown = {c.id: unit for c in made.clips.values() if c.kept and (unit := ground.unit_of.get(c.id))}
    takes: dict[str, set[str]] = defaultdict(set)
    for unit in shown.values():
        for name in humans(unit):
            takes[name].add(unit.take)
    for clip in (made.clips[name] for name in shown):
        if any(takes[name] - {shown[clip.id].take} for name in humans(shown[clip.id])):
            by_film[clip.file] = by_film[clip.file].plus(Row(Ratio(clip.id in served, 1)))
            if clip.id not in served:
                lost.update(set(reasons.get(clip.id, [("detect", "no person")])))
    for pair in people:
        file = made.clips[pair.sample.clip].file
        row = Row(right=Ratio(pair.is_correct, 1), clean=Ratio(*clean.get(id(pair), (0, 0))))
        by_film[file] = by_film[file].plus(row)
    return dict(by_film), lost


def humans(unit: Unit) -> set[str]:
    return {entity.id for entity in unit.expected_entities(0.01) if entity.kind == "human"}


def clean_references(
    films: dict[str, list], people: list[pairs.Pair], files: dict[str, Path]
) -> dict[int, tuple[int, int]]:
    """Return (clean, 1) for each human reference of which the other network finds the person."""
    out, detect = {}, cards.load(f"yolo:{WEIGHTS / YOLO}")
    for file in films:
        mine = [p for p in people if p.ref.role == "human" and p.ref.origin.file == file]
        wanted = {p.ref.origin.frame for p in mine}
        frames = {
            n: f.picture.to_ndarray(format="rgb24") for n, f in enumerate(video.read(str(files[file]))) if n in wanted
        }
        for pair in mine:
            frame = frames[pair.ref.origin.frame]
            mask = pair.ref.origin.in_source(*frame.shape[:2])
            others = [d.mask for d in detect(frame[None])[0] if d.kind == "human" and d.mask is not None]
            best = max(((mask & o).sum() / (mask | o).sum() for o in others), default=0.0)
            if best >= FOUND_IOU:
                out[id(pair)] = int(best >= MIN_CLEAN_IOU), 1
    return out


def refusals(store: Store) -> dict[str, list[tuple[str, str]]]:
    """Return the stage and reason of every rejected person, face and clip, by clip."""
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for stage in ("detect", "faces", "match", "retrieve", "pack"):
        for shard in store.shards(stage):
            footer = store.footer(stage, shard)
            for reject in footer.rejected if footer else ():
                clip, _, rest = reject.key.partition("/")
                if not rest or rest.startswith(PEOPLE):
                    out[clip].append((stage, reject.reason))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="a folder of films and their truth (default: the corpus)")
    parser.add_argument("--recipe", action="append", help="a profile, or weights; repeatable (default: builtin)")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    parser.add_argument("--work", type=Path, help="keep the tables here (default: temporary)")
    args = parser.parse_args()
    if not args.films and not available():
        print(NO_CORPUS)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.work or Path(scratch)
        films = args.films
        paths = [films / film.file for film in load(films).films] if films else truth_of_corpus(folder / "truth")
        truth = load(films or folder / "truth")
        for recipe in args.recipe or ["builtin"]:
            work = folder / recipe
            profile, more = ("builtin", SETTINGS[recipe]) if recipe == "weights" else (recipe, [])
            settings = [word for setting in (*more, *args.set) for word in ("--set", setting)]
            where = ["--work", str(work), "--out", str(work / "shards"), "--profile", profile, "--quiet"]
            if a2data(["run", *map(str, paths), *where, *settings]) != 0:
                sys.exit(f"the run over {work} failed")
            by_film, lost = measure(truth, {p.name: p for p in paths}, work)
            print("\n".join(lines(recipe, by_film, lost, bool(films))), flush=True)


def lines(recipe: str, by_film: dict[str, Row], lost: Counter[tuple[str, str]], held_out: bool) -> Iterator[str]:
    """Yield the lines of a recipe. held_out: all films are."""
    halves: dict[str, Row] = defaultdict(Row)
    for file, row in sorted(by_film.items()):
        half = "held out" if held_out or any(word in file for word in HELD_OUT) else "tuning"
        halves[half] = halves[half].plus(row)
        yield f"{recipe}, {file} ({half}): {row}"
    for half, row in sorted(halves.items(), reverse=True):
        yield f"{recipe}, {half}: {row}"
    for (stage, reason), count in lost.most_common():
        yield f"{recipe}, clips without a person: {count} {stage}: {reason}"


if __name__ == "__main__":
    main()
