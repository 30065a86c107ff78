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
from pipelines.bench.a2.from_triplets import read_sample
from pipelines.bench.a2.metrics import embed_largest_face

MIN_CONTRAST = 8.0  # standard deviation in grey levels below which an image is too uniform to compare
MIN_WHITE = 200  # smallest value of a white pixel, of 255, in every channel
MAX_DARK = 0.01  # fraction of darker pixels allowed in a row or column of a margin

# (h, w, 3) uint8 -> (d,) of unit length, or None if there is nothing to compare
Embed = Callable[[np.ndarray], np.ndarray | None]


class Overlap(NamedTuple):
    """A case's image that matches a reference of a training sample."""

    case: str
    picture: Path
    sample: str  # its key
    reference: str  # its name in the sample
    shard: str
    evidence: str  # "bytes", "pixels", "looks 0.97", "face 0.98"

    def __str__(self) -> str:
        text = f"{self.case} shows {self.picture}, which is {self.reference} of {self.sample} in {self.shard}"
        return f"{text} (the same {self.evidence})"


def overlaps(
    cases: Iterable[Case], shards: Sequence[Path], copy_model: str = "", face_model: str = ""
) -> list[Overlap]:
    """Return every match between the cases' images and references of these data sets, with the strongest reason per pair.

    shards: folders written by `pack`. copy_model: a card of role copy, to find resized or recompressed images. face_model: a card
    of role faces, to find the same person in other images; it processes every training image of a person. "" disables either. The
    thresholds are on the cards. Raises FileNotFoundError for a folder without an index, ValueError for a card without a match
    threshold.
    """
    case_images = list({(case.id, e.path): (case.id, e.path, e.role) for case in cases for e in case.elements}.values())
    pictures = {path: read_picture(path) for _, path, _ in case_images}
    exact = _hashes(case_images, pictures)
    searches = [_similarity_search(case_images, pictures, *_copy_embedder(copy_model))] if copy_model else []
    searches += (
        [_similarity_search([m for m in case_images if m[2] == "human"], pictures, *_face_embedder(face_model))]
        if face_model
        else []
    )
    matches = []
    for key, name, role, data, shard in _references(shards):
        pixels = read_picture(io.BytesIO(data), f"{shard}, {name}.png", min_side_px=1)
        evidence_of = {hit: evidence for search in searches for hit, evidence in search(pixels, role).items()}
        evidence_of |= dict.fromkeys(exact.get(pixel_hash(pixels), ()), "pixels")
        evidence_of |= dict.fromkeys(
            exact.get(hashlib.sha256(data).hexdigest(), ()), "bytes"
        )  # the strongest reason comes last
        matches += [Overlap(case, path, key, name, shard, evidence) for (case, path), evidence in evidence_of.items()]
    return matches


def _references(shards: Sequence[Path]) -> Iterator[tuple[str, str, str, bytes, str]]:
    """Yield key, name, role, PNG and shard of every reference."""
    index = read_index([str(folder) for folder in shards])
    tars = Tars(index)
    for row in range(len(index)):
        key, shard = index.key(row), index.tar_path(row)
        facts, parts = read_sample(tars, row)
        names = [(g.name, g.role) for g in facts.references]
        # the data is only valid until the next row is read
        yield from [(key, name, role, parts[f"{name}.png"], shard) for name, role in names]


def _hashes(
    case_images: Sequence[tuple[str, Path, str]], pictures: dict[Path, np.ndarray]
) -> dict[str, list[tuple[str, Path]]]:
    """Return {sha256 of bytes or pixels: the cases' images that have it}."""
    matches: dict[str, list[tuple[str, Path]]] = {}
    for case, path, _ in case_images:
        for sha256 in (file_sha256(path), pixel_hash(pictures[path])):
            matches.setdefault(sha256, []).append((case, path))
    return matches


def _similarity_search(
    case_images: Sequence[tuple[str, Path, str]],
    pictures: dict[Path, np.ndarray],
    label: str,
    embed: Embed,
    min_similarity: float,
    roles: tuple[str, ...],
) -> Callable[[np.ndarray, str], dict[tuple[str, Path], str]]:
    """Return a function that finds the cases' images similar to an image, (h, w, 3) uint8, if its role is one of `roles`."""
    vector_of = {path: embed(pictures[path]) for path in {path for _, path, _ in case_images}}

    def search(pixels: np.ndarray, role: str) -> dict[tuple[str, Path], str]:
        vector = embed(pixels) if not roles or role in roles else None
        matches = {}
        for case, path, _ in case_images if vector is not None else ():
            case_vector = vector_of[path]
            if case_vector is not None and (cosine := float(case_vector @ vector)) >= min_similarity:
                matches[case, path] = f"{label} {cosine:.2f}"
        return matches

    return search


def _copy_embedder(name: str) -> tuple[str, Embed, float, tuple[str, ...]]:
    model = cards.load(name, cards.device())

    def embed(pixels: np.ndarray) -> np.ndarray | None:
        cropped = crop_white_margins(pixels)
        return None if cropped.mean(-1).std() < MIN_CONTRAST else model([cropped])[0]

    return "looks", embed, _match_threshold(name), ()


def _face_embedder(name: str) -> tuple[str, Embed, float, tuple[str, ...]]:
    model = cards.load(name, cards.device())
    return "face", lambda pixels: embed_largest_face(model, pixels), _match_threshold(name), ("human", "face")


def _match_threshold(name: str) -> float:
    threshold = cards.base_card(name).match_threshold
    if not threshold:
        raise ValueError(f"the card {name} has no match_threshold: choose another")
    return threshold


def crop_white_margins(pixels: np.ndarray) -> np.ndarray:
    """Crop the white margins of an image: cut-outs have wide ones, which make them all similar.

    The test for white is tolerant, so that JPEG artifacts do not count.
    """
    foreground = (pixels < MIN_WHITE).any(-1)
    rows, columns = (np.flatnonzero(foreground.mean(axis) > MAX_DARK) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def pixel_hash(image: np.ndarray) -> str:
    """Return the sha256 of (h, w, 3) uint8 pixels and their shape."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
