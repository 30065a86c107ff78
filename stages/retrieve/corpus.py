"""The elements of a whole corpus: their parents, clips, frames and embeddings, which are compared across clips.

They are kept in columns: an element takes some hundred bytes beside its embedding, rather than the several thousand of a Python
object (`python -m benchmarks.corpus_memory` measures both). An `ElementMeta` is built when a row is requested.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.media import images
from a2data.records import ElementMeta, EmbeddedElement
from a2data.store.schema import schema
from stages.retrieve import copies
from stages.retrieve.nearest import vectors

INF = float("inf")
PARTS = ("hair", "upper", "lower", "shoes", "accessory")  # worn on one day: person and outfit must both agree
PAIRS = 4096  # clip pairs whose distance is cached: a person's face, hair and clothes all need the same ones


class Traits:
    """A table of `ElementMeta` as a sequence, each item built on access."""

    def __init__(self, table: pa.Table):
        self.columns = {name: table[name] for name in ElementMeta.__dataclass_fields__}

    def __len__(self) -> int:
        return len(self.columns["element_id"])

    def __getitem__(self, row: int) -> ElementMeta:
        return ElementMeta(**{name: column[int(row)].as_py() for name, column in self.columns.items()})

    def __iter__(self) -> Iterator[ElementMeta]:
        return (self[row] for row in range(len(self)))


class Corpus:
    """All elements in the order of their ids. Indices are row numbers; -1 means none."""

    def __init__(self, table: pa.Table, embeddings: dict[str, tuple[np.ndarray, np.ndarray]]):
        """table: `ElementMeta` and "shard", in the order of element_id; embeddings: kind -> (n,) rows, (n, d) float32."""
        self.table, self.traits = table, Traits(table)
        self.shards = table["shard"].to_numpy()
        self.label, self.clip, self.embedder = (table[name] for name in ("label", "clip_id", "embedder"))
        codes = table["kind"].combine_chunks().dictionary_encode()
        self.kinds: list[str] = codes.dictionary.to_pylist()
        self.kind = codes.indices.to_numpy()
        self.parent = rows_of(table["parent_id"], table["element_id"])
        self.matrices = {kind: matrix for kind, (_, matrix) in embeddings.items()}
        self.place = np.full(len(table), -1)  # index of its embedding in the matrix of its kind
        for rows, _ in embeddings.values():
            self.place[rows] = np.arange(len(rows))
        self._family = np.argsort(self.parent, kind="stable")  # children of one parent are adjacent
        self._first = self.parent[self._family]
        self.face_of, self.human_of = self._faces(table["quality"].to_numpy())

    def _faces(self, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each human the row of its best face with an embedding (the first of equals), and the inverse map."""
        face_of, human_of = np.full(len(self.kind), -1), np.full(len(self.kind), -1)
        faces = self.with_embedding("face")
        faces = faces[self.parent[faces] >= 0]
        worst_first = faces[np.lexsort((-faces, quality[faces]))]
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
        return self.matrices[self.kinds[self.kind[rows[0]]]][self.place[rows]]

    def text(self, column: pa.ChunkedArray, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return a column's values at some rows."""
        return column.take(pa.array(rows, pa.int64())).to_pylist()

    def parts(self, human: int, kind: str) -> list[int]:
        """Return the rows of a human's parts of that kind: garments or hair."""
        if human < 0:
            return []
        low, high = np.searchsorted(self._first, [human, human + 1])
        return [int(row) for row in self._family[low:high] if self.kinds[self.kind[row]] == kind]

    def seen(self, row: int) -> set[int]:
        """Return the frames in which an element, or the human it belongs to, was seen."""
        frames = self.table["seen_frames"]
        parent = self.parent[row]
        return {*frames[int(row)].as_py(), *(frames[int(parent)].as_py() if parent >= 0 else ())}

    def outfit(self, a: int, b: int) -> float:
        """Return whether two humans wear tops of the same colour: 1, 0, or 0.5 if a colour is unknown."""
        tops = [{colour(self.traits[r]) for r in self.parts(row, "upper")} for row in (a, b)]
        return 0.5 if not all(tops) else float(not tops[0].isdisjoint(tops[1]))


def colour(trait: ElementMeta) -> str:
    """Return the name of an element's measured colour; "" if there is none."""
    return next((a.removeprefix("colour=") for a in trait.attributes if a.startswith("colour=")), "")


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
    order = pc.sort_indices(traits["element_id"])
    row_of = np.empty(len(traits), np.int64)
    row_of[order.to_numpy()] = np.arange(len(traits))
    embeddings = {}
    for kind in sorted(pc.unique(traits["kind"]).to_pylist()):
        of_kind = [t.filter(pc.equal(t["kind"], kind))["embedding"] for t in given]
        column = pa.chunked_array(
            [chunk for found in of_kind for chunk in found.chunks], schema(EmbeddedElement).field("embedding").type
        )
        found, matrix = vectors(column)
        rows = row_of[pc.equal(traits["kind"], kind).to_numpy()]
        embeddings[kind] = rows[found], matrix
    return Corpus(traits.take(order).combine_chunks(), embeddings)


def only(table: pa.Table, kind: str) -> pa.Table:
    """Return the rows of a kind; the table itself, without a copy, if it has no others."""
    mine = pc.equal(table["kind"], kind)
    return table if pc.all(mine).as_py() else table.filter(mine)


class Footage:
    """The thumbnails and times of clips."""

    def __init__(self, takes: pa.Table, run: int):
        self.takes = takes
        self.rows = {clip_id: row for row, clip_id in enumerate(takes["clip_id"].to_pylist())}
        self.videos = takes["video_id"]

        def distance(a: str, b: str) -> float:
            return copies.repeat_distance(self.pictures(a), self.pictures(b), run)

        self._distance = lru_cache(PAIRS)(distance)

    def video_id(self, clip_id: str) -> str:
        return self.videos[self.rows[clip_id]].as_py()

    def pictures(self, clip_id: str) -> np.ndarray:
        return images.thumbs(self.takes["thumbnails"][self.rows[clip_id]].as_py())

    def repeat_distance(self, a: str, b: str) -> float:
        return self._distance(min(a, b), max(a, b))

    def picture_distance(self, source: ElementMeta, clip_id: str) -> float:
        return copies.picture_distance(self.pictures(source.clip_id)[source.frame], self.pictures(clip_id))

    def nearness_s(self, a: str, b: str) -> tuple[float, float]:
        """Return the seconds of one source that two clips share (negative if they are apart), and the seconds between them."""
        if self.video_id(a) != self.video_id(b):
            return -INF, INF
        x, y = (self.takes["source_pts_s"][self.rows[clip_id]] for clip_id in (a, b))
        shared_s = min(x[-1].as_py(), y[-1].as_py()) - max(x[0].as_py(), y[0].as_py())
        return shared_s, max(0.0, -shared_s)
