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
MOST_EXAMPLES, MOST_IDENTITIES, MOST_MEMBERS = 6, 12, 8  # numbers shown; all are counted
PREVIEW_PX, STILL_PX, TILE_PX = 320, 400, 320  # longest side of a picture in the report

Where = tuple[int, str]  # a shard, and a clip_id or element_id in it


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


class Shown(NamedTuple):
    """A reject for display."""

    reject: Reject
    caption: str
    picture: str  # data: URI of the element's cut-out, else of a frame of the clip; "" if neither exists
    path: str  # path of a rejected video; "" for clips and elements


class Example(NamedTuple):
    """Examples of the rejects of a stage for one reason."""

    stage: str
    reason: str
    total: int
    shown: list[Shown]


@dataclass(frozen=True)
class _Clip:  # only the columns that are needed from each table
    clip_id: str


@dataclass(frozen=True)
class _Part:
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


def pieces(prompt: str, spans: Iterable[Highlight]) -> list[Piece]:
    """Split the prompt at the boundaries of spans. The joined texts of the pieces equal the prompt, however spans overlap.

    Spans may be nested, cross or touch; the narrowest over a piece is the last of its colours, and of equals the lowest colour.
    Spans are cut at the end of the prompt.
    """
    limit = len(prompt)
    ends = {min(max(end, 0), limit) for span in spans for end in span[:2]} if (spans := list(spans)) else set()
    found = []
    for start, end in pairwise(sorted({0, limit} | ends)):
        over = sorted(
            (span for span in spans if span.start <= start and end <= span.end),
            # the element that the phrase names has a lower colour than its parts, which use the phrase, too
            key=lambda s: (s.start - s.end, s.colour != NO_REFERENCE, -s.colour),
        )
        found.append(Piece(prompt[start:end], tuple(dict.fromkeys(span.colour for span in over))))
    return found


def triplets(store: Store, tables: Sequence[str], wanted: Iterable[Where]) -> list[Triplet]:
    """Return the triplets of some clips, without those that have no reference or whose clip or video is gone."""
    clips = _by_shard(wanted)
    strips = strips_of(
        store, ((shard, clip_id) for shard, ids in clips.items() for clip_id in ids), stills=4, preview=True
    )
    found = []
    for shard, ids in sorted(clips.items()):
        references = dict(_groups(store, "retrieve", shard, Reference, "clip_id", ids))
        captions = dict(_groups(store, "caption", shard, Caption, "clip_id", ids))
        matches = dict(_groups(store, "match", shard, Match, "clip_id", ids))
        videos = dict(_groups(store, "ingest", shard, Video, "video_id", {_video_id(clip_id) for clip_id in ids}))
        pictures = cut_outs(
            store, tables, {(r.source_shard, r.source_element_id) for rows in references.values() for r in rows}
        )
        parents = _parents(store, tables, shard, {r.element_id for rows in references.values() for r in rows})
        for clip_id in sorted(references.keys() & strips.keys()):
            if _video_id(clip_id) not in videos:
                continue
            text = captions[clip_id][0].prompt if clip_id in captions else ""
            prompt, tiles = colour(text, matches.get(clip_id, []), references[clip_id], pictures, parents)
            found.append(Triplet(clip_id, prompt, strips[clip_id], tiles, videos[_video_id(clip_id)][0]))
    return found


def colour(
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
    return pieces(prompt, spans), tiles


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
        for element_id, (row, *_) in _groups(store, table, shard, _Part, "element_id", element_ids)
    }


def strips_of(store: Store, wanted: Iterable[Where], stills: int, preview: bool = False) -> dict[str, Strip]:
    """Return {clip_id: strip} with evenly spread stills; each clip is decoded once. Clips missing in segment are omitted."""
    found = {}
    for shard, clip_ids in sorted(_by_shard(wanted).items()):
        for clip_id, (film, *_) in _groups(store, "segment", shard, ClipVideo, "clip_id", clip_ids):
            at = ((np.arange(stills) + 0.5) * len(film.frames) / stills).astype(int).tolist()
            pictures = [to_jpeg(within(film.frames[frame], STILL_PX)) for frame in at]
            small = _mp4(film) if preview else ""
            found[clip_id] = Strip(pictures, [film.source_pts_s[frame] for frame in at], small)
    return found


def cut_outs(store: Store, tables: Sequence[str], wanted: Iterable[Where]) -> dict[str, CutOut]:
    """Return {element_id: cut-out} with pictures on white. tables: those with elements; what none of them has is omitted."""
    found = {}
    for shard, element_ids in sorted(_by_shard(wanted).items()):
        for table in tables:
            for element_id, (row, *_) in _groups(store, table, shard, _Picture, "element_id", element_ids):
                found[element_id] = CutOut(row.label, to_jpeg(within(on_white(row.image), TILE_PX)))
    return found


def rejects(store: Store, tables: Sequence[str], footers: dict[str, list[tuple[int, Footer]]]) -> list[Example]:
    """Return the number of rejects and a few examples for each stage and reason."""
    found: dict[tuple[str, str], list[tuple[int, Reject]]] = defaultdict(list)
    for stage, parts in footers.items():
        for shard, footer in parts:
            for reject in footer.rejected:
                found[stage, reject.reason].append((shard, reject))
    chosen = {group: spread(rejects, MOST_EXAMPLES) for group, rejects in found.items()}
    keys = {(shard, reject.key) for rejects in chosen.values() for shard, reject in rejects}
    strips = strips_of(store, {(shard, key.split("/")[0]) for shard, key in keys}, stills=1)
    pictures = {clip_id: strip.stills[0] for clip_id, strip in strips.items()}
    pictures |= {element_id: cut_out.picture for element_id, cut_out in cut_outs(store, tables, keys).items()}
    paths = _paths(store, keys)

    def show(reject: Reject) -> Shown:
        picture = pictures.get(reject.key) or pictures.get(reject.key.split("/")[0], "")
        return Shown(reject, caption(reject), picture, paths.get(reject.key, ""))

    return [
        Example(stage, reason, len(found[stage, reason]), [show(reject) for _, reject in rejects])
        for (stage, reason), rejects in chosen.items()
    ]


def caption(reject: Reject) -> str:
    """Return the rule that rejected, with the likeliest candidate if there is one. A rule that passed is not quoted."""
    first = reject.detail.split("; ")[0] or reject.reason  # rules that failed come first
    if not first.endswith(": pass"):
        return first
    return f"{first.partition(': ')[0]} is similar enough, but is not of the same kind or identity"


def _paths(store: Store, keys: set[Where]) -> dict[str, str]:
    """Return the paths of the keys that are videos."""
    found = {}
    for shard, names in sorted(_by_shard(keys).items()):
        for video_id, (source, *_) in _groups(store, "manifest", shard, _Path, "video_id", names):
            found[video_id] = public_name(source.path)
    return found


def identities(store: Store, tables: Sequence[str], pairs: pa.Table) -> list[tuple[int, int, list[CutOut]]]:
    """Return the largest identity clusters: number, count of elements, and pictures of some of them."""
    members: dict[int, set[Where]] = defaultdict(set)
    for row in pairs.select(["identity", "shard", "element_id", "source_shard", "source_element_id"]).to_pylist():
        if row["identity"] >= 0:
            members[row["identity"]] |= {
                (row["shard"], row["element_id"]),
                (row["source_shard"], row["source_element_id"]),
            }
    largest = sorted(members, key=lambda identity: (-len(members[identity]), identity))[:MOST_IDENTITIES]
    shown = {identity: spread(sorted(members[identity]), MOST_MEMBERS) for identity in largest}
    pictures = cut_outs(store, tables, {where for wheres in shown.values() for where in wheres})
    return [(i, len(members[i]), [pictures[e] for _, e in shown[i] if e in pictures]) for i in largest]


def shards_holding(store: Store, stage: str) -> dict[str, int]:
    """Return {clip_id: shard} of every clip with rows in a table, sorted by id."""
    found = {}
    for shard in store.shards(stage):
        for clip_id in store.table(stage, shard, _Clip).column(0).unique().to_pylist():
            found[clip_id] = shard
    return dict(sorted(found.items()))


def spread(things: list, most: int) -> list:
    """Return at most `most` of the things, evenly spread over the list, in order; the first is always included."""
    count = min(most, len(things))
    return [things[number * len(things) // count] for number in range(count)]


def on_white(png: bytes) -> np.ndarray:
    """Decode a PNG with or without alpha to (h, w, 3) uint8 RGB over white."""
    picture = images.from_png(png)
    return images.on_white(picture) if picture.shape[2] == 4 else picture


def to_jpeg(picture: np.ndarray) -> str:
    """Return (h, w, 3) uint8 RGB as the data: URI of a JPEG."""
    return data_uri(images.to_jpeg(picture))


def _mp4(film: ClipVideo) -> str:
    """Re-encode the clip small enough for dozens in one page."""
    small = np.stack([within(frame, PREVIEW_PX, even=True) for frame in film.frames])
    return data_uri(video.encode(small, film.fps, crf=28), "video/mp4")


def within(picture: np.ndarray, side_px: int, even: bool = False) -> np.ndarray:
    """Scale the picture down to a longer side of at most side_px. even: round to even sides, as H.264 requires."""
    height, width = picture.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    step = 2 if even else 1
    size = (max(step, round(width * scale / step) * step), max(step, round(height * scale / step) * step))
    return picture if size == (width, height) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _groups(
    store: Store, stage: str, shard: int, record: type, column: str, wanted: set[str]
) -> Iterator[tuple[str, Any]]:
    """Yield as Store.groups; nothing if the part does not exist (yet), since a report can be made at any time of a run."""
    with suppress(FileNotFoundError):
        yield from store.groups(stage, shard, record, column, wanted)


def _video_id(clip_id: str) -> str:
    return clip_id.rpartition("-")[0]


def _by_shard(wanted: Iterable[Where]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = defaultdict(set)
    for shard, name in wanted:
        found[shard].add(name)
    return dict(found)
