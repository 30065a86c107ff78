"""The elements of a whole corpus: who belongs to whom, when and where each was seen. What is compared across clips."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from a2data import copies, images
from a2data.arrow import from_table
from a2data.records import Look, Span, Trait
from a2data.similarity import vectors

INF = float("inf")
PARTS = ("hair", "upper", "lower", "shoes", "accessory")  # one's clothes of today: the person and the outfit must agree


class Corpus(NamedTuple):
    """All elements in the order of their ids; whatever counts them is a row."""

    traits: list[Trait]
    shards: list[int]
    vectors: dict[int, np.ndarray]  # row -> (d,) float32, for those that have an embedding
    rows: dict[str, int]  # element_id -> row
    face_of: dict[int, int]  # row of a human -> row of its best face
    human_of: dict[int, int]  # and back
    parts: dict[tuple[int, str], list[int]]  # row of a human, kind -> rows of its garments

    def with_embedding(self, kind: str) -> list[int]:
        return [row for row, trait in enumerate(self.traits) if trait.kind == kind and row in self.vectors]

    def seen(self, row: int) -> set[int]:
        """The frames in which an element was seen, or the human that it belongs to."""
        parent = self.rows.get(self.traits[row].parent_id, row)
        return {*self.traits[row].seen_frames, *self.traits[parent].seen_frames}

    def outfit(self, a: int, b: int) -> float:
        """Whether two humans wear tops of one colour: 1, or 0, or 0.5 where that of one is not known."""
        tops = [{colour(self.traits[r]) for r in self.parts.get((row, "upper"), [])} for row in (a, b)]
        return 0.5 if not all(tops) else float(not tops[0].isdisjoint(tops[1]))


def colour(trait: Trait) -> str:
    return next((a for a in trait.attributes if a.startswith("colour=")), "")


def assemble(looks: tuple[pa.Table, ...]) -> Corpus:
    """The elements of all tables and who belongs to whom, the same whatever the order of their rows."""
    columns = [f for f in looks[0].column_names if f in (*Look.__dataclass_fields__, "shard")]
    table = pa.concat_tables([t.select(columns) for t in looks]).sort_by("element_id")
    traits = from_table(Trait, table)
    rows = {t.element_id: row for row, t in enumerate(traits)}
    embeddings: dict[int, np.ndarray] = {}
    for kind in sorted({t.kind for t in traits}):
        of_kind = np.array([row for row, t in enumerate(traits) if t.kind == kind])
        found, matrix = vectors(table["embedding"].take(pa.array(of_kind)))
        embeddings |= dict(zip(of_kind[found].tolist(), matrix, strict=True))
    face_of: dict[int, int] = {}
    parts = defaultdict(list)
    for row, trait in enumerate(traits):
        human = rows.get(trait.parent_id, -1)
        if trait.kind in PARTS:
            parts[human, trait.kind].append(row)
        elif trait.kind == "face" and human >= 0 and row in embeddings:
            best = face_of.setdefault(human, row)
            face_of[human] = max(best, row, key=lambda r: (traits[r].quality, -r))
    human_of = {face: human for human, face in face_of.items()}
    return Corpus(traits, table["shard"].to_pylist(), embeddings, rows, face_of, human_of, dict(parts))


class Footage:
    """What the clips show, by their thumbnails, and when."""

    def __init__(self, takes: pa.Table, run: int):
        self.run = run
        self.known: dict[tuple[str, str], float] = {}  # a person's face, hair and clothes all ask for the same clips
        self.thumbs = takes["thumbs"]
        self.spans = {span.clip_id: (row, span) for row, span in enumerate(from_table(Span, takes))}

    def video_id(self, clip_id: str) -> str:
        return self.spans[clip_id][1].video_id

    def pictures(self, clip_id: str) -> np.ndarray:
        return images.thumbs(self.thumbs[self.spans[clip_id][0]].as_py())

    def repeat_distance(self, a: str, b: str) -> float:
        pair = (min(a, b), max(a, b))
        if pair not in self.known:
            self.known[pair] = copies.repeat_distance(self.pictures(pair[0]), self.pictures(pair[1]), self.run)
        return self.known[pair]

    def picture_distance(self, source: Trait, clip_id: str) -> float:
        return copies.picture_distance(self.pictures(source.clip_id)[source.frame], self.pictures(clip_id))

    def nearness_s(self, a: str, b: str) -> tuple[float, float]:
        """Seconds of one source that two clips share, negative where they are apart, and seconds between them."""
        x, y = self.spans[a][1], self.spans[b][1]
        if x.video_id != y.video_id:
            return -INF, INF
        shared_s = min(x.source_pts_s[-1], y.source_pts_s[-1]) - max(x.source_pts_s[0], y.source_pts_s[0])
        return shared_s, max(0.0, -shared_s)
