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
THUMBS_PER_BATCH = 16  # clips whose thumbnails are prepared at a time
PARTS = ("hair", "upper", "lower", "shoes", "accessory")  # worn on one day: person and outfit must both agree
Lookup = Callable[..., dict[str, Any]]  # a2data.store.lookup.Lookup


class ElementSequence:
    """A table of `ElementMeta` as a sequence, each item built on access."""

    def __init__(self, table: pa.Table, order: np.ndarray):
        self.columns, self.order = {name: table[name] for name in ElementMeta.__dataclass_fields__}, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, row: int) -> ElementMeta:
        index = int(self.order[row])
        return ElementMeta(**{name: column[index].as_py() for name, column in self.columns.items()})

    def __iter__(self) -> Iterator[ElementMeta]:
        return (self[row] for row in range(len(self)))


class Corpus:
    """All elements in the order of their ids. Indices are row numbers in that order; -1 means none."""

    def __init__(self, table: pa.Table, embeddings: dict[str, tuple[np.ndarray, np.ndarray]]):
        """table: `ElementMeta` and "shard", in any order; embeddings: kind -> (n,) positions in the table, (n, d) float32."""
        self.order = pc.sort_indices(table["element_id"]).to_numpy()  # position in the table of each row
        self._row_of = row_of = np.empty(len(table), np.int64)
        row_of[self.order] = np.arange(len(table))
        self.table, self.elements = table, ElementSequence(table, self.order)
        self.shards, self.quality, self.mask_confidence, self.frame = (
            table[name].to_numpy()[self.order] for name in ("shard", "quality", "mask_confidence", "frame")
        )
        codes = table["kind"].combine_chunks().dictionary_encode()
        self.kinds: list[str] = codes.dictionary.to_pylist()
        self.kind = codes.indices.to_numpy()[self.order].astype(np.int8)
        parents = rows_of(table["parent_id"], table["element_id"])[self.order]
        self.parent = np.where(parents < 0, -1, row_of[parents])
        self.colours, self.colour = first_colours(table["attributes"], self.order)
        self.embedding_index = np.full(len(table), -1, np.int64)  # index of its embedding in the matrix of its kind
        self.matrices = {}
        for kind, (positions, matrix) in embeddings.items():
            rows = row_of[positions]
            ascending = np.argsort(rows)
            in_order = bool(np.all(ascending[1:] > ascending[:-1]))
            self.matrices[kind] = matrix if in_order else matrix[ascending]
            self.embedding_index[rows[ascending]] = np.arange(len(rows))
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
        return np.flatnonzero(self.of_kind(kind) & (self.embedding_index >= 0))

    def vector(self, row: int) -> np.ndarray | None:
        """Return the embedding of a row, (d,) float32, or None."""
        if row < 0 or self.embedding_index[row] < 0:
            return None
        return self.matrices[self.kinds[self.kind[row]]][self.embedding_index[row]]

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of rows of one kind, all of which have one, (n, d) float32."""
        matrix, indices = self.matrices[self.kinds[self.kind[rows[0]]]], self.embedding_index[rows]
        is_whole = len(indices) == len(matrix) and np.array_equal(indices, np.arange(len(matrix)))
        return matrix if is_whole else matrix[indices]

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

    def frames_seen(self, row: int) -> set[int]:
        """Return the frames in which an element, or the human it belongs to, was seen."""
        parent = self.parent[row]
        rows = [row, int(parent)] if parent >= 0 else [row]
        return {frame for frames in self.column("seen_frames", rows).to_pylist() for frame in frames}

    def outfits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return whether pairs of humans wear tops of the same colour, (n,): 1, 0, or 0.5 if one's colour is unknown."""
        if "upper" not in self.kinds:
            return np.full(len(a), 0.5)
        rows, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
        owner, tops = self.children(rows, self.kinds.index("upper"))
        colours_worn = np.zeros((len(rows), len(self.colours)), bool)
        colours_worn[owner, self.colour[tops]] = True
        worn_a, worn_b = colours_worn[inverse[: len(a)]], colours_worn[inverse[len(a) :]]
        known = worn_a.any(1) & worn_b.any(1)
        return np.where(known, (worn_a & worn_b).any(1).astype(float), 0.5)


def kind_code(corpus: Corpus, kind: str) -> int:
    """Return the code of a kind in `Corpus.kind`; -1 if no element is of that kind."""
    return corpus.kinds.index(kind) if kind in corpus.kinds else -1


def first_colours(attributes: pa.ChunkedArray, order: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the names of measured colours, "" first, and the code of each row's, (n,) int32; 0 if there is none."""
    lists = attributes.combine_chunks()
    attributes_flat = pc.list_flatten(lists)
    is_colour = pc.starts_with(attributes_flat, "colour=")
    owner = pc.list_parent_indices(lists).filter(is_colour).to_numpy()
    owner, first = np.unique(owner, return_index=True)
    values = pc.utf8_slice_codeunits(attributes_flat.filter(is_colour).take(pa.array(first)), len("colour="))
    names, code = np.unique(np.array(["", *values.to_pylist()], object).astype(str), return_inverse=True)
    out = np.zeros(len(lists), np.int32)
    out[owner] = code[1:]
    return names.tolist(), out[order]


def rows_of(ids: pa.ChunkedArray, values: pa.ChunkedArray) -> np.ndarray:
    """Return the position of each id among the values, (n,) int64; -1 if it is not one of them."""
    return pc.fill_null(pc.index_in(ids, value_set=values.combine_chunks()), -1).to_numpy().astype(np.int64)


def assemble(tables: Iterable[pa.Table]) -> Corpus:
    """Return the corpus of all tables, with parents resolved; it does not depend on the order of their rows."""
    columns = [*ElementMeta.__dataclass_fields__, "shard"]
    with_shard = [
        table if "shard" in table.column_names else table.append_column("shard", pa.array([0] * len(table), pa.int32()))
        for table in tables
    ]
    elements = pa.concat_tables([table.select(columns) for table in with_shard])
    embeddings = {}
    for kind in sorted(pc.unique(elements["kind"]).to_pylist()):
        columns_of_kind = [filter_kind(table, kind)["embedding"] for table in with_shard]
        column = pa.chunked_array(
            [chunk for column in columns_of_kind for chunk in column.chunks],
            schema(EmbeddedElement).field("embedding").type,
        )
        has_embedding, matrix = vectors(column)
        positions = np.flatnonzero(pc.equal(elements["kind"], kind).to_numpy())
        embeddings[kind] = positions[has_embedding], matrix
    return Corpus(elements, embeddings)


def filter_kind(table: pa.Table, kind: str) -> pa.Table:
    """Return the rows of a kind; the table itself, without a copy, if it has no others."""
    is_kind = pc.equal(table["kind"], kind)
    return table if pc.all(is_kind).as_py() else table.filter(is_kind)


class Footage:
    """The times of clips, and their thumbnails, which are read when they are needed. A clip is a row number."""

    def __init__(self, clips: pa.Table, lookup: Lookup | None = None):
        """Index the clips. clips: `ClipTimes` and "shard"."""
        self.clips, self.lookup = clips, lookup
        videos = clips["video_id"].combine_chunks().dictionary_encode()
        self.video_ids: list[str] = videos.dictionary.to_pylist()
        self.video = videos.indices.to_numpy()  # code of each clip's video
        times = clips["source_pts_s"].combine_chunks()
        offsets, flat = times.offsets.to_numpy(), times.values.to_numpy()
        self.start_s, self.end_s = flat[offsets[:-1]], flat[offsets[1:] - 1]
        self.spool_file = Blobs()
        self.thumbs: dict[int, copies.Thumbs] = {}

    def rows(self, clip_ids: pa.ChunkedArray) -> np.ndarray:
        """Return the clip of each id, (n,) int64; -1 if it is unknown."""
        return rows_of(clip_ids, self.clips["clip_id"])

    def spool(self, clips: np.ndarray) -> None:
        """Read the thumbnails of these clips, shard by shard, to a temporary file. 35 KB each."""
        new = self.spool_file.missing(clips)
        assert self.lookup is not None
        shards = self.clips["shard"].take(pa.array(new)).to_numpy()
        ids = self.clips["clip_id"].take(pa.array(new)).to_pylist()
        for shard in np.unique(shards).tolist():
            in_shard = np.flatnonzero(shards == shard).tolist()
            found = self.lookup("segment", shard, "clip_id", [ids[n] for n in in_shard], record=ClipThumbs)
            for n in in_shard:
                self.spool_file.put(int(new[n]), found[ids[n]].thumbnails)

    def thumb(self, clip: int, frame: int) -> np.ndarray:
        """Return one thumbnail of a spooled clip, (432,) uint8."""
        size = copies.HEIGHT * copies.WIDTH
        return np.frombuffer(self.spool_file.get(clip), np.uint8, size, frame * size)

    def read(self, clips: np.ndarray) -> None:
        """Prepare the spooled thumbnails of these clips for comparison, and drop those of all others. 140 KB each."""
        requested = np.unique(clips).tolist()
        new = [clip for clip in requested if clip not in self.thumbs]
        self.thumbs = {clip: self.thumbs[clip] for clip in requested if clip in self.thumbs}
        for start in range(0, len(new), THUMBS_PER_BATCH):
            blobs = [self.spool_file.get(clip) for clip in new[start : start + THUMBS_PER_BATCH]]
            batch, end = copies.Thumbs.of(b"".join(blobs)), 0
            for clip, blob in zip(new[start:], blobs, strict=False):
                begin, end = end, end + len(blob) // (copies.HEIGHT * copies.WIDTH)
                self.thumbs[clip] = batch.take(slice(begin, end))

    def overlap_and_gap_s(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the seconds of one source that two clips share (negative if they do not overlap), and those between them."""
        overlap = np.minimum(self.end_s[a], self.end_s[b]) - np.maximum(self.start_s[a], self.start_s[b])
        same_video = self.video[a] == self.video[b]
        return np.where(same_video, overlap, -INF), np.where(same_video, np.maximum(0.0, -overlap), INF)


class Blobs:
    """Bytes by number in a temporary file, which are too many to be held in memory."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as this object)
        self.extents: dict[int, tuple[int, int]] = {}
        self.end = 0

    def missing(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers that have no bytes yet, each once, ascending."""
        return np.array([n for n in np.unique(numbers).tolist() if n not in self.extents], np.int64)

    def put(self, number: int, data: bytes) -> None:
        self.file.write(data)
        self.extents[number] = self.end, len(data)
        self.end += len(data)

    def get(self, number: int) -> bytes:
        self.file.flush()
        offset, size = self.extents[number]
        return os.pread(self.file.fileno(), size, offset)
