"""Predictions of a pipeline on the films: its shards, plus the data that only its tables contain.

From the shards: prompts, phrases, references with their origin and their target in the clip, pictures, and the clip itself. From
the tables: shots (segment), kept clips (select), every element with its observations and embedding (detect, ground, faces), and
the elements that have a phrase (match).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from a2data import records
from a2data.dataset import triplet as samples
from a2data.dataset.writer import read_sample
from a2data.dataset.writer import rows as packed_rows
from a2data.media import coco_rle, images, video
from a2data.media.images import Box
from a2data.store.folder import Folder
from a2data.store.tables import Store


@dataclass(frozen=True)
class SourceMask:
    """A mask in one frame of a source video."""

    file: str  # of the film, without folders
    frame: int  # source frame
    mask: bytes  # a2data.media.images.to_rle, of the clip's frame
    crop: Box  # the part of the source picture that the clip's frame shows

    def in_source(self, height: int, width: int) -> np.ndarray:
        """Return the mask in the source's pixels, (height, width) bool."""
        mask = images.from_rle(self.mask)
        x0, y0, x1, y1 = (round(v) for v in self.crop)
        out = np.zeros((height, width), bool)
        part = cv2.resize(mask.astype(np.uint8), (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST) > 0
        top, left = max(0, y0), max(0, x0)
        out[top : min(height, y1), left : min(width, x1)] = part[top - y0 : height - y0, left - x0 : width - x0]
        return out


@dataclass(frozen=True)
class Clip:
    """A clip and its shot, as segmented."""

    id: str
    file: str
    shot: int
    shot_start: int
    shot_end: int
    transition_in: str
    frames: tuple[int, ...]  # source frame of each frame
    kept: bool = True


@dataclass(frozen=True)
class Element:
    """A person, an object or a face detected in a clip."""

    id: str
    clip: str
    kind: str
    parent: str
    best: SourceMask
    frames: tuple[int, ...]  # source frames in which it was detected
    boxes: tuple[Box, ...]  # one per frame, in the source picture
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True)
class Slot:
    """A phrase of the prompt for a subject."""

    phrase: str
    start: int
    end: int
    element: str = ""  # element that it is bound to; "" if none


@dataclass(frozen=True)
class Ref:
    """A reference of a triplet."""

    role: str
    element: str  # the target in the clip
    identity: int
    source_element: str
    source_clip: str
    origin: SourceMask
    phrase: str = ""
    start: int = 0
    end: int = 0
    white: float = 1.0  # fraction of the picture outside the mask that is white
    picture: np.ndarray | None = field(default=None, compare=False)  # of a background only: (h, w, 3) uint8 of `box`
    box: Box = (0, 0, 0, 0)  # in the clip's frame


@dataclass(frozen=True)
class Sample:
    """A triplet."""

    clip: str
    prompt: str
    slots: tuple[Slot, ...]
    environment: str  # its phrase; "" if none
    references: tuple[Ref, ...]
    frames: tuple[int, ...]  # stated source frame of each frame of the video
    thumbs: np.ndarray = field(compare=False)  # (t, 18, 24) uint8, of the video's frames
    digest: str = ""  # sha256 of all its bytes
    targets: dict[str, SourceMask] = field(default_factory=dict, compare=False)  # element -> its stated mask and frame


@dataclass(frozen=True)
class Prediction:
    """Everything that is scored."""

    clips: dict[str, Clip]
    elements: dict[str, Element]
    samples: list[Sample]
    matched: frozenset[str] = frozenset()  # elements with a phrase
    owners: dict[str, str] = field(default_factory=dict)  # garment -> its human


def read(work: Path, shards: Path) -> Prediction:
    """Read the prediction of a finished run. Raises ValueError for shards of another run and for two videos with one name."""
    store = Store(work)
    files = {v.video_id: Path(v.path).name for v in rows(store, "ingest", records.Video)}
    if repeated := [name for name, count in Counter(files.values()).items() if count > 1]:
        raise ValueError(
            f"{work} has several videos named {min(repeated)}: films are matched with their truth by name, so score a run over "
            "the films of one set alone"
        )
    kept = {row.clip_id for row in rows(store, "select", records.Kept)}
    clips = {c.clip_id: c for c in rows(store, "segment", records.Clip)}
    elements = [
        _element(e, clips[e.clip_id], files)
        for stage in ("detect", "ground", "faces")
        for e in rows(store, stage, records.Element)
    ]
    matched = {m.element_id for m in rows(store, "match", records.Match)}
    owners = {t.element_id: t.parent_id for t in rows(store, "parse", records.ElementMeta)}
    samples_read = [_sample(clips, members) for members in tar_samples(shards)]
    targets = {name: mask for sample in samples_read for name, mask in sample.targets.items()}
    return Prediction(
        {i: _clip(c, files[c.video_id], i in kept) for i, c in clips.items()},
        {e.id: replace(e, best=targets.get(e.id, e.best)) for e in elements},
        samples_read,
        frozenset(matched),
        owners,
    )


def rows(store: Store, stage: str, record: type) -> Iterator:
    for shard in store.shards(stage):
        yield from store.read(stage, shard, record)


def tar_samples(shards: Path) -> Iterator[dict[str, bytes]]:
    """Yield the members of each sample of a shard folder, by extension, in the order of the index."""
    folder = Folder(shards)
    for row in packed_rows(folder):
        members = read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
        if sorted(members) != row.members:
            raise ValueError(f"{shards}/{row.shard} does not have the sample of the index at offset {row.offset}")
        yield members


def _clip(clip: records.Clip, file: str, kept: bool) -> Clip:
    shot = clip.shot, clip.shot_start, clip.shot_end, clip.transition_in
    return Clip(clip.clip_id, file, *shot, tuple(clip.source_frames), kept)


def _element(e: records.Element, clip: records.Clip, files: dict[str, str]) -> Element:
    best = SourceMask(files[clip.video_id], clip.source_frames[e.frame], e.mask, clip.crop)
    boxes = tuple(_in_source(box, clip.crop, clip.width, clip.height) for box in e.seen_boxes)
    frames = tuple(clip.source_frames[n] for n in e.seen_frames)
    return Element(e.element_id, e.clip_id, e.kind, e.parent_id, best, frames, boxes, tuple(e.embedding))


def _in_source(box: Box, crop: Box, width: int, height: int) -> Box:
    scale_x, scale_y = (crop[2] - crop[0]) / width, (crop[3] - crop[1]) / height
    return (
        crop[0] + box[0] * scale_x,
        crop[1] + box[1] * scale_y,
        crop[0] + box[2] * scale_x,
        crop[1] + box[3] * scale_y,
    )


def _sample(clips: dict[str, records.Clip], members: dict[str, bytes]) -> Sample:
    triplet = samples.from_sample(members)
    meta = triplet.facts
    if meta.clip_id not in clips:
        raise ValueError(
            f"the shards have the clip {meta.clip_id}, but the work folder does not: they belong to different runs"
        )
    element_of = {(g.start, g.end): g.element_id for g in meta.references if g.role in ("human", "object")}
    element_of |= {(u.start, u.end): u.element_id for u in meta.unpaired if u.kind in ("human", "object")}
    slots = tuple(
        Slot(s.phrase, s.start, s.end, element_of.get((s.start, s.end), "")) for s in meta.caption.subjects if s.phrase
    )
    environment = triplet.prompt[meta.caption.environment_start : meta.caption.environment_end]
    refs = tuple(_ref(reference_meta, triplet.pictures[reference_meta.name]) for reference_meta in meta.references)
    thumbs = np.stack([images.thumb(frame) for frame in video.decode(triplet.video)])
    digest = hashlib.sha256(b"".join(members[name] for name in sorted(members))).hexdigest()
    file = Path(meta.path).name
    targets = {
        reference.element_id: SourceMask(
            file, reference.target.source_frame, to_rle_bytes(reference.target.mask), meta.crop
        )
        for reference in cast(list[samples.ReferenceMeta | samples.Unpaired], [*meta.references, *meta.unpaired])
    }
    return Sample(
        meta.clip_id, triplet.prompt, slots, environment, refs, tuple(meta.source_frames), thumbs, digest, targets
    )


def _ref(reference: samples.ReferenceMeta, png: bytes) -> Ref:
    origin = reference.origin
    mask = to_rle_bytes(origin.mask)
    source_mask = SourceMask(Path(origin.path).name, origin.source_frame, mask, crop_of(origin))
    picture = images.from_png(png)
    outside_mask = ~images.from_rle(mask)
    is_background = reference.role == "background"
    if not is_background and picture.shape[:2] != outside_mask.shape:
        raise ValueError(f"{reference.element_id}: the reference's picture and its mask differ in size")
    white = 1.0 if is_background or not outside_mask.any() else float((picture[outside_mask] >= 250).all(-1).mean())
    return Ref(
        reference.role,
        reference.element_id,
        reference.identity,
        origin.element_id,
        origin.clip_id,
        source_mask,
        reference.phrase,
        reference.start,
        reference.end,
        white,
        picture if is_background else None,
        origin.box,
    )


def to_rle_bytes(mask: coco_rle.Rle) -> bytes:
    """Return a mask of the shards in the encoding of the tables."""
    return images.to_rle(coco_rle.decode(mask))


def crop_of(origin: samples.Origin) -> Box:
    """Return the part of the source picture that the clip's frame shows, derived from one box in both coordinates."""
    (x0, y0, x1, y1), (left, top, right, bottom) = origin.box, origin.source_box
    scale_x, scale_y = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
    corner = left - x0 * scale_x, top - y0 * scale_y
    return *corner, corner[0] + origin.width * scale_x, corner[1] + origin.height * scale_y


def count_identical(first: Prediction, second: Prediction) -> tuple[int, int]:
    """Return how many samples are byte-identical in two runs, and how many there are in either."""
    a, b = ({(s.clip, s.digest) for s in p.samples} for p in (first, second))
    return len(a & b), len({clip for clip, _ in a | b})


def read_provenance(shards: Path) -> dict:
    """Return profile, models and settings from the manifest of the shards."""
    path = shards / "manifest.json"
    return json.loads(path.read_text()).get("about", {}) if path.exists() else {}
