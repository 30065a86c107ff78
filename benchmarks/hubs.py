"""Retrieval for people with more clips than searched neighbours: how many get references, and how many are right.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval hubs           # all rows: about 20 minutes on one core
    OMP_NUM_THREADS=1 python -m benchmarks.hubs [--clips 500 mixed] [--neighbours 64 16] [--embedders dlib arcface] [--hard]
    A2DATA_CORPUS=<folder> python -m benchmarks.hubs --measure      # the spread of real faces

Runs the stage `retrieve` over synthetic faces. Each row of the table has people with that many clips and SMALL others with 1 to
12 clips; each of the first 40 has five lookalikes among them, and one clip in ten shows two people. In "mixed" 3 people have
10,000 clips, 5 have 1,000, 20 have 100, and 4,000 others have few.

The distribution follows real faces: 14 films of five people and 2 of two more (Intel's sample videos, see MANIFEST.json of the
corpus), with about 300 faces each by dlib and by a MobileFaceNet trained with ArcFace that pass the gates of the stage `faces`.
Cosines of the means of films, 14 pairs of one person and 106 of two people, and of the means of eight successive detections, less
than a second (--hard):

                        min     5 %    25 %    50 %    75 %    95 %    max
    dlib     same        .983    .986    .991    .993    .994    .995    .995
             eight       .974    .981    .985    .989    .990    .992    .994
             two         .824    .848    .906    .919    .937    .950    .958
    arcface  same        .797    .811    .889    .921    .943    .958    .961
             eight       .538    .674    .783    .882    .907    .934    .953
             two        -.041    .002    .127    .229    .369    .504    .579

Synthetic, same person: dlib 1 % .967, 5 % .978, 25 % .988, 50 % .991, 75 % .994, 95 % .997; arcface .695, .794, .887, .925, .948,
.968. Two people: dlib 5 % .880, 50 % .913, 95 % .943, 99 % .952; arcface .038, .229, .436, .522. So the tail of hard takes is
heavier than the measured one: the lowest cosine of two takes of one person is .24 with arcface, and .3 % of the takes have a mean
below the threshold. An embedding is the sum of a common direction, that of one of 30 groups of similar faces, the person's own,
and noise in few directions (12 and 14 were measured). The noise is longer for some people, by evenly spaced quantiles, and for
one take in ten. Lookalikes have the cosine of the two most similar people measured. Two people are never more similar than the
threshold by chance: 21 pairs of people do not show how rare that is.

A target is one of 200 clips of the people with that many clips, or one of 100 others. "in reach" is the fraction of the former
that reach the threshold with another clip of the same person, "right" the fraction with a reference that shows the same person,
"precision" the fraction of all references that do.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from a2data.media import images
from a2data.records import ClipThumbs, ClipTimes, Element, EmbeddedElement, Match, Reference
from a2data.store.schema import from_table, schema, to_table
from stages.retrieve import clusters
from stages.retrieve.stage import Retrieve

D = 128
SMALL = 1500  # additional people with few clips
CLIPS = {
    "2": [2] * 500,
    "10": [10] * 200,
    "100": [100] * 20,
    "500": [500] * 8,
    "2000": [2000] * 4,
    "10000": [10_000] * 2,
}
CLIPS["mixed"] = [10_000] * 3 + [1000] * 5 + [100] * 20
TARGETS, OTHERS = 200, 100
ROW = "{:>10} {:>6} {:>3} {:>8} {:>6} {:>9} {:>7} {:>10} {:>8} {:>12} {:>8} {:>10} {:>9}"


class Spread(NamedTuple):
    """Distribution of embeddings. Squared lengths unless stated otherwise."""

    common: float  # component shared by all faces
    looks: float  # component shared by a group of similar faces
    looks_dims: int
    person: float  # component of a person
    take: float  # component of a take
    take_dims: float  # half of its effective number of directions
    person_sd: float  # standard deviation of the log distance of a person's takes
    take_sd: float  # the same for single takes
    hard: float  # fraction of hard takes
    harder: float  # factor of the distance of hard takes
    alike: float  # cosine of lookalikes
    threshold: float  # match threshold of the model's card


SPREADS = {
    "dlib": Spread(0.912, 0.035, 5, 0.045, 0.008, 10, 0.15, 0.15, 0.1, 1.6, 0.959, 0.97),
    "arcface": Spread(0.23, 0.25, 8, 0.45, 0.07, 12, 0.2, 0.15, 0.1, 1.9, 0.579, 0.7),
}
HARD = {
    "dlib": SPREADS["dlib"]._replace(person=0.043, take=0.01, person_sd=0.1, take_sd=0.12, hard=0.15, harder=1.4),
    "arcface": SPREADS["arcface"]._replace(person=0.43, take=0.09, person_sd=0.15, hard=0.15),
}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw(counts: list[int], twin: np.ndarray, spread: Spread, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors, (n, D) float32, and the person of each, shuffled. twin: (people,) index of the lookalike or -1."""
    rng = np.random.default_rng(seed)
    turn, own = (np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (D, D - 1))
    kind = rng.integers(0, 30, len(counts))
    kind = np.where(twin >= 0, kind[twin], kind)
    person = unit(rng.standard_normal((len(counts), 60)))
    second = np.flatnonzero(twin >= 0)
    first, cosine = person[twin[second]], (spread.alike - spread.common - spread.looks) / spread.person
    across = unit(person[second] - np.einsum("nd,nd->n", person[second], first)[:, None] * first)
    person[second] = cosine * first + np.sqrt(1 - cosine**2) * across
    centres = np.zeros((len(counts), D))
    centres[:, 0] = spread.common**0.5
    looks = unit(rng.standard_normal((30, spread.looks_dims))) * spread.looks**0.5
    centres[:, 1 : 1 + spread.looks_dims] = looks[kind]
    centres[:, 1 + spread.looks_dims : 61 + spread.looks_dims] = person * spread.person**0.5
    who = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    weight = np.exp(-np.arange(D - 1) / spread.take_dims)
    noise = rng.standard_normal((len(who), D - 1)) * np.sqrt(spread.take * weight / weight.sum())
    size, deviation = np.array(counts), np.empty(len(counts))
    for one in np.unique(size):  # evenly spaced quantiles, so that two people of 10,000 clips are not both outliers
        same = rng.permutation(np.flatnonzero(size == one))
        deviation[same] = [NormalDist().inv_cdf((n + 0.5) / len(same)) for n in range(len(same))]
    far = np.exp(spread.person_sd * deviation)[who]
    far *= np.exp(spread.take_sd * rng.standard_normal(len(who)))
    far *= np.where(rng.random(len(who)) < spread.hard, spread.harder, 1)
    x = centres[who]
    x[:, 1:] += noise @ own * far[:, None]
    return unit(x @ turn).astype(np.float32), who


def tables(
    x: np.ndarray, who: np.ndarray, asked: np.ndarray, embedder: str, seed: int = 0
) -> tuple[pa.Table, pa.Table, list[pa.Table]]:
    """Return the tables that retrieve reads: matches of the requested faces, clips, and elements by table."""
    rng, n = np.random.default_rng(seed), len(x)
    clip = np.arange(n)
    for i in range(0, n - 1, 10):  # two people in one frame
        if who[i] != who[i + 1]:
            clip[i + 1] = i
    clips = [f"{c // 8:016x}-{c:08d}" for c in clip.tolist()]
    faces = [f"{c}/face/{n}" for n, c in enumerate(clips)]
    columns: dict[str, Any] = {
        "clip_id": clips,
        "element_id": faces,
        "kind": ["face"] * n,
        "label": ["face"] * n,
        "parent_id": [""] * n,
        "frame": [1] * n,
        "image_sha256": [f"{i:016x}" for i in range(n)],
        "embedder": [embedder] * n,
        "quality": rng.random(n),
        "seen_frames": [[0, 1]] * n,
        "attributes": [[]] * n,
        "mask_confidence": [-1.0] * n,
        "embedding": list(x),
    }
    look = schema(EmbeddedElement)
    seen = pa.table([pa.array(columns[f.name], f.type) for f in look], schema=look)
    known, first = np.unique(clip, return_index=True)
    takes = to_table(
        ClipTimes,
        [
            ClipTimes(clips[i], clips[i][:16], [60.0 * c, 60.0 * c + 1 / 15])
            for i, c in zip(first.tolist(), known.tolist(), strict=True)
        ],
    )
    takes = takes.append_column("shard", pa.array([0] * len(takes), pa.int32()))
    matches = to_table(Match, [Match(clips[i], faces[i], "it", 0, 2, 1.0, 1.0) for i in asked.tolist()])
    none = to_table(EmbeddedElement, [])
    shard = pa.field("shard", pa.int32())
    looks = [t.append_column(shard, pa.array([0] * len(t), pa.int32())) for t in (none, seen, none, none, none)]
    return matches, takes, looks


def pictured(stage: str, shard: int, column: str, values: list[str], record: type | None = None) -> dict[str, Any]:
    """Return elements with random pictures and clips with random thumbnails, in place of the stage's table lookups."""
    if stage == "segment":
        rngs = ((name, np.random.default_rng([7, *name.encode()])) for name in values)
        return {
            name: ClipThumbs(name, "", [], rng.integers(0, 256, 2 * 18 * 24, np.uint8).tobytes()) for name, rng in rngs
        }
    mask = np.zeros((24, 32), bool)
    mask[2:10, 2:10] = True
    found = {}
    for name in values:
        rgba = np.random.default_rng(list(name.encode())).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        png, box = images.to_png(rgba | np.uint8([0, 0, 0, 255])), (2.0, 2.0, 10.0, 10.0)
        about = ("face", "face", "", 1, box, 0.9, images.to_rle(mask), png, images.sha16(png))
        found[name] = Element(name.split("/")[0], name, *about, [], "", 0.5, [0, 1], [box, box], [])
    return found


def row(clips: str, embedder: str, neighbours: int, spread: Spread) -> str:
    """Measure one row of the table."""
    rng = np.random.default_rng(1)
    small = 4000 if clips == "mixed" else SMALL
    counts = CLIPS[clips] + rng.choice([1, 2, 3, 4, 6, 8, 12], small).tolist()
    many, people = len(CLIPS[clips]), len(counts)
    twin = np.full(people, -1)
    alike = 5 * min(40, many)
    twin[many : many + alike] = np.arange(alike) % min(40, many)
    twin[many + alike : many + alike + small // 20] = np.arange(people - small // 20, people)
    x, who = draw(counts, twin, spread)
    hub = rng.choice(np.flatnonzero(who < many), TARGETS, replace=False)
    other = rng.choice(np.flatnonzero(who >= many), OTHERS, replace=False)
    asked = np.sort(np.concatenate([hub, other]))
    matches, takes, looks = tables(x, who, asked, embedder)
    spent = {"join": 0.0, "clusters": 0.0}
    undo = timed(spent)
    began = time.process_time()
    stage = Retrieve(min_face=spread.threshold, top_k=neighbours)
    made = stage.run(None, matches, takes, *looks, lookup=pictured)
    rows = [row for one in made if isinstance(one, pa.Table) for row in from_table(Reference, one)]
    rest = time.process_time() - began - spent["join"] - spent["clusters"]
    undo()
    number = {name: i for i, name in enumerate(looks[1]["element_id"].to_pylist())}
    source = {number[r.element_id]: number[r.source_element_id] for r in rows}
    right = {i for i, j in source.items() if who[i] == who[j]}
    reach = sum(float(np.sort(x[who == who[i]] @ x[i])[-2]) >= spread.threshold for i in hub.tolist()) / len(hub)
    covered = sum(i in right for i in hub.tolist()) / len(hub)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return ROW.format(
        clips,
        many,
        neighbours,
        embedder,
        len(x),
        f"{reach:.4f}",
        f"{covered:.4f}",
        f"{len(right) / max(1, len(source)):.4f}",
        f"{spent['join']:.1f}",
        f"{spent['clusters']:.1f}",
        f"{1e6 * spent['clusters'] / len(x):.0f}",
        f"{1e3 * rest / len(asked):.0f}",
        f"{peak:.2f}",
    )


def timed(spent: dict[str, float]) -> Callable[[], None]:
    """Record the CPU seconds of the join, the first `top_k`, and of the rest of `cluster_identities`; return an undo function."""
    import stages.retrieve.stage

    top_k, cluster = clusters.top_k, clusters.cluster_identities

    def join(*args: Any, **how: Any) -> Any:
        began = time.process_time()
        found = top_k(*args, **how)
        if not spent["join"]:
            spent["join"] = time.process_time() - began
        return found

    def whole(*args: Any, **how: Any) -> Any:
        began = time.process_time()
        found = cluster(*args, **how)
        spent["clusters"] = time.process_time() - began - spent["join"]
        return found

    def undo() -> None:
        clusters.top_k, stages.retrieve.stage.cluster_identities = top_k, cluster

    clusters.top_k, stages.retrieve.stage.cluster_identities = join, whole
    return undo


def measure() -> None:
    """Print the quantiles of cosines of real faces, of the means of films and of eight successive detections."""
    import cv2

    from model_zoo import cards
    from stages import faces

    corpus = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
    known = {
        Path(f["file"]).name: f.get("identity", "") for f in json.loads((corpus / "MANIFEST.json").read_text())["files"]
    }
    known |= {f"intel_head-pose-face-detection-{sex}.mp4": sex for sex in ("male", "female")}
    gates = faces.Faces()
    for model in ("dlib", f"insightface:{corpus / 'weights' / 'models' / 'insightface_mini'}"):
        find, films = cards.load(model, "cpu"), {}
        for path in sorted((corpus / "video").iterdir()):
            if not known.get(path.name):
                continue
            film, found = cv2.VideoCapture(str(path)), []
            for number in range(0, int(film.get(cv2.CAP_PROP_FRAME_COUNT)), 3):
                film.set(cv2.CAP_PROP_POS_FRAMES, number)
                read, frame = film.read()
                seen = find(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) if read else []
                good = [
                    f for f in seen if f.score >= gates.confidence and not gates.defect(faces.measure(number, frame, f))
                ]
                found += [f.embedding for f in good[:1]]
            films[path.name] = np.array(found)
        for name, length in (("films", 0), ("eight sightings", 8)):
            means, film_of = [], []
            for film_name, found in films.items():
                size = length or len(found)
                for start in range(0, len(found) - size + 1, max(1, size // 2)):
                    if size:
                        means.append(found[start : start + size].mean(0))
                        film_of.append(film_name)
            x = unit(np.array(means))
            i, j = np.triu_indices(len(x), 1)
            same = np.array([known[film_of[a]] == known[film_of[b]] for a, b in zip(i, j, strict=True)])
            across = np.array([film_of[a] != film_of[b] for a, b in zip(i, j, strict=True)])
            for what, which in (("same", same & across), ("two", ~same)):
                values = np.quantile(np.einsum("nd,nd->n", x[i], x[j])[which], [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
                print(
                    f"{model.split(':')[0]:12} {name:15} {what:5} {which.sum():6} pairs ",
                    *(f"{v:6.3f}" for v in values),
                )


def table(clips: list[str], embedders: list[str], neighbours: list[int], hard: bool = False) -> None:
    """Print the table. Each row runs in its own process, for its peak memory."""
    head = "clips each|people|k|model|faces|in reach|right|precision|join, s|clusters, s|us/face|ms/target|peak, GB"
    print(ROW.format(*head.split("|")), flush=True)
    for embedder in embedders:
        for k in neighbours:
            for name in clips:
                argv = ["--row", name, embedder, str(k), *(["--hard"] if hard else [])]
                subprocess.run([sys.executable, "-m", "benchmarks.hubs", *argv], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=[*CLIPS])
    parser.add_argument("--neighbours", nargs="+", type=int, default=[64, 16])
    parser.add_argument("--embedders", nargs="+", choices=SPREADS, default=[*SPREADS])
    parser.add_argument("--hard", action="store_true", help="use the spread of means of eight detections")
    parser.add_argument("--measure", action="store_true", help="print the spread of real faces and exit")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure()
    elif args.row:
        clips, embedder, k = args.row
        print(row(clips, embedder, int(k), (HARD if args.hard else SPREADS)[embedder]), flush=True)
    else:
        table(args.clips, args.embedders, args.neighbours, args.hard)


if __name__ == "__main__":
    main()
