"""Contact sheets of clips, references and identities for the report, with pictures as data: URIs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from a2data.media import images, video
from a2data.records import Caption, ClipVideo, Match, Reference, Reject, Video
from a2data.store.tables import Footer, Store
from a2data.store.url import public_name
from pipelines.html.page import data_uri

COLOURS = 8  # classes c0 to c7 of base.css; the ninth reference of a clip reuses one
# The colour that a kind has in every card; a second element of the kind takes one that the card does not use.
KINDS = ("human", "face", "hair", "upper", "object", "background", "lower", "shoes")
NO_REFERENCE = -1  # colour of a phrase whose element does not have a reference
MAX_EXAMPLES, MAX_IDENTITIES, MAX_MEMBERS = 6, 12, 8  # numbers shown; all are counted
PREVIEW_PX, STILL_PX, TILE_PX = 320, 400, 320  # longest side of a picture in the report

ShardKey = tuple[int, str]  # a shard, and a clip_id or element_id in it


class Highlight(NamedTuple):
    """A span of the prompt, in characters, with the colour of its reference."""

    start: int
    end: int
    colour: int


class Piece(NamedTuple):
    """A part of the prompt without span boundaries inside, and the colours of the spans over it, widest span first."""

    text: str
    colours: tuple[int, ...]


class Strip(NamedTuple):
    """Stills and preview of a clip."""

    stills: list[str]  # data: URIs of JPEGs
    times_s: list[float]  # presentation time of each in the source
    preview: str  # data: URI of a small mp4; "" if not requested


class CutOut(NamedTuple):
    """Label and picture of an element, on white, as a data: URI."""

    label: str
    picture: str


@dataclass(frozen=True)
class Tile:
    """A reference of a triplet for display."""

    colour: int
    phrase: str  # "" if the prompt does not mention it
    cut_out: CutOut
    reference: Reference


@dataclass(frozen=True)
class Triplet:
    """Prompt, references and video of one sample for display."""

    clip_id: str
    prompt: list[Piece]
    strip: Strip
    tiles: list[Tile]
    source: Video


class RejectTile(NamedTuple):
    """A reject for display."""

    reject: Reject
    caption: str
    picture: str  # data: URI of the element's cut-out, else of a frame of the clip; "" if neither exists
    path: str  # path of a rejected video; "" for clips and elements


class RejectGroup(NamedTuple):
    """Examples of the rejects of a stage for one reason."""

    stage: str
    reason: str
    total: int
    shown: list[RejectTile]


@dataclass(frozen=True)
class _Clip:  # only the columns that are needed from each table
    clip_id: str


@dataclass(frozen=True)
class _ParentColumns:
    element_id: str
    parent_id: str


@dataclass(frozen=True)
class _Path:
    video_id: str
    path: str


@dataclass(frozen=True)
class _Picture:
    element_id: str
    label: str
    image: bytes


def split_at_spans(prompt: str, spans: Iterable[Highlight]) -> list[Piece]:
    """Split the prompt at the boundaries of spans. The joined texts of the pieces equal the prompt, however spans overlap.

    Spans may be nested, cross or touch; the narrowest over a piece is the last of its colours, and of equals the lowest colour.
    Spans are cut at the end of the prompt.
    """
    length = len(prompt)
    ends = {min(max(end, 0), length) for span in spans for end in span[:2]} if (spans := list(spans)) else set()
    pieces = []
    for start, end in pairwise(sorted({0, length} | ends)):
        covering = sorted(
            (span for span in spans if span.start <= start and end <= span.end),
            # the element that the phrase names has a lower colour than its parts, which use the phrase, too
            key=lambda s: (s.start - s.end, s.colour != NO_REFERENCE, -s.colour),
        )
        pieces.append(Piece(prompt[start:end], tuple(dict.fromkeys(span.colour for span in covering))))
    return pieces


def triplets(store: Store, tables: Sequence[str], keys: Iterable[ShardKey]) -> list[Triplet]:
    """Return the triplets of some clips, without those that have no reference or whose clip or video is gone."""
    clips = _by_shard(keys)
    strips = clip_strips(
        store, ((shard, clip_id) for shard, ids in clips.items() for clip_id in ids), stills=4, preview=True
    )
    found = []
    for shard, ids in sorted(clips.items()):
        references = dict(_groups_if_present(store, "retrieve", shard, Reference, "clip_id", ids))
        captions = dict(_groups_if_present(store, "caption", shard, Caption, "clip_id", ids))
        matches = dict(_groups_if_present(store, "match", shard, Match, "clip_id", ids))
        videos = dict(
            _groups_if_present(store, "ingest", shard, Video, "video_id", {_video_id(clip_id) for clip_id in ids})
        )
        pictures = cut_outs(
            store, tables, {(r.source_shard, r.source_element_id) for rows in references.values() for r in rows}
        )
        parents = _parents(store, tables, shard, {r.element_id for rows in references.values() for r in rows})
        for clip_id in sorted(references.keys() & strips.keys()):
            if _video_id(clip_id) not in videos:
                continue
            text = captions[clip_id][0].prompt if clip_id in captions else ""
            prompt, tiles = assign_colours(text, matches.get(clip_id, []), references[clip_id], pictures, parents)
            found.append(Triplet(clip_id, prompt, strips[clip_id], tiles, videos[_video_id(clip_id)][0]))
    return found


def assign_colours(
    prompt: str,
    matches: list[Match],
    references: list[Reference],
    pictures: dict[str, CutOut],
    parents: dict[str, str],
) -> tuple[list[Piece], list[Tile]]:
    """Return the prompt in pieces and the references in the order in which the prompt mentions them, with their colours.

    A face or garment that the prompt does not mention uses the phrase of its person, as in the shards (stages/pack/stage.py).
    """
    phrases: dict[str, Match] = {}
    for match in sorted(matches, key=lambda m: (m.start, -m.end, m.element_id)):
        phrases.setdefault(match.element_id, match)
    paired = sorted({reference.element_id for reference in references})
    named = {e: phrase for e in paired if (phrase := phrases.get(e) or phrases.get(parents.get(e, "")))}

    def rank(element_id: str) -> tuple[int, int, bool, str]:
        phrase = named.get(element_id)
        start, end = (phrase.start, phrase.end) if phrase else (len(prompt), 0)
        return start, -end, element_id not in phrases, element_id

    order = sorted(paired, key=rank)
    colours = _colours(order, {reference.element_id: reference.kind for reference in references})
    spans = [Highlight(m.start, m.end, colours.get(m.element_id, NO_REFERENCE)) for m in matches]
    spans += [Highlight(m.start, m.end, colours[e]) for e, m in named.items() if e not in phrases]
    tiles = [
        Tile(
            colours[r.element_id],
            named[r.element_id].phrase if r.element_id in named else "",
            pictures.get(r.source_element_id, CutOut("picture is gone from its table", "")),
            r,
        )
        for r in sorted(references, key=lambda r: (order.index(r.element_id), r.copy_risk, r.source_element_id))
    ]
    return split_at_spans(prompt, spans), tiles


def _colours(order: list[str], kinds: dict[str, str]) -> dict[str, int]:
    """Return the colour of each element: that of its kind for the first of a kind, else the lowest that is free."""
    first = {kinds[element_id]: element_id for element_id in reversed(order)}
    colours = {element_id: KINDS.index(kind) for kind, element_id in first.items() if kind in KINDS}
    free = [n for n in range(COLOURS) if n not in colours.values()] + list(range(COLOURS))
    others = [element_id for element_id in order if element_id not in colours]
    return colours | {element_id: free[n % len(free)] for n, element_id in enumerate(others)}


def _parents(store: Store, tables: Sequence[str], shard: int, element_ids: set[str]) -> dict[str, str]:
    """Return the person that each face or garment belongs to."""
    return {
        element_id: row.parent_id
        for table in tables
        for element_id, (row, *_) in _groups_if_present(store, table, shard, _ParentColumns, "element_id", element_ids)
    }


def clip_strips(store: Store, keys: Iterable[ShardKey], stills: int, preview: bool = False) -> dict[str, Strip]:
    """Return {clip_id: strip} with evenly spread stills; each clip is decoded once. Clips missing in segment are omitted."""
    strips = {}
    for shard, clip_ids in sorted(_by_shard(keys).items()):
        for clip_id, (clip, *_) in _groups_if_present(store, "segment", shard, ClipVideo, "clip_id", clip_ids):
            frame_numbers = ((np.arange(stills) + 0.5) * len(clip.frames) / stills).astype(int).tolist()
            pictures = [to_jpeg(fit_within(clip.frames[frame], STILL_PX)) for frame in frame_numbers]
            small = _preview_mp4(clip) if preview else ""
            strips[clip_id] = Strip(pictures, [clip.source_pts_s[frame] for frame in frame_numbers], small)
    return strips


def cut_outs(store: Store, tables: Sequence[str], keys: Iterable[ShardKey]) -> dict[str, CutOut]:
    """Return {element_id: cut-out} with pictures on white. tables: those with elements; what none of them has is omitted."""
    cut_outs_by_id = {}
    for shard, element_ids in sorted(_by_shard(keys).items()):
        for table in tables:
            for element_id, (row, *_) in _groups_if_present(store, table, shard, _Picture, "element_id", element_ids):
                cut_outs_by_id[element_id] = CutOut(row.label, to_jpeg(fit_within(on_white(row.image), TILE_PX)))
    return cut_outs_by_id


def rejects(store: Store, tables: Sequence[str], footers: dict[str, list[tuple[int, Footer]]]) -> list[RejectGroup]:
    """Return the number of rejects and a few examples for each stage and reason."""
    by_reason: dict[tuple[str, str], list[tuple[int, Reject]]] = defaultdict(list)
    for stage, parts in footers.items():
        for shard, footer in parts:
            for reject in footer.rejected:
                by_reason[stage, reject.reason].append((shard, reject))
    examples = {group: sample_evenly(rejects, MAX_EXAMPLES) for group, rejects in by_reason.items()}
    keys = {(shard, reject.key) for rejects in examples.values() for shard, reject in rejects}
    strips = clip_strips(store, {(shard, key.split("/")[0]) for shard, key in keys}, stills=1)
    pictures = {clip_id: strip.stills[0] for clip_id, strip in strips.items()}
    pictures |= {element_id: cut_out.picture for element_id, cut_out in cut_outs(store, tables, keys).items()}
    paths = _paths(store, keys)

    def tile(reject: Reject) -> RejectTile:
        picture = pictures.get(reject.key) or pictures.get(reject.key.split("/")[0], "")
        return RejectTile(reject, caption(reject), picture, paths.get(reject.key, ""))

    return [
        RejectGroup(stage, reason, len(by_reason[stage, reason]), [tile(reject) for _, reject in rejects])
        for (stage, reason), rejects in examples.items()
    ]


def caption(reject: Reject) -> str:
    """Return the rule that rejected, with the likeliest candidate if there is one. A rule that passed is not quoted."""
    first = reject.detail.split("; ")[0] or reject.reason  # rules that failed come first
    if not first.endswith(": pass"):
        return first
    return f"{first.partition(': ')[0]} is similar enough, but is not of the same kind or identity"


def _paths(store: Store, keys: set[ShardKey]) -> dict[str, str]:
    """Return the paths of the keys that are videos."""
    paths = {}
    for shard, names in sorted(_by_shard(keys).items()):
        for video_id, (source, *_) in _groups_if_present(store, "manifest", shard, _Path, "video_id", names):
            paths[video_id] = public_name(source.path)
    return paths


def identities(store: Store, tables: Sequence[str], pairs: pa.Table) -> list[tuple[int, int, list[CutOut]]]:
    """Return the largest identity clusters: number, count of elements, and pictures of some of them."""
    members: dict[int, set[ShardKey]] = defaultdict(set)
    for row in pairs.select(["identity", "shard", "element_id", "source_shard", "source_element_id"]).to_pylist():
        if row["identity"] >= 0:
            members[row["identity"]] |= {
                (row["shard"], row["element_id"]),
                (row["source_shard"], row["source_element_id"]),
            }
    largest = sorted(members, key=lambda identity: (-len(members[identity]), identity))[:MAX_IDENTITIES]
    examples = {identity: sample_evenly(sorted(members[identity]), MAX_MEMBERS) for identity in largest}
    pictures = cut_outs(store, tables, {key for keys in examples.values() for key in keys})
    return [(i, len(members[i]), [pictures[e] for _, e in examples[i] if e in pictures]) for i in largest]


def shards_by_clip(store: Store, stage: str) -> dict[str, int]:
    """Return {clip_id: shard} of every clip with rows in a table, sorted by id."""
    shard_of = {}
    for shard in store.shards(stage):
        for clip_id in store.table(stage, shard, _Clip).column(0).unique().to_pylist():
            shard_of[clip_id] = shard
    return dict(sorted(shard_of.items()))


def sample_evenly(items: list, limit: int) -> list:
    """Return at most `limit` of the items, evenly spread over the list, in order; the first is always included."""
    count = min(limit, len(items))
    return [items[n * len(items) // count] for n in range(count)]


def on_white(png: bytes) -> np.ndarray:
    """Decode a PNG with or without alpha to (h, w, 3) uint8 RGB over white."""
    picture = images.from_png(png)
    return images.on_white(picture) if picture.shape[2] == 4 else picture


def to_jpeg(picture: np.ndarray) -> str:
    """Return (h, w, 3) uint8 RGB as the data: URI of a JPEG."""
    return data_uri(images.to_jpeg(picture))


def _preview_mp4(clip: ClipVideo) -> str:
    """Re-encode the clip small enough for dozens in one page."""
    small = np.stack([fit_within(frame, PREVIEW_PX, even=True) for frame in clip.frames])
    return data_uri(video.encode(small, clip.fps, crf=28), "video/mp4")


def fit_within(picture: np.ndarray, side_px: int, even: bool = False) -> np.ndarray:
    """Scale the picture down to a longer side of at most side_px. even: round to even sides, as H.264 requires."""
    height, width = picture.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    step = 2 if even else 1
    size = (max(step, round(width * scale / step) * step), max(step, round(height * scale / step) * step))
    return picture if size == (width, height) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _groups_if_present(
    store: Store, stage: str, shard: int, record: type, column: str, values: set[str]
) -> Iterator[tuple[str, Any]]:
    """Yield as Store.groups; nothing if the part does not exist (yet), since a report can be made at any time of a run."""
    with suppress(FileNotFoundError):
        yield from store.groups(stage, shard, record, column, values)


def _video_id(clip_id: str) -> str:
    return clip_id.rpartition("-")[0]


def _by_shard(keys: Iterable[ShardKey]) -> dict[int, set[str]]:
    by_shard: dict[int, set[str]] = defaultdict(set)
    for shard, name in keys:
        by_shard[shard].add(name)
    return dict(by_shard)
