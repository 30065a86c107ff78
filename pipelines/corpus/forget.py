"""`a2data forget`: permanently delete a source or an identity cluster from every table and every shard.

The result equals that of a run without it. The parts are rewritten without its rows, with the matching keys, so that nothing else
is recomputed; then everything is paired again, and the tars whose content has changed are repacked. forgotten.jsonl in the work
folder records the deletions and prevents the sources from being added again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np

from a2data.job import UNIT
from a2data.records import ClipTimes, EmbeddedElement, Source, Video
from a2data.stage import Stage
from a2data.store.partial import remove_partials
from a2data.store.schema import schema
from a2data.store.source_files import SourceFiles
from a2data.store.tables import Footer, Store
from a2data.store.url import is_url, public_name
from pipelines.imported.records import TABLE, ImportedClip
from pipelines.sources.forgotten import FILE, read
from stages.retrieve.corpus import Footage, assemble

Span = tuple[int, int]  # source frames, end exclusive


@dataclass(frozen=True)
class DeletionRequest:
    """Whole videos to delete, and shots of other videos."""

    what: str  # "source" or "identity"
    name: str  # as given by the user
    videos: frozenset[str]  # video_ids, including those of second copies
    spans: dict[str, list[Span]]  # video_id -> shots
    clips: frozenset[str]  # the clips of those shots

    def covers(self, key: str) -> bool:
        """Return whether a video_id, clip_id or element_id, or a key that begins with one, is deleted."""
        clip = key.split("/")[0].split("@")[0]
        return clip in self.clips or clip in self.videos or clip.rpartition("-")[0] in self.videos


def forget(store: Store, request: DeletionRequest, stages: Sequence[Stage]) -> dict[str, int]:
    """Delete the request's rows from the manifest and from every per-unit table. Returns the number of removed rows by table.

    The deletion is recorded first and then applied to the manifest. A run killed after that can be resumed with `a2data run` or
    the same command. The runner rebuilds the tables over all shards and the WebDataset shards.
    """
    _append_record(store, request)
    removed: dict[str, int] = defaultdict(int)
    for shard in store.shards("manifest"):
        sources = list(store.read("manifest", shard, Source))
        if not any(s.video_id in request.videos or s.video_id in request.spans for s in sources):
            continue
        written = [stage for stage in stages if stage.per in UNIT and store.footer(stage.name(), shard)]
        up_to_date = {stage for stage in written if store.is_up_to_date(stage, (shard,))}
        remaining = [_with_deleted_spans(s, request) for s in sources if s.video_id not in request.videos]
        for source in sources:
            if source.video_id in request.videos:
                SourceFiles(store).remove(source.video_id)
        removed["manifest"] += len(sources) - len(remaining)
        store.write("manifest", shard, Source, remaining)
        if store.exists(TABLE, shard):  # of an imported set
            clips = [row for row in store.read(TABLE, shard, ImportedClip) if not request.covers(row.clip_id)]
            store.write(TABLE, shard, ImportedClip, clips)
        for stage in written:
            removed[stage.name()] += _rewrite_part(store, stage, shard, request, stage in up_to_date)
    return dict(removed)


def remove_damaged(store: Store, stages: Sequence[Stage]) -> None:
    """Remove the parts that were moved aside and partial results of a run, since they may contain deleted rows."""
    for name in ("manifest", *(stage.name() for stage in stages)):
        store.remove_damaged(name)
        remove_partials(store, name)


def _with_deleted_spans(row: Any, request: DeletionRequest) -> Any:
    """Return the row of a video with the deleted shots added to its `refused` spans."""
    spans = request.spans.get(row.video_id)
    return replace(row, refused=_format_spans([*_parse_spans(row.refused), *spans])) if spans else row


def _rewrite_part(store: Store, stage: Stage, shard: int, request: DeletionRequest, is_fresh: bool) -> int:
    """Rewrite a part without the deleted rows. Returns the number of removed rows.

    The part stays fresh if it was: its rows are those that the stage would make from the remaining units. Rows are written unit
    by unit as before, since the digest depends on the batches.
    """
    old, unit = store.footer(stage.name(), shard), UNIT[stage.per]
    assert old is not None
    id_column = "clip_id" if "clip_id" in schema(stage.writes).names else unit
    with store.create(stage.name(), stage.writes, shard) as part:
        for _, rows in groupby(store.read(stage.name(), shard, stage.writes), key=lambda row: getattr(row, unit)):
            with part.unit() as add:
                for row in rows:
                    if not request.covers(getattr(row, id_column)):
                        add(_with_deleted_spans(row, request) if stage.writes is Video else row)
        _copy_footer_entries(part.footer, old, request)
        part.footer.num_inputs = max(0, old.num_inputs - _num_deleted_units(store, stage, shard, request))
        if is_fresh:
            part.commit(stage, store.inputs(stage, (shard,)))
        else:  # with a key that never matches, so that the next run rebuilds it, as it would have before
            part.footer.settings, part.footer.models, part.footer.version = old.settings, old.models, old.version
            part.commit()
        return old.rows - part.footer.rows


def _copy_footer_entries(new: Footer, old: Footer, request: DeletionRequest) -> None:
    """Copy the footer's entries of the remaining units."""
    new.seconds = old.seconds
    new.failed = {unit: error for unit, error in old.failed.items() if not request.covers(unit)}
    new.skipped = [unit for unit in old.skipped if not request.covers(unit)]
    new.rejected = [reject for reject in old.rejected if not request.covers(reject.key)]


def _num_deleted_units(store: Store, stage: Stage, shard: int, request: DeletionRequest) -> int:
    """Return how many units of a part are deleted, among those in its rows and its footer."""
    unit = UNIT[stage.per]
    old = store.footer(stage.name(), shard)
    assert old is not None
    unit_ids = {*store.values(stage.name(), shard, unit), *old.failed, *(r.key.split("/")[0] for r in old.rejected)}
    return sum(request.covers(name) for name in unit_ids)


# -- deletion requests -------------------------------------------------------------------------------------------------


def request_for_source(store: Store, name: str) -> DeletionRequest:
    """Return the request for a video, by id, id prefix or path, and its second copies. Raises ValueError unless it is unique."""
    import os

    sources = [s for shard in store.shards("manifest") for s in store.read("manifest", shard, Source)]
    name = public_name(name)
    path = name if is_url(name) else os.path.abspath(name)
    ids = {s.video_id.partition("-dup-")[0] for s in sources if public_name(s.path) in (name, path)}
    ids = ids or {s.video_id.partition("-dup-")[0] for s in sources if name and s.video_id.startswith(name)}
    if not ids and any(name in line["videos"] for line in read(store)):
        ids = {name}  # an earlier deletion was interrupted
    if len(ids) != 1:
        problem = (
            f"{len(ids)} videos of {store.root} have ({', '.join(sorted(ids)[:5])})"
            if ids
            else f"no video of {store.root} has"
        )
        raise ValueError(f"{problem} the path or id prefix {name!r}: give a unique one")
    (video_id,) = ids
    copies = {s.video_id for s in sources if s.video_id.startswith(f"{video_id}-dup-")}
    return DeletionRequest("source", name, frozenset({video_id, *copies}), {}, frozenset())


def request_for_identity(store: Store, identity: int, stages: Sequence[Stage]) -> DeletionRequest:
    """Return the request for all shots that show an element of an identity. Raises ValueError for an unknown identity."""
    from stages.retrieve.stage import Retrieve

    retrieve = next((stage for stage in stages if isinstance(stage, Retrieve)), None)
    if retrieve is None:
        raise ValueError(
            f"{store.root} is an imported set, which does not have identities: forget its files by --source"
        )
    corpus = assemble(
        tuple(store.read_all(name, EmbeddedElement) for name in retrieve.reads if name not in ("match", "segment"))
    )
    footage = Footage(store.read_all("segment", ClipTimes))
    clip_of = footage.rows(corpus.column("clip_id", np.arange(len(corpus.elements))))
    rows = [
        group.rows[np.isin(group.clustering.cluster, np.flatnonzero(group.identities == identity))]
        for group in retrieve.groups(corpus, footage, clip_of).groups
    ]
    clips = {*corpus.text("clip_id", np.concatenate(rows))} if rows else set()
    if not clips:
        raise ValueError(
            f"identity {identity} does not exist in {store.root}: find identities with `a2data explain {store.root} CLIP` or in "
            "the report; they may change after a run with other footage or settings"
        )
    shots = store.read_all("segment", _ShotColumns).to_pylist()
    spans = defaultdict(list)
    for shot in shots:
        if shot["clip_id"] in clips:
            spans[shot["video_id"]].append((shot["shot_start"], shot["shot_end"]))
    merged = {video_id: _parse_spans(_format_spans(parts)) for video_id, parts in sorted(spans.items())}
    deleted = [s for s in shots if any(a <= s["shot_start"] < b for a, b in merged.get(s["video_id"], []))]
    return DeletionRequest("identity", str(identity), frozenset(), merged, frozenset(s["clip_id"] for s in deleted))


@dataclass(frozen=True)
class _ShotColumns:  # columns of segment's table
    clip_id: str
    video_id: str
    shot_start: int
    shot_end: int


def _parse_spans(text: str) -> list[Span]:
    """Parse "0-75,210-300" into pairs."""
    pairs = (part.split("-") for part in text.split(",") if part)
    return [(int(first), int(end)) for first, end in pairs]


def _format_spans(spans: Iterable[Span]) -> str:
    """Format spans in order, merging those that touch or overlap."""
    merged: list[Span] = []
    for first, end in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return ",".join(f"{first}-{end}" for first, end in merged)


# -- record of deletions -----------------------------------------------------------------------------------------------


def _append_record(store: Store, request: DeletionRequest) -> None:
    """Append the request to forgotten.jsonl."""
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": request.what,
        "name": request.name,
        "videos": sorted(request.videos),
        "source_frames": {video_id: _format_spans(spans) for video_id, spans in request.spans.items()},
        "clips": sorted(request.clips),
    }
    store.put((store.get(FILE) or b"") + json.dumps(record, ensure_ascii=False).encode() + b"\n", FILE)
