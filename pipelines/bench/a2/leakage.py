"""Whether pictures of the benchmark are in data that a model was trained on: by content, by looks, and by faces."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from a2data.dataset.reader import Tars, read_index
from model_zoo import cards
from pipelines.bench.a2.cases import Case, picture
from pipelines.bench.a2.from_triplets import sample
from pipelines.bench.a2.metrics import portrait

FLAT = 8.0  # grey levels of standard deviation below which a picture is like any other and proves nothing
WHITE = 200  # of 255, in every channel
SPECKS = 0.01  # share of a row or column that may be darker in a margin

# (h, w, 3) uint8 -> (d,) of unit length; None where there is nothing
Vector = Callable[[np.ndarray], np.ndarray | None]


class Overlap(NamedTuple):
    """A picture of a case that is, or shows, what a reference of a training sample does."""

    case: str
    picture: Path
    sample: str  # its key
    reference: str  # its name in the sample
    shard: str
    how: str  # "bytes", "pixels", "looks 0.97", "face 0.98"

    def __str__(self) -> str:
        told = f"{self.case} shows {self.picture}, which is {self.reference} of {self.sample} in {self.shard}"
        return f"{told} (the same {self.how})"


def overlaps(cases: Iterable[Case], shards: Sequence[Path], looks: str = "", faces: str = "") -> list[Overlap]:
    """Every picture of the cases that a reference of these data sets repeats; of each pair the strongest reason.

    shards: the folders that `pack` wrote. looks: a card of role copy, which finds pictures that were scaled or compressed anew.
    faces: a card of role faces, which finds the same person in another picture; it looks at every training picture of a person.
    "" for neither. What counts as the same is on the cards. Raises FileNotFoundError for a folder without an index, ValueError
    for a card that does not say from where two are the same.
    """
    mine = list({(case.id, e.path): (case.id, e.path, e.role) for case in cases for e in case.elements}.values())
    pictures = {path: picture(path) for _, path, _ in mine}
    exact = _exact(mine, pictures)
    near = [_near(mine, pictures, *_copies(looks))] if looks else []
    near += [_near([m for m in mine if m[2] == "human"], pictures, *_people(faces))] if faces else []
    found = []
    for key, name, role, data, where in _references(shards):
        pixels = picture(io.BytesIO(data), f"{where}, {name}.png")
        best = {hit: how for compare in near for hit, how in compare(pixels, role).items()}
        best |= dict.fromkeys(exact.get(content(pixels), ()), "pixels")
        best |= dict.fromkeys(exact.get(hashlib.sha256(data).hexdigest(), ()), "bytes")  # the stronger word comes last
        found += [Overlap(case, path, key, name, where, how) for (case, path), how in best.items()]
    return found


def _references(shards: Sequence[Path]) -> Iterator[tuple[str, str, str, bytes, str]]:
    """Key, name, role, PNG and whereabouts of every reference."""
    index = read_index([str(folder) for folder in shards])
    tars = Tars(index)
    for row in range(len(index)):
        key, where = index.key(row), index.where(row)
        facts, parts = sample(tars, row)
        given = [(g.name, g.role) for g in facts.references]
        # what was read is gone with the next row
        yield from [(key, name, role, parts[f"{name}.png"], where) for name, role in given]


def _exact(
    mine: Sequence[tuple[str, Path, str]], pictures: dict[Path, np.ndarray]
) -> dict[str, list[tuple[str, Path]]]:
    """sha256 of bytes or pixels -> the pictures of the cases that have it."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for case, path, _ in mine:
        for sha256 in (hashlib.sha256(path.read_bytes()).hexdigest(), content(pictures[path])):
            found.setdefault(sha256, []).append((case, path))
    return found


def _near(
    mine: Sequence[tuple[str, Path, str]],
    pictures: dict[Path, np.ndarray],
    word: str,
    vector: Vector,
    same: float,
    roles: tuple[str, ...],
) -> Callable[[np.ndarray, str], dict[tuple[str, Path], str]]:
    """What says which pictures of the cases are like one, (h, w, 3) uint8, of a role; of roles that are asked for."""
    known = {path: vector(pictures[path]) for path in {path for _, path, _ in mine}}

    def compare(pixels: np.ndarray, role: str) -> dict[tuple[str, Path], str]:
        other = vector(pixels) if not roles or role in roles else None
        found = {}
        for case, path, _ in mine if other is not None else ():
            own = known[path]
            if own is not None and (cosine := float(own @ other)) >= same:
                found[case, path] = f"{word} {cosine:.2f}"
        return found

    return compare


def _copies(name: str) -> tuple[str, Vector, float, tuple[str, ...]]:
    model = cards.load(name, cards.device())

    def vector(pixels: np.ndarray) -> np.ndarray | None:
        shown = on_its_own(pixels)
        return None if shown.mean(-1).std() < FLAT else model([shown])[0]

    return "looks", vector, _same(name), ()


def _people(name: str) -> tuple[str, Vector, float, tuple[str, ...]]:
    model = cards.load(name, cards.device())
    return "face", lambda pixels: portrait(model, pixels), _same(name), ("human", "face")


def _same(name: str) -> float:
    same = cards.base_card(name).match_threshold
    if not same:
        raise ValueError(f"the card {name} does not say from which cosine two are the same: take another")
    return same


def on_its_own(pixels: np.ndarray) -> np.ndarray:
    """A picture without the white around what it shows: cut-outs have much of it, and are all alike by it.

    White and its margins are meant coarsely, so that what JPEG leaves there does not count.
    """
    shown = (pixels < WHITE).any(-1)
    rows, columns = (np.flatnonzero(shown.mean(axis) > SPECKS) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def content(image: np.ndarray) -> str:
    """The sha256 of (h, w, 3) uint8 pixels and their shape."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
