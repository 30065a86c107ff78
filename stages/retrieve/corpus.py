"""The elements and clips of a whole corpus, in columns: what is compared across clips.

Text stays in Arrow tables, which the runner maps from disk, and is read for the rows that need it. In memory an element takes its
embedding and some hundred bytes of numbers (`python -m benchmarks.corpus_memory`).
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import ClipThumbs, ElementMeta, EmbeddedElement
from a2data.store.schema import schema
from stages.retrieve import copies
from stages.retrieve.nearest import vectors

INF = float("inf")
TOGETHER = 16  # clips whose thumbnails are prepared at a time
PARTS = ("hair", "upper", "lower", "shoes", "accessory")  # worn on one day: person and outfit must both agree
Lookup = Callable[..., dict[str, Any]]  # a2data.store.lookup.Lookup


class Traits:
    """A table of `ElementMeta` as a sequence, each item built on access."""

    def __init__(self, table: pa.Table, order: np.ndarray):
        self.columns, self.order = {name: table[name] for name in ElementMeta.__dataclass_fields__}, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, row: int) -> ElementMeta:
        place = int(self.order[row])
        return ElementMeta(**{name: column[place].as_py() for name, column in self.columns.items()})

    def __iter__(self) -> Iterator[ElementMeta]:
        return (self[row] for row in range(len(self)))


class Corpus:
    """All elements in the order of their ids. Indices are row numbers in that order; -1 means none."""

    def __init__(self, table: pa.Table, embeddings: dict[str, tuple[np.ndarray, np.ndarray]]):
        """table: `ElementMeta` and "shard", in any order; embeddings: kind -> (n,) places in the table, (n, d) float32."""
        self.order = pc.sort_indices(table["element_id"]).to_numpy()  # place in the table of each row
        self._row_of = row_of = np.empty(len(table), np.int64)
        row_of[self.order] = np.arange(len(table))
        self.table, self.traits = table, Traits(table, self.order)
        self.shards, self.quality, self.mask_confidence, self.frame = (
            table[name].to_numpy()[self.order] for name in ("shard", "quality", "mask_confidence", "frame")
        )
        codes = table["kind"].combine_chunks().dictionary_encode()
        self.kinds: list[str] = codes.dictionary.to_pylist()
        self.kind = codes.indices.to_numpy()[self.order].astype(np.int8)
        parents = rows_of(table["parent_id"], table["element_id"])[self.order]
        self.parent = np.where(parents < 0, -1, row_of[parents])
        self.colours, self.colour = first_colours(table["attributes"], self.order)
        self.place = np.full(len(table), -1, np.int64)  # index of its embedding in the matrix of its kind
        self.matrices = {}
        for kind, (places, matrix) in embeddings.items():
            rows = row_of[places]
            ascending = np.argsort(rows)
            in_order = bool(np.all(ascending[1:] > ascending[:-1]))
            self.matrices[kind] = matrix if in_order else matrix[ascending]
            self.place[rows[ascending]] = np.arange(len(rows))
        # children of one parent and kind are adjacent
        self._family = np.lexsort((self.kind, self.parent))
        self._family_key = self.parent[self._family] * len(self.kinds) + self.kind[self._family]
        self.face_of, self.human_of = self._faces()

    def _faces(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each human the row of its best face with an embedding (the first of equals), and the inverse map."""
        face_of, human_of = np.full(len(self.kind), -1), np.full(len(self.kind), -1)
        faces = self.with_embedding("face")
        faces = faces[self.parent[faces] >= 0]
        worst_first = faces[np.lexsort((-faces, self.quality[faces]))]
        face_of[self.parent[worst_first]] = worst_first  # the last write wins
        humans = np.flatnonzero(face_of >= 0)
        human_of[face_of[humans]] = humans
        return face_of, human_of

    def of_kind(self, *kinds: str) -> np.ndarray:
        """Return which rows are of these kinds, (n,) bool."""
        return np.isin(self.kind, [n for n, kind in enumerate(self.kinds) if kind in kinds])

    def with_embedding(self, kind: str) -> np.ndarray:
        """Return the rows of a kind that have an embedding, ascending."""
        return np.flatnonzero(self.of_kind(kind) & (self.place >= 0))

    def vector(self, row: int) -> np.ndarray | None:
        """Return the embedding of a row, (d,) float32, or None."""
        return self.matrices[self.kinds[self.kind[row]]][self.place[row]] if row >= 0 and self.place[row] >= 0 else None

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of rows of one kind, all of which have one, (n, d) float32."""
        matrix, places = self.matrices[self.kinds[self.kind[rows[0]]]], self.place[rows]
        every = len(places) == len(matrix) and np.array_equal(places, np.arange(len(matrix)))
        return matrix if every else matrix[places]

    def column(self, name: str, rows: Sequence[int] | np.ndarray) -> pa.ChunkedArray:
        """Return a column at some rows."""
        return self.table[name].take(pa.array(self.order[np.asarray(rows, np.int64)]))

    def text(self, name: str, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return a column's values at some rows."""
        return self.column(name, rows).to_pylist()

    def find(self, element_ids: pa.ChunkedArray) -> np.ndarray:
        """Return the row of each element, (n,) int64. All of them must exist."""
        return self._row_of[rows_of(element_ids, self.table["element_id"])]

    def children(self, humans: np.ndarray, kind: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Return each part of that kind code (garments or hair) of each human: (m,) index into `humans`, (m,) row."""
        key = np.where(humans < 0, -1 - len(self.kinds), humans) * len(self.kinds) + kind
        low, high = (np.searchsorted(self._family_key, key, side) for side in ("left", "right"))
        count = np.where(humans < 0, 0, high - low)
        owner = np.repeat(np.arange(len(humans)), count)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        return owner, self._family[low[owner] + within]

    def parts(self, human: int, kind: str) -> list[int]:
        """Return the rows of a human's parts of that kind."""
        return self.children(np.array([human]), self.kinds.index(kind))[1].tolist() if kind in self.kinds else []

    def seen(self, row: int) -> set[int]:
        """Return the frames in which an element, or the human it belongs to, was seen."""
        parent = self.parent[row]
        rows = [row, int(parent)] if parent >= 0 else [row]
        return {frame for frames in self.column("seen_frames", rows).to_pylist() for frame in frames}

    def outfits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return whether pairs of humans wear tops of the same colour, (n,): 1, 0, or 0.5 if one's colour is unknown."""
        if "upper" not in self.kinds:
            return np.full(len(a), 0.5)
        rows, place = np.unique(np.concatenate([a, b]), return_inverse=True)
        owner, tops = self.children(rows, self.kinds.index("upper"))
        worn = np.zeros((len(rows), len(self.colours)), bool)
        worn[owner, self.colour[tops]] = True
        one, other = worn[place[: len(a)]], worn[place[len(a) :]]
        known = one.any(1) & other.any(1)
        return np.where(known, (one & other).any(1).astype(float), 0.5)


def kind_code(corpus: Corpus, kind: str) -> int:
    """Return the code of a kind in `Corpus.kind`; -1 if no element is of that kind."""
    return corpus.kinds.index(kind) if kind in corpus.kinds else -1


def first_colours(attributes: pa.ChunkedArray, order: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the names of measured colours, "" first, and the code of each row's, (n,) int32; 0 if there is none."""
    lists = attributes.combine_chunks()
    named = pc.list_flatten(lists)
    chosen = pc.starts_with(named, "colour=")
    owner = pc.list_parent_indices(lists).filter(chosen).to_numpy()
    owner, first = np.unique(owner, return_index=True)
    found = pc.utf8_slice_codeunits(named.filter(chosen).take(pa.array(first)), len("colour="))
    names, code = np.unique(np.array(["", *found.to_pylist()], object).astype(str), return_inverse=True)
    out = np.zeros(len(lists), np.int32)
    out[owner] = code[1:]
    return names.tolist(), out[order]


def rows_of(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> np.ndarray:
    """Return the position of each id among the known ones, (n,) int64; -1 if it is unknown."""
    return pc.fill_null(pc.index_in(ids, value_set=known.combine_chunks()), -1).to_numpy().astype(np.int64)


def assemble(looks: Iterable[pa.Table]) -> Corpus:
    """Return the corpus of all tables, with parents resolved; it does not depend on the order of their rows."""
    columns = [*ElementMeta.__dataclass_fields__, "shard"]
    given = [
        t if "shard" in t.column_names else t.append_column("shard", pa.array([0] * len(t), pa.int32())) for t in looks
    ]
    traits = pa.concat_tables([t.select(columns) for t in given])
    embeddings = {}
    for kind in sorted(pc.unique(traits["kind"]).to_pylist()):
        of_kind = [only(t, kind)["embedding"] for t in given]
        column = pa.chunked_array(
            [chunk for found in of_kind for chunk in found.chunks], schema(EmbeddedElement).field("embedding").type
        )
        found, matrix = vectors(column)
        places = np.flatnonzero(pc.equal(traits["kind"], kind).to_numpy())
        embeddings[kind] = places[found], matrix
    return Corpus(traits, embeddings)


def only(table: pa.Table, kind: str) -> pa.Table:
    """Return the rows of a kind; the table itself, without a copy, if it has no others."""
    mine = pc.equal(table["kind"], kind)
    return table if pc.all(mine).as_py() else table.filter(mine)


class Footage:
    """The times of clips, and their thumbnails, which are read when they are needed. A clip is a row number."""

    def __init__(self, takes: pa.Table, lookup: Lookup | None = None):
        """Index the clips. takes: `ClipTimes` and "shard"."""
        self.takes, self.lookup = takes, lookup
        videos = takes["video_id"].combine_chunks().dictionary_encode()
        self.video_ids: list[str] = videos.dictionary.to_pylist()
        self.video = videos.indices.to_numpy()  # code of each clip's video
        times = takes["source_pts_s"].combine_chunks()
        offsets, flat = times.offsets.to_numpy(), times.values.to_numpy()
        self.start_s, self.end_s = flat[offsets[:-1]], flat[offsets[1:] - 1]
        self.spooled = Blobs()
        self.known: dict[int, copies.Thumbs] = {}

    def rows(self, clip_ids: pa.ChunkedArray) -> np.ndarray:
        """Return the clip of each id, (n,) int64; -1 if it is unknown."""
        return rows_of(clip_ids, self.takes["clip_id"])

    def spool(self, clips: np.ndarray) -> None:
        """Read the thumbnails of these clips, shard by shard, to a temporary file. 35 KB each."""
        new = self.spooled.missing(clips)
        assert self.lookup is not None
        shards = self.takes["shard"].take(pa.array(new)).to_numpy()
        ids = self.takes["clip_id"].take(pa.array(new)).to_pylist()
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard).tolist()
            found = self.lookup("segment", shard, "clip_id", [ids[n] for n in here], record=ClipThumbs)
            for n in here:
                self.spooled.put(int(new[n]), found[ids[n]].thumbnails)

    def thumb(self, clip: int, frame: int) -> np.ndarray:
        """Return one thumbnail of a spooled clip, (432,) uint8."""
        size = copies.HEIGHT * copies.WIDTH
        return np.frombuffer(self.spooled.get(clip), np.uint8, size, frame * size)

    def read(self, clips: np.ndarray) -> None:
        """Prepare the spooled thumbnails of these clips for comparison, and drop those of all others. 140 KB each."""
        wanted = np.unique(clips).tolist()
        new = [clip for clip in wanted if clip not in self.known]
        self.known = {clip: self.known[clip] for clip in wanted if clip in self.known}
        for start in range(0, len(new), TOGETHER):
            data = [self.spooled.get(clip) for clip in new[start : start + TOGETHER]]
            every, end = copies.Thumbs.of(b"".join(data)), 0
            for clip, own in zip(new[start:], data, strict=False):
                begin, end = end, end + len(own) // (copies.HEIGHT * copies.WIDTH)
                self.known[clip] = every.at(slice(begin, end))

    def apart_s(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the seconds of one source that two clips share (negative if they are apart), and those between them."""
        shared = np.minimum(self.end_s[a], self.end_s[b]) - np.maximum(self.start_s[a], self.start_s[b])
        one = self.video[a] == self.video[b]
        return np.where(one, shared, -INF), np.where(one, np.maximum(0.0, -shared), INF)


class Blobs:
    """Bytes by number in a temporary file, which are too many to be held in memory."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as this object)
        self.places: dict[int, tuple[int, int]] = {}
        self.end = 0

    def missing(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers that have no bytes yet, each once, ascending."""
        return np.array([n for n in np.unique(numbers).tolist() if n not in self.places], np.int64)

    def put(self, number: int, data: bytes) -> None:
        self.file.write(data)
        self.places[number] = self.end, len(data)
        self.end += len(data)

    def get(self, number: int) -> bytes:
        self.file.flush()
        offset, size = self.places[number]
        return os.pread(self.file.fileno(), size, offset)
