"""Contamination check: find benchmark images in training data, by content, by embedding and by face."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from a2data.dataset.reader import Tars, read_index
from a2data.media.pictures import read_picture
from a2data.store.folder import file_sha256
from model_zoo import cards
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.from_triplets import sample
from pipelines.bench.a2.metrics import portrait

FLAT = 8.0  # standard deviation in grey levels below which an image is too uniform to compare
WHITE = 200  # smallest value of a white pixel, of 255, in every channel
SPECKS = 0.01  # fraction of darker pixels allowed in a row or column of a margin

# (h, w, 3) uint8 -> (d,) of unit length, or None if there is nothing to compare
Vector = Callable[[np.ndarray], np.ndarray | None]


class Overlap(NamedTuple):
    """A case's image that matches a reference of a training sample."""

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
    """Return every match between the cases' images and references of these data sets, with the strongest reason per pair.

    shards: folders written by `pack`. looks: a card of role copy, to find resized or recompressed images. faces: a card of role
    faces, to find the same person in other images; it processes every training image of a person. "" disables either. The
    thresholds are on the cards. Raises FileNotFoundError for a folder without an index, ValueError for a card without a match
    threshold.
    """
    mine = list({(case.id, e.path): (case.id, e.path, e.role) for case in cases for e in case.elements}.values())
    pictures = {path: read_picture(path) for _, path, _ in mine}
    exact = _exact(mine, pictures)
    near = [_near(mine, pictures, *_copies(looks))] if looks else []
    near += [_near([m for m in mine if m[2] == "human"], pictures, *_people(faces))] if faces else []
    found = []
    for key, name, role, data, where in _references(shards):
        pixels = read_picture(io.BytesIO(data), f"{where}, {name}.png", min_side_px=1)
        best = {hit: how for compare in near for hit, how in compare(pixels, role).items()}
        best |= dict.fromkeys(exact.get(content(pixels), ()), "pixels")
        best |= dict.fromkeys(
            exact.get(hashlib.sha256(data).hexdigest(), ()), "bytes"
        )  # the strongest reason comes last
        found += [Overlap(case, path, key, name, where, how) for (case, path), how in best.items()]
    return found


def _references(shards: Sequence[Path]) -> Iterator[tuple[str, str, str, bytes, str]]:
    """Yield key, name, role, PNG and shard of every reference."""
    index = read_index([str(folder) for folder in shards])
    tars = Tars(index)
    for row in range(len(index)):
        key, where = index.key(row), index.tar_path(row)
        facts, parts = sample(tars, row)
        given = [(g.name, g.role) for g in facts.references]
        # the data is only valid until the next row is read
        yield from [(key, name, role, parts[f"{name}.png"], where) for name, role in given]


def _exact(
    mine: Sequence[tuple[str, Path, str]], pictures: dict[Path, np.ndarray]
) -> dict[str, list[tuple[str, Path]]]:
    """Return {sha256 of bytes or pixels: the cases' images that have it}."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for case, path, _ in mine:
        for sha256 in (file_sha256(path), content(pictures[path])):
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
    """Return a function that finds the cases' images similar to an image, (h, w, 3) uint8, if its role is one of `roles`."""
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
        raise ValueError(f"the card {name} has no match_threshold: choose another")
    return same


def on_its_own(pixels: np.ndarray) -> np.ndarray:
    """Crop the white margins of an image: cut-outs have wide ones, which make them all similar.

    The test for white is tolerant, so that JPEG artifacts do not count.
    """
    shown = (pixels < WHITE).any(-1)
    rows, columns = (np.flatnonzero(shown.mean(axis) > SPECKS) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def content(image: np.ndarray) -> str:
    """Return the sha256 of (h, w, 3) uint8 pixels and their shape."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
