"""Whether pictures of the benchmark are in data that a model was trained on: by the content of files, and of their pixels."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from a2data.samples import to_facts
from a2data.tars import Tars, members, read_index
from pipelines.a2_bench.cases import Case, picture


class Overlap(NamedTuple):
    """A picture of a case that is also a reference of a training sample."""

    case: str
    picture: Path
    sample: str  # its key
    reference: str  # its name in the sample
    shard: str
    how: str  # "bytes" or "pixels"


def overlaps(cases: Iterable[Case], shards: Sequence[Path]) -> list[Overlap]:
    """Every picture of the cases that is, byte for byte or pixel for pixel, a reference of these data sets.

    shards: the folders that `pack` wrote. A picture that was scaled or compressed anew is not found. Raises FileNotFoundError for
    a folder without an index.
    """
    mine: dict[str, list[tuple[str, Path, str]]] = {}
    for case in cases:
        for path in dict.fromkeys(element.path for element in case.elements):
            data = hashlib.sha256(path.read_bytes()).hexdigest()
            mine.setdefault(data, []).append((case.id, path, "bytes"))
            mine.setdefault(pixels(picture(path)), []).append((case.id, path, "pixels"))
    index = read_index([str(folder) for folder in shards])
    tars, found = Tars(index), []
    for row in range(len(index)):
        key, where = index.key(row), index.where(row)
        parts = members(tars.read(row), key, where)
        names = [given.name for given in to_facts(bytes(parts["json"]), key).references]
        for name in names:
            found += _same(mine, bytes(parts[f"{name}.png"]), key, name, where)
    return found


def _same(mine: dict[str, list[tuple[str, Path, str]]], data: bytes, key: str, name: str, where: str) -> list[Overlap]:
    by_bytes = mine.get(hashlib.sha256(data).hexdigest(), [])
    with Image.open(io.BytesIO(data)) as image:
        by_pixels = mine.get(pixels(np.asarray(image.convert("RGB"))), [])
    best = {(case, path): how for case, path, how in (*by_pixels, *by_bytes)}  # the stronger word comes last
    return [Overlap(case, path, key, name, where, how) for (case, path), how in best.items()]


def pixels(image: np.ndarray) -> str:
    """The sha256 of (h, w, 3) uint8 pixels and their shape."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
