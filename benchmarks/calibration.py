"""Accuracy of the rate that `a2data calibrate` states, measured on faces of people outside the calibration set.

    OMP_NUM_THREADS=1 python -m benchmarks.calibration [--people 24] [--takes 4] [--seed 0]

Draws random people (the demo's portraits with other features, skin and hair), renders each with several lights, sizes and poses,
and embeds their faces with dlib. Half of the people form the calibration set: each pair of takes of two people counts as two
tracks that share a frame, each pair of takes of one person as a track that continues in another clip. The other half is the test
set. Intervals are 95 %: of thresholds by calibrate's bootstrap, of rates by Wilson.
"""

import argparse
from itertools import combinations

import cv2
import numpy as np

from model_zoo import cards
from pipelines.corpus.calibrate import CalibratedThreshold, Pairs, estimate_threshold
from pipelines.films import people as demo_people
from pipelines.films import places, renderer
from pipelines.films.people import Person, Shape
from pipelines.statistics import wilson

SIZE = (400, 360)  # width, height of a take, px
RATES = (0.1, 0.03, 0.01, 0.003, 0.001)


def drawn(rng: np.random.Generator) -> Person:
    """Return a random, distinct person."""
    portrait = str(rng.choice(["collins", "hopper"]))
    skin, hair = (tuple(np.sort(rng.uniform(low, high, 3))[::-1].tolist()) for low, high in ((0.45, 1.0), (0.2, 0.9)))
    coat = tuple(int(c) for c in rng.integers(30, 200, 3))
    shape = Shape(*rng.normal(0, 0.09, 9).tolist())
    return Person(portrait, shape, skin, hair, mirrored=bool(rng.random() < 0.5), coats=(("coat", coat),))


def take(who: Person, rng: np.random.Generator) -> np.ndarray:
    """Draw a person at a random place, (h, w, 3) uint8 RGB."""
    figure = demo_people.figure_of(who, "coat")
    place, light = (
        str(rng.choice(["room", "kitchen", "street", "park"])),
        str(rng.choice(["day", "dusk", "lamp", "night"])),
    )
    picture = np.ascontiguousarray(places.plate(place)[100 : 100 + SIZE[1], 200 : 200 + SIZE[0]])
    scale = rng.uniform(80, 130) / figure.face_px
    at = renderer.sprite_matrix(figure.body, rng.uniform(170, 230), rng.uniform(350, 380), scale)
    nod = np.vstack([cv2.getRotationMatrix2D(figure.neck, rng.uniform(-6, 6), 1.0), (0, 0, 1)])
    for sprite, matrix in ((figure.body, at), (figure.head, at @ nod)):
        renderer.paint(picture, sprite, matrix)
    return renderer.add_grain(places.relight(picture, light), 0, int(rng.integers(8)))


def faces(people: int, takes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings, (n, 128) float32, and the person of each, (n,). Takes without exactly one face are skipped."""
    rng, model = np.random.default_rng(seed), cards.load("dlib", "cpu")
    found, who = [], []
    for number in range(people):
        person = drawn(rng)
        for _ in range(takes):
            seen = model(take(person, rng))
            if len(seen) == 1:
                found.append(seen[0].embedding)
                who.append(number)
    return np.array(found, np.float32), np.array(who)


def pairs(x: np.ndarray, who: np.ndarray) -> tuple[Pairs, Pairs]:
    """Return all pairs of two people, and all pairs of one. The pairs of the same two count as one clip for the bootstrap."""
    i, j = np.array(list(combinations(range(len(x)), 2))).T
    similarity, same, clip = np.einsum("nd,nd->n", x[i], x[j]), who[i] == who[j], who[i] * 1000 + who[j]
    return tuple(Pairs(similarity[of], clip[of]) for of in (~same, same))  # type: ignore[return-value]


def lines(people: int, takes: int, seed: int) -> list[str]:
    """Return the lines of the table."""
    seen, held = (pairs(*faces(people, takes, seed + n)) for n in (0, 1))
    none = Pairs(np.zeros(0), np.zeros(0, np.int64))
    out = [
        f"{people} people for calibration, {people} others for the test, {takes} takes each: {len(seen[0].similarity)} and "
        f"{len(held[0].similarity)} pairs of two people, {len(seen[1].similarity)} and {len(held[1].similarity)} of one",
        "target FAR  threshold (95 %)            FAR on the test set (95 %)    TAR on the test set",
    ]
    for rate in RATES:
        found = estimate_threshold(seen[0], none, seen[1], rate)
        if not isinstance(found, CalibratedThreshold):
            out.append(f"{rate:<10g}  {found}")
            continue
        interval = f"({found.threshold_low:.4f} to {found.threshold_high:.4f})"
        for name, value in (("", found.threshold), ("base", found.threshold_here)):
            out.append(f"{rate:<10g}  {value:.4f} {interval}   {_held(held, value)}  {name}".rstrip())
    card = cards.card("dlib").match_threshold
    return [*out, f"the card's  {card:.4f}                      {_held(held, card)}"]


def _held(held: tuple[Pairs, Pairs], threshold: float) -> str:
    false, true = (int((p.similarity >= threshold).sum()) for p in held)
    low, high = wilson(false, len(held[0].similarity))
    share = false / len(held[0].similarity)
    return f"{share:.4f} ({low:.4f} to {high:.4f})     {true / len(held[1].similarity):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--takes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("\n".join(lines(args.people, args.takes, args.seed)))


if __name__ == "__main__":
    main()
