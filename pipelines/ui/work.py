"""A work folder as the page reads it: its clips, elements, rejects and pairs, their pictures, and the marks of its pairs."""

import base64
import io
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from a2data.records import Reject
from a2data.stage import Stage
from a2data.store.parquet import DamagedError
from a2data.store.schema import from_table
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.corpus.explain import explain
from pipelines.marks import Marks
from pipelines.report import audit, contact_sheets
from pipelines.report.audit import Pair
from pipelines.run.recipe import element_tables


class ReadOnlyStore(Store):
    """A store in which a damaged part stays where it is: browsing never changes a work folder."""

    def set_aside(self, error: DamagedError) -> DamagedError:
        return error


class Row(NamedTuple):
    """A clip, an element or a reject."""

    key: str  # clip_id, element_id, or video_id of a rejected video
    shard: int
    group: str  # key of the filter: outcome of a clip, kind of an element, stage and reason of a reject
    about: str  # a few words for its picture


@dataclass(frozen=True)
class _ElementColumns:  # columns of the tables of elements
    element_id: str
    kind: str
    label: str
    frame: int
    quality: float


class WorkFolder:
    """Rows of a work folder, read once and again by `reload`, and the file of its marks."""

    def __init__(self, root: str, stages: Sequence[Stage], marks: str):
        self.store, self.stages, self.marks_path = ReadOnlyStore(root), stages, marks
        self.tables = element_tables(stages)
        self.lock = threading.Lock()
        self.marks: Marks = marking.read(marks)

    def reload(self) -> None:
        """Forget what was read, since a run may have added rows."""
        for name in ("rejects", "clips", "elements", "pairs"):
            self.__dict__.pop(name, None)
        self.marks = marking.read(self.marks_path)

    @cached_property
    def rejects(self) -> list[tuple[str, int, Reject]]:
        """Stage, shard and reject of everything that a stage rejected."""
        return [
            (stage.name(), shard, reject)
            for stage in self.stages
            for shard in self.store.shards(stage.name())
            if (footer := self.store.footer(stage.name(), shard))
            for reject in footer.rejected
        ]

    @cached_property
    def pairs(self) -> tuple[list[Pair], int]:
        """Pairs of retrieve, by element, and the number of all.

        A garment without a reference names the face of a person who might wear it: that is not a pair.
        """
        pairs, total = audit.read_pairs(
            self.store, [reject for stage, _, reject in self.rejects if stage == "retrieve"]
        )
        same_kind = [pair for pair in pairs if pair.target.split("/")[1:2] == pair.source.split("/")[1:2]]
        return sorted(same_kind, key=lambda pair: (pair.target, pair.source)), total - (len(pairs) - len(same_kind))

    @cached_property
    def elements(self) -> dict[str, tuple[int, _ElementColumns]]:
        """element_id -> shard and element."""
        elements_by_id = {}
        for table in self.tables:
            rows = self.store.read_all(table, _ElementColumns)
            for shard, row in zip(rows["shard"].to_pylist(), from_table(_ElementColumns, rows), strict=True):
                elements_by_id[row.element_id] = shard, row
        return dict(sorted(elements_by_id.items()))

    @cached_property
    def clips(self) -> list[Row]:
        """Every clip with its outcome: in the shards, with references, kept, or the reason of its first reject."""
        packed, paired, kept = (self._clip_ids(table) for table in ("pack", "retrieve", "select"))
        reasons: dict[str, str] = {}
        for stage, _, reject in self.rejects:
            reasons.setdefault(reject.key, f"{stage}: {reject.reason}")
        rows = []
        for clip_id, shard in contact_sheets.shards_by_clip(self.store, "segment").items():
            outcomes = [
                (packed, "in the shards"),
                (reasons, reasons.get(clip_id, "")),
                (paired, "paired"),
                (kept, "kept"),
            ]
            outcome = next((name for keys, name in outcomes if clip_id in keys), "not judged")
            rows.append(Row(clip_id, shard, outcome, outcome))
        return rows

    def _clip_ids(self, table: str) -> set[str]:
        return set(contact_sheets.shards_by_clip(self.store, table))

    def rows(self, table: str) -> list[Row]:
        """Return the rows of "Clips", "Elements" or "Rejected"."""
        if table == "Clips":
            return self.clips
        if table == "Elements":
            elements = ((shard, e) for shard, e in self.elements.values())
            return [Row(e.element_id, shard, e.kind, f"{e.label}, quality {e.quality:.2f}") for shard, e in elements]
        return [Row(r.key, shard, f"{stage}: {r.reason}", f"{stage}: {r.reason}") for stage, shard, r in self.rejects]

    def groups(self, table: str) -> Counter[str]:
        return Counter(row.group for row in self.rows(table))

    def pictures(self, rows: Sequence[Row]) -> dict[str, str]:
        """Return key -> picture of some rows as a data: URI: of an element its cut-out, else of its clip a frame."""
        cut_outs = contact_sheets.cut_outs(self.store, self.tables, {(r.shard, r.key) for r in rows if "/" in r.key})
        clips = {(r.shard, r.key.split("/")[0]) for r in rows if r.key not in cut_outs}
        strips = (
            contact_sheets.clip_strips(self.store, clips, stills=1) if clips and self.store.shards("segment") else {}
        )
        found = {row.key: strips[clip].stills[0] for row in rows if (clip := row.key.split("/")[0]) in strips}
        return found | {key: cut_out.picture for key, cut_out in cut_outs.items()}

    def explain(self, key: str) -> str:
        """Return the history of a video, clip or element. Raises ValueError for an unknown key."""
        return explain(self.store, key, self.stages)

    # -- marks -------------------------------------------------------------------------------------------------------

    def mark_of(self, pair: Pair) -> bool | None:
        """Return whether a pair is marked as the same; None without a mark, or if its elements were detected again."""
        mark = self.marks.get(marking.ends(pair.target, pair.source))
        frame_of = {
            name: row.frame for name in (pair.target, pair.source) if (row := self.elements.get(name, (0, None))[1])
        }
        return mark.same if mark and marking.current({mark.elements: mark}, frame_of) else None

    def mark(self, pair: Pair, same: bool | None) -> None:
        """Write a mark, or remove it with None. Raises ValueError if an element of the pair is gone."""
        missing = [name for name in (pair.target, pair.source) if name not in self.elements]
        if missing:
            raise ValueError(f"{missing[0]} is not in {self.store.root} any more: reload the page")
        with self.lock:
            self.marks = marking.read(self.marks_path)  # another page may have written
            if same is None:
                self.marks.pop(marking.ends(pair.target, pair.source), None)
            else:
                first, second = ((name, self.elements[name][1].frame) for name in (pair.target, pair.source))
                new_mark = marking.mark(first, second, same)
                self.marks[new_mark.elements] = new_mark
            marking.write(self.marks_path, self.marks)


def decode_data_uri(uri: str) -> Any:
    """Return the picture of a data: URI as a PIL image."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
