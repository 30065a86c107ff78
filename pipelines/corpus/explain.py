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


class ResolvedKey(NamedTuple):
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
class _ElementColumns(ElementMeta):
    confidence: float = 0.0


def explain(store: Store, key: str, stages: Sequence[Stage]) -> str:
    """Return the history of a video_id, clip_id or element_id as text; a unique prefix suffices.

    stages: the recipe; the thresholds of its "select" are applied to the scores. Raises ValueError, with the nearest keys, for a
    key that is unknown or not unique.
    """
    resolved = resolve_key(store, key, stages)
    lines = [f"{resolved.kind} {resolved.key}", ""]
    if resolved.kind == "video":
        lines += [*_source(store, resolved), *_clips(store, resolved)]
    else:
        select = next((stage for stage in stages if stage.name() == "select"), None)
        lines += [
            *_source(store, resolved),
            *_shot(store, resolved),
            *_scores(store, resolved, select),
            *_verdict(store, resolved, select),
        ]
        lines += [
            *_elements(store, resolved, stages),
            *_phrases(store, resolved),
            *_references(store, resolved),
            *_packed(store, resolved),
        ]
    lines += _rejects_and_failures(store, resolved, stages)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def history(store: Store, key: str, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the history of a key as plain values: its rows of every table without pixels and vectors, its rejects and failures.

    The keys: kind, key, shard, rows {table: [row]}, rejected and failed, each with the stage, the unit and the reason. Raises
    ValueError as `explain` does.
    """
    resolved = resolve_key(store, key, stages)
    rows = {}
    rejected: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for name in ["manifest", *(stage.name() for stage in stages)]:
        if resolved.shard in store.shards(name) and (key_rows := _plain_rows(store, name, resolved)):
            rows[name] = key_rows
        footer = store.footer(name, resolved.shard) or Footer()
        rejected += [{"stage": name, **asdict(r)} for r in footer.rejected if _concerns(r.key, resolved)]
        failed += [
            {"stage": name, "key": u, "error": e} for u, e in sorted(footer.failed.items()) if _concerns(u, resolved)
        ]
    return resolved._asdict() | {"rows": rows, "rejected": rejected, "failed": failed}


def _plain_rows(store: Store, name: str, resolved: ResolvedKey) -> list[dict[str, Any]]:
    """Return the rows of a table about the resolved key."""
    with store.open_part(name, resolved.shard) as part:
        table = part.table(plain_columns(part.schema))
    ids = {"element": resolved.key, "clip": resolved.clip_id, "video": resolved.video_id}
    # an element's own rows in tables of elements, its clip's in tables of clips, and so on
    kinds = ["video"] if resolved.kind == "video" else ["clip", "video"] if resolved.kind == "clip" else list(ids)
    column = next((f"{kind}_id" for kind in kinds if f"{kind}_id" in table.column_names), "")
    if not column:
        return []
    rows = _json_safe(table.filter(pc.field(column) == ids[column.removesuffix("_id")]).to_pylist())
    return [row | {"path": public_name(row["path"])} if "path" in row else row for row in rows]


def _json_safe(value: Any) -> Any:
    """Return a value with "inf", "-inf" and "nan" for the numbers that JSON lacks, such as the loudness of silence."""
    if isinstance(value, dict):
        return {name: _json_safe(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_json_safe(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def plain_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns without pixels and vectors."""
    heavy = (pa.large_binary(), pa.list_(pa.field("item", pa.float32(), nullable=False)))
    return [field.name for field in schema if field.type not in heavy]


def resolve_key(store: Store, key: str, stages: Sequence[Stage]) -> ResolvedKey:
    """Return the video, clip or element with that key or unique prefix; a video takes precedence over its clips.

    Rejected and failed ones are found too, although they do not have rows.
    """
    videos = {v: shard for shard in store.shards("manifest") for v in store.values("manifest", shard, "video_id")}
    shards = {shard for video_id, shard in videos.items() if key.startswith(video_id) or video_id.startswith(key)}
    shard_of = {"video": videos, "clip": {}, "element": {}}
    for shard in sorted(shards if key else ()):
        for name in _all_keys(store, shard, stages):
            shard_of[_kind(name)][name] = shard
    for kind, shards_by_key in shard_of.items():
        matches = sorted(name for name in shards_by_key if name.startswith(key)) if key else []
        if key in shards_by_key or len(matches) == 1:
            name = key if key in shards_by_key else matches[0]
            return ResolvedKey(kind, name, shards_by_key[name])
        if matches:
            examples = ", ".join(matches[:5])
            raise ValueError(f"{key!r} is a prefix of {len(matches)} {kind}s, such as {examples}: give more characters")
    all_keys = sorted(name for shards_by_key in shard_of.values() for name in shards_by_key)
    closest = difflib.get_close_matches(key, all_keys, n=5, cutoff=0.3)
    advice = (
        f"the nearest are {', '.join(closest)}" if closest else f"it has {len(videos)} videos, none with a similar id"
    )
    raise ValueError(f"no video, clip or element in {store.root} begins with {key!r}: {advice}")


def _all_keys(store: Store, shard: int, stages: Sequence[Stage]) -> Iterator[str]:
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


def _lines_under(heading: str, texts: Iterable[str], default: str) -> Iterator[str]:
    """Yield lines under one heading, which precedes the first."""
    for number, text in enumerate(texts := list(texts) or [default]):
        yield _line("" if number else heading, text)


def _rows(store: Store, stage: str, resolved: ResolvedKey, record: type, column: str, value: str) -> list[Any]:
    """Return the rows of a stage with that value in a column, in the shard of the resolved key."""
    if resolved.shard not in store.shards(stage):
        return []
    return [row for _, rows in store.groups(stage, resolved.shard, record, column, [value]) for row in rows]


def _own_rows(rows: list[Any], resolved: ResolvedKey) -> list[Any]:
    """Return all rows for a clip, or those of the resolved element."""
    return rows if resolved.kind == "clip" else [row for row in rows if row.element_id == resolved.key]


def _source(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    for source in _rows(store, "manifest", resolved, Source, "video_id", resolved.video_id)[:1]:
        yield _line("source", public_name(source.path))
        yield _line(
            "",
            f"{source.bytes} bytes, licence {source.license or 'not stated'}, from {source.source or 'an unknown source'}",
        )
    for video in _rows(store, "ingest", resolved, Video, "video_id", resolved.video_id):
        properties = f"{video.width} x {video.height}, {video.fps:.4g} fps, {video.duration_s:.4g} s, {video.codec}"
        yield _line("video", properties)


def _clips(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    clips = _rows(store, "segment", resolved, Clip, "video_id", resolved.video_id)
    kept = {row.clip_id for row in _rows(store, "select", resolved, Kept, "video_id", resolved.video_id)}
    paired = (
        set(store.values("retrieve", resolved.shard, "clip_id"))
        if resolved.shard in store.shards("retrieve")
        else set()
    )
    outcomes = (
        f"{clip.clip_id}  shot {clip.shot}, {clip.source_pts_s[0]:.2f} to {clip.source_pts_s[-1]:.2f} s: "
        + ("paired" if clip.clip_id in paired else "kept" if clip.clip_id in kept else "not kept")
        for clip in clips
    )
    yield from _lines_under("clips", outcomes, "none")


def _shot(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    for clip in _rows(store, "segment", resolved, Clip, "clip_id", resolved.clip_id):
        transition = "at the start" if clip.transition_in == "start" else f"after a {clip.transition_in}"
        yield _line("shot", f"{clip.shot}, source frames {clip.shot_start} to {clip.shot_end}, begins {transition}")
        times = f"{clip.source_pts_s[0]:.3f} to {clip.source_pts_s[-1]:.3f} s"
        size = f"{clip.width} x {clip.height}, {len(clip.source_frames)} frames at {clip.fps:.4g} fps"
        yield _line("clip", f"{times}, {size}")


def _scores(store: Store, resolved: ResolvedKey, select: Any) -> Iterator[str]:
    """Yield every rule of select with the current settings, and the scores without a rule."""
    rows = [
        row for stage in ("score", "logos") for row in _rows(store, stage, resolved, Score, "clip_id", resolved.clip_id)
    ]
    scores = {row.metric: row.value for row in rows}
    for sound in _rows(store, "listen", resolved, Sound, "clip_id", resolved.clip_id):
        scores |= sound.scores()
        yield from _sound(sound, _rows(store, "active-speaker", resolved, Speaker, "clip_id", resolved.clip_id))
    rules = []
    from stages.select import Select, apply_thresholds

    if isinstance(select, Select) and scores:
        try:
            rules = apply_thresholds(scores, select)
        except KeyError as error:
            yield _line(
                "rules", f"cannot be applied: the clip lacks the score {error}; run the stages score and logos again"
            )
    ruled = {rule.name for rule in rules}
    without_rule = [
        f"{metric} = {value:.4g}, not used by a rule" for metric, value in sorted(scores.items()) if metric not in ruled
    ]
    yield from _lines_under("scores", [*map(str, rules), *without_rule], "none")


def _sound(sound: Sound, speakers: list[Speaker]) -> Iterator[str]:
    properties = f"{sound.duration_s:.2f} s, {sound.loudness_lufs:.1f} LUFS, peak {sound.peak_dbfs:.1f} dBFS"
    yield _line("sound", properties if sound.duration_s else "none")
    if sound.speech_spans:
        yield _line("speech", _format_spans(sound.speech_spans))
    if sound.transcript:
        yield _line("", f"said: {sound.transcript}")
    for speaker in speakers:
        yield _line("", f"{speaker.element_id} seems to speak: {_format_spans(speaker.speech_spans) or 'never'}")
    if sound.problem:
        yield _line("", sound.problem)


def _format_spans(spans: list[Span]) -> str:
    return ", ".join(f"{span.start_s:.2f} to {span.end_s:.2f} s" for span in spans)


def _verdict(store: Store, resolved: ResolvedKey, select: Any) -> Iterator[str]:
    footer = store.footer("select", resolved.shard)
    if footer is None:
        yield _line("verdict", "select has not run")
        return
    kept = _rows(store, "select", resolved, Kept, "clip_id", resolved.clip_id)
    yield _line("verdict", "kept" if kept else "not kept: see rejected or failed below")
    if select and footer.settings != asdict(select):
        yield _line("", "with other thresholds than those above: run select again")


def _elements(store: Store, resolved: ResolvedKey, stages: Sequence[Stage]) -> Iterator[str]:
    tables = element_tables(stages)
    rows = [
        row for table in tables for row in _rows(store, table, resolved, _ElementColumns, "clip_id", resolved.clip_id)
    ]
    texts = []
    for row in _own_rows(rows, resolved):
        frames = f"best frame {row.frame}, seen in {len(row.seen_frames)} frames"
        properties = f"confidence {row.confidence:.2f}, quality {row.quality:.2f}, {frames}"
        parent = [f"of {row.parent_id}"] if row.parent_id else []
        texts.append(", ".join([f"{row.element_id}  {row.label}", properties, *parent, *row.attributes]))
    yield from _lines_under("elements", texts, "none")


def _phrases(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    for caption in _rows(store, "caption", resolved, Caption, "clip_id", resolved.clip_id):
        yield _line("prompt", caption.prompt)
    texts = (
        f"{m.phrase!r} ({m.start} to {m.end}) is {m.element_id}: similarity {m.similarity:.3f}, margin {m.margin:.3f}"
        for m in sorted(
            _own_rows(_rows(store, "match", resolved, Match, "clip_id", resolved.clip_id), resolved),
            key=lambda m: (m.start, m.element_id),
        )
    )
    yield from _lines_under("phrases", texts, "none")


def _references(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    texts = []
    for row in _own_rows(_rows(store, "retrieve", resolved, Reference, "clip_id", resolved.clip_id), resolved):
        texts.append(f"{row.element_id} is shown by {row.source_element_id} of shard {row.source_shard}")
        texts.append(f"  identity {row.identity}, similarity {row.similarity:.3f}, copy risk {row.copy_risk:.3f}")
        texts += [f"  {rule}" for rule in row.rules]
    yield from _lines_under("references", texts, "none")


def _packed(store: Store, resolved: ResolvedKey) -> Iterator[str]:
    texts = (
        f"{row.shard} at byte {row.offset}, {row.bytes} bytes: {', '.join(row.members)}"
        for row in _rows(store, "pack", resolved, Packed, "clip_id", resolved.clip_id)
    )
    yield from _lines_under("packed", texts, "no")


def _reject_lines(reject: Reject) -> list[str]:
    """Return the reason of a reject, and all rules if several were applied to its candidate."""
    source, rules = failed_rules(reject)
    if len(rules) > 1:
        return [f"{reject.key}: {reject.reason} ({source})", *(f"  {rule}" for rule in rules)]
    return [f"{reject.key}: {reject.reason}" + (f" ({reject.detail})" if reject.detail else "")]


def _rejects_and_failures(store: Store, resolved: ResolvedKey, stages: Sequence[Stage]) -> Iterator[str]:
    """Yield the entries in the footers of all stages about the key, its content and its clip or video."""
    rejected, failed = [], []
    for stage in (stage.name() for stage in stages):
        footer = store.footer(stage, resolved.shard)
        if footer is None:
            continue
        rejected += [
            f"{stage}: {line}" for r in footer.rejected if _concerns(r.key, resolved) for line in _reject_lines(r)
        ]
        failed += [
            f"{stage}: {unit}: {text}" for unit, text in sorted(footer.failed.items()) if _concerns(unit, resolved)
        ]
        failed += [
            f"{stage}: {unit}: skipped, since it failed in an earlier stage"
            for unit in footer.skipped
            if _concerns(unit, resolved)
        ]
    yield from _lines_under("rejected", rejected, "nothing")
    yield from _lines_under("failed", failed, "nothing")
    if failed:
        yield _line("", f"to retry: a2data retry {store.root}")


def _concerns(key: str, resolved: ResolvedKey) -> bool:
    """Return whether a footer's key is the resolved one, inside it, or its clip or video."""
    return key in (resolved.key, resolved.clip_id, resolved.video_id) or key.startswith(
        (f"{resolved.key}/", f"{resolved.key}-")
    )
