"""Explain why a video, clip or element was kept, rejected or paired, from everything in the store, as plain text."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import (
    Caption,
    Clip,
    ElementMeta,
    Kept,
    Match,
    Packed,
    Reference,
    Reject,
    Score,
    Sound,
    Source,
    Span,
    Speaker,
    Video,
)
from a2data.stage import Stage
from a2data.store.tables import Footer, Store
from a2data.store.url import public_name
from pipelines.run.recipe import element_tables
from stages.retrieve.rejections import failed_rules

CLIP_ID = re.compile(r"-\d{8}$")  # suffix that a clip's id adds to the video's
INDENT = 12  # width of a line's heading in characters


class Found(NamedTuple):
    """A resolved key and its shard."""

    kind: str  # "video", "clip" or "element"
    key: str  # in full
    shard: int

    @property
    def clip_id(self) -> str:
        return self.key.split("/")[0]

    @property
    def video_id(self) -> str:
        return self.key if self.kind == "video" else self.clip_id.rpartition("-")[0]


@dataclass(frozen=True)
class _Seen(ElementMeta):
    confidence: float = 0.0


def explain(store: Store, key: str, stages: Sequence[Stage]) -> str:
    """Return the history of a video_id, clip_id or element_id as text; a unique prefix suffices.

    stages: the recipe; the thresholds of its "select" are applied to the scores. Raises ValueError, with the nearest keys, for a
    key that is unknown or not unique.
    """
    found = find(store, key, stages)
    lines = [f"{found.kind} {found.key}", ""]
    if found.kind == "video":
        lines += [*_source(store, found), *_clips(store, found)]
    else:
        select = next((stage for stage in stages if stage.name() == "select"), None)
        lines += [
            *_source(store, found),
            *_shot(store, found),
            *_scores(store, found, select),
            *_verdict(store, found, select),
        ]
        lines += [
            *_elements(store, found, stages),
            *_phrases(store, found),
            *_references(store, found),
            *_packed(store, found),
        ]
    lines += _notes(store, found, stages)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def facts(store: Store, key: str, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the history of a key as plain values: its rows of every table, without pixels and vectors, and what was left out.

    The keys: kind, key, shard, rows {table: [row]}, rejected and failed, each with the stage, the unit and the reason. Raises
    ValueError as `explain` does.
    """
    found = find(store, key, stages)
    rows = {}
    rejected: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for name in ["manifest", *(stage.name() for stage in stages)]:
        if found.shard in store.shards(name) and (mine := _plain_rows(store, name, found)):
            rows[name] = mine
        footer = store.footer(name, found.shard) or Footer()
        rejected += [{"stage": name, **asdict(r)} for r in footer.rejected if _about(r.key, found)]
        failed += [{"stage": name, "key": u, "error": e} for u, e in sorted(footer.failed.items()) if _about(u, found)]
    return found._asdict() | {"rows": rows, "rejected": rejected, "failed": failed}


def _plain_rows(store: Store, name: str, found: Found) -> list[dict[str, Any]]:
    """Return the rows of a table about the found key."""
    with store.open_part(name, found.shard) as part:
        table = part.table(plain_columns(part.schema))
    ids = {"element": found.key, "clip": found.clip_id, "video": found.video_id}
    # an element's own rows in tables of elements, its clip's in tables of clips, and so on
    kinds = ["video"] if found.kind == "video" else ["clip", "video"] if found.kind == "clip" else list(ids)
    column = next((f"{kind}_id" for kind in kinds if f"{kind}_id" in table.column_names), "")
    if not column:
        return []
    rows = _finite(table.filter(pc.field(column) == ids[column.removesuffix("_id")]).to_pylist())
    return [row | {"path": public_name(row["path"])} if "path" in row else row for row in rows]


def _finite(value: Any) -> Any:
    """Return a value with "inf", "-inf" and "nan" for the numbers that JSON lacks, such as the loudness of silence."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def plain_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns without pixels and vectors."""
    heavy = (pa.large_binary(), pa.list_(pa.field("item", pa.float32(), nullable=False)))
    return [field.name for field in schema if field.type not in heavy]


def find(store: Store, key: str, stages: Sequence[Stage]) -> Found:
    """Return the video, clip or element with that key or unique prefix; a video takes precedence over its clips.

    Rejected and failed ones are found too, although they do not have rows.
    """
    videos = {v: shard for shard in store.shards("manifest") for v in store.values("manifest", shard, "video_id")}
    shards = {shard for video_id, shard in videos.items() if key.startswith(video_id) or video_id.startswith(key)}
    names = {"video": videos, "clip": {}, "element": {}}
    for shard in sorted(shards if key else ()):
        for name in _names(store, shard, stages):
            names[_kind(name)][name] = shard
    for kind, known in names.items():
        begin = sorted(name for name in known if name.startswith(key)) if key else []
        if key in known or len(begin) == 1:
            name = key if key in known else begin[0]
            return Found(kind, name, known[name])
        if begin:
            some = ", ".join(begin[:5])
            raise ValueError(f"{key!r} is a prefix of {len(begin)} {kind}s, such as {some}: give more characters")
    everything = sorted(name for known in names.values() for name in known)
    near = difflib.get_close_matches(key, everything, n=5, cutoff=0.3)
    advice = f"the nearest are {', '.join(near)}" if near else f"it has {len(videos)} videos, none with a similar id"
    raise ValueError(f"no video, clip or element in {store.root} begins with {key!r}: {advice}")


def _names(store: Store, shard: int, stages: Sequence[Stage]) -> Iterator[str]:
    """Yield all keys of a shard, from the tables' rows and the footers."""
    for table, column in {"segment": "clip_id", **dict.fromkeys(element_tables(stages), "element_id")}.items():
        if shard in store.shards(table):
            yield from store.values(table, shard, column)
    for stage in stages:
        if footer := store.footer(stage.name(), shard):
            yield from (reject.key for reject in footer.rejected)
            yield from footer.failed


def _kind(key: str) -> str:
    return "element" if "/" in key else "clip" if CLIP_ID.search(key) else "video"


def _line(heading: str, text: str = "") -> str:
    return f"{heading:{INDENT}}{text}"


def _listed(heading: str, texts: Iterable[str], none: str) -> Iterator[str]:
    """Yield lines under one heading, which precedes the first."""
    for number, text in enumerate(texts := list(texts) or [none]):
        yield _line("" if number else heading, text)


def _rows(store: Store, stage: str, found: Found, record: type, column: str, value: str) -> list[Any]:
    """Return the rows of a stage with that value in a column, in the shard of the found key."""
    if found.shard not in store.shards(stage):
        return []
    return [row for _, rows in store.groups(stage, found.shard, record, column, [value]) for row in rows]


def _mine(rows: list[Any], found: Found) -> list[Any]:
    """Return all rows for a clip, or those of the found element."""
    return rows if found.kind == "clip" else [row for row in rows if row.element_id == found.key]


def _source(store: Store, found: Found) -> Iterator[str]:
    for source in _rows(store, "manifest", found, Source, "video_id", found.video_id)[:1]:
        yield _line("source", public_name(source.path))
        yield _line(
            "",
            f"{source.bytes} bytes, licence {source.license or 'not stated'}, from {source.source or 'an unknown source'}",
        )
    for video in _rows(store, "ingest", found, Video, "video_id", found.video_id):
        shape = f"{video.width} x {video.height}, {video.fps:.4g} fps, {video.duration_s:.4g} s, {video.codec}"
        yield _line("video", shape)


def _clips(store: Store, found: Found) -> Iterator[str]:
    clips = _rows(store, "segment", found, Clip, "video_id", found.video_id)
    kept = {row.clip_id for row in _rows(store, "select", found, Kept, "video_id", found.video_id)}
    paired = set(store.values("retrieve", found.shard, "clip_id")) if found.shard in store.shards("retrieve") else set()
    fates = (
        f"{clip.clip_id}  shot {clip.shot}, {clip.source_pts_s[0]:.2f} to {clip.source_pts_s[-1]:.2f} s: "
        + ("paired" if clip.clip_id in paired else "kept" if clip.clip_id in kept else "not kept")
        for clip in clips
    )
    yield from _listed("clips", fates, "none")


def _shot(store: Store, found: Found) -> Iterator[str]:
    for clip in _rows(store, "segment", found, Clip, "clip_id", found.clip_id):
        begins = "at the start" if clip.transition_in == "start" else f"after a {clip.transition_in}"
        yield _line("shot", f"{clip.shot}, source frames {clip.shot_start} to {clip.shot_end}, begins {begins}")
        times = f"{clip.source_pts_s[0]:.3f} to {clip.source_pts_s[-1]:.3f} s"
        size = f"{clip.width} x {clip.height}, {len(clip.source_frames)} frames at {clip.fps:.4g} fps"
        yield _line("clip", f"{times}, {size}")


def _scores(store: Store, found: Found, select: Any) -> Iterator[str]:
    """Yield every rule of select with the current settings, and the scores without a rule."""
    rows = [row for stage in ("score", "logos") for row in _rows(store, stage, found, Score, "clip_id", found.clip_id)]
    scores = {row.metric: row.value for row in rows}
    for sound in _rows(store, "listen", found, Sound, "clip_id", found.clip_id):
        scores |= sound.scores()
        yield from _sound(sound, _rows(store, "active-speaker", found, Speaker, "clip_id", found.clip_id))
    rules = []
    from stages.select import Select, apply_thresholds

    if isinstance(select, Select) and scores:
        try:
            rules = apply_thresholds(scores, select)
        except KeyError as missing:
            yield _line(
                "rules", f"cannot be applied: the clip lacks the score {missing}; run the stages score and logos again"
            )
    asked = {rule.name for rule in rules}
    rest = [
        f"{metric} = {value:.4g}, not used by a rule" for metric, value in sorted(scores.items()) if metric not in asked
    ]
    yield from _listed("scores", [*map(str, rules), *rest], "none")


def _sound(sound: Sound, speakers: list[Speaker]) -> Iterator[str]:
    about = f"{sound.duration_s:.2f} s, {sound.loudness_lufs:.1f} LUFS, peak {sound.peak_dbfs:.1f} dBFS"
    yield _line("sound", about if sound.duration_s else "none")
    if sound.speech_spans:
        yield _line("speech", _times(sound.speech_spans))
    if sound.transcript:
        yield _line("", f"said: {sound.transcript}")
    for speaker in speakers:
        yield _line("", f"{speaker.element_id} seems to speak: {_times(speaker.speech_spans) or 'never'}")
    if sound.problem:
        yield _line("", sound.problem)


def _times(spans: list[Span]) -> str:
    return ", ".join(f"{span.start_s:.2f} to {span.end_s:.2f} s" for span in spans)


def _verdict(store: Store, found: Found, select: Any) -> Iterator[str]:
    footer = store.footer("select", found.shard)
    if footer is None:
        yield _line("verdict", "select has not run")
        return
    kept = _rows(store, "select", found, Kept, "clip_id", found.clip_id)
    yield _line("verdict", "kept" if kept else "not kept: see rejected or failed below")
    if select and footer.settings != asdict(select):
        yield _line("", "with other thresholds than those above: run select again")


def _elements(store: Store, found: Found, stages: Sequence[Stage]) -> Iterator[str]:
    tables = element_tables(stages)
    rows = [row for table in tables for row in _rows(store, table, found, _Seen, "clip_id", found.clip_id)]
    texts = []
    for row in _mine(rows, found):
        seen = f"best frame {row.frame}, seen in {len(row.seen_frames)} frames"
        looks = f"confidence {row.confidence:.2f}, quality {row.quality:.2f}, {seen}"
        extra = [f"of {row.parent_id}"] if row.parent_id else []
        texts.append(", ".join([f"{row.element_id}  {row.label}", looks, *extra, *row.attributes]))
    yield from _listed("elements", texts, "none")


def _phrases(store: Store, found: Found) -> Iterator[str]:
    for caption in _rows(store, "caption", found, Caption, "clip_id", found.clip_id):
        yield _line("prompt", caption.prompt)
    texts = (
        f"{m.phrase!r} ({m.start} to {m.end}) is {m.element_id}: similarity {m.similarity:.3f}, margin {m.margin:.3f}"
        for m in sorted(
            _mine(_rows(store, "match", found, Match, "clip_id", found.clip_id), found),
            key=lambda m: (m.start, m.element_id),
        )
    )
    yield from _listed("phrases", texts, "none")


def _references(store: Store, found: Found) -> Iterator[str]:
    texts = []
    for row in _mine(_rows(store, "retrieve", found, Reference, "clip_id", found.clip_id), found):
        texts.append(f"{row.element_id} is shown by {row.source_element_id} of shard {row.source_shard}")
        texts.append(f"  identity {row.identity}, similarity {row.similarity:.3f}, copy risk {row.copy_risk:.3f}")
        texts += [f"  {rule}" for rule in row.rules]
    yield from _listed("references", texts, "none")


def _packed(store: Store, found: Found) -> Iterator[str]:
    texts = (
        f"{row.shard} at byte {row.offset}, {row.bytes} bytes: {', '.join(row.members)}"
        for row in _rows(store, "pack", found, Packed, "clip_id", found.clip_id)
    )
    yield from _listed("packed", texts, "no")


def _refusal(reject: Reject) -> list[str]:
    """Return the reason of a reject, and all rules if several were applied to its candidate."""
    source, rules = failed_rules(reject)
    if len(rules) > 1:
        return [f"{reject.key}: {reject.reason} ({source})", *(f"  {rule}" for rule in rules)]
    return [f"{reject.key}: {reject.reason}" + (f" ({reject.detail})" if reject.detail else "")]


def _notes(store: Store, found: Found, stages: Sequence[Stage]) -> Iterator[str]:
    """Yield the entries in the footers of all stages about the key, its content and its clip or video."""
    rejected, failed = [], []
    for stage in (stage.name() for stage in stages):
        footer = store.footer(stage, found.shard)
        if footer is None:
            continue
        rejected += [f"{stage}: {line}" for r in footer.rejected if _about(r.key, found) for line in _refusal(r)]
        failed += [f"{stage}: {unit}: {text}" for unit, text in sorted(footer.failed.items()) if _about(unit, found)]
        failed += [
            f"{stage}: {unit}: skipped, since it failed in an earlier stage"
            for unit in footer.skipped
            if _about(unit, found)
        ]
    yield from _listed("rejected", rejected, "nothing")
    yield from _listed("failed", failed, "nothing")
    if failed:
        yield _line("", f"to retry: a2data retry {store.root}")


def _about(key: str, found: Found) -> bool:
    """Return whether a footer's key is the found one, inside it, or its clip or video."""
    return key in (found.key, found.clip_id, found.video_id) or key.startswith((f"{found.key}/", f"{found.key}-"))
