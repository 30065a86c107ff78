"""The stages of the profile "imported". Each has the name of the stage whose table it writes, so that what reads it works."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data import records
from a2data.elements import phrases
from a2data.media import coco_rle, images, sound, video
from a2data.media.images import Box
from a2data.records import (
    Clip,
    ClipThumbs,
    ClipTimes,
    ClipVideo,
    Element,
    EmbeddedElement,
    Kept,
    Reference,
    Reject,
    Rule,
    Source,
    Video,
)
from a2data.stage import Stage
from a2data.store.lookup import ELEMENT_TABLES
from a2data.store.source_files import SourceFile, open_in_place
from model_zoo import cards
from pipelines.imported.records import REFERENCE, TABLE, ImportedClip, Shown
from stages import ingest
from stages.retrieve import copies, corpus
from stages.retrieve.clusters import components
from stages.retrieve.pictures import Pictures
from stages.segment import clock
from stages.segment import stage as segment

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
STILL = "picture"  # codec of a source that is one picture
ANY = ingest.Ingest(min_short_side_px=1, min_duration_s=0.0, min_fps=0.0)  # what was published is not filtered here


def is_picture(path: str) -> bool:
    return path.lower().endswith(PICTURES)


def read_picture(path: str) -> np.ndarray:
    """Return a picture as (h, w, 3 or 4) uint8 RGB or RGBA. Raises ValueError if it cannot be read."""
    raw = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint8:
        raise ValueError(f"{path}: not a picture with 8 bits a channel")
    if raw.ndim == 2:
        return cv2.cvtColor(raw, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA if raw.shape[2] == 4 else cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Ingest(Stage):
    """Sources -> videos; a picture is a video of one frame."""

    reads = {"manifest": Source}
    writes = Video
    row_noun = "videos"
    per = "video"
    opens_sources = True
    accounts_for = "video_id"

    def run(
        self, model: None, manifest: list[Source], source_file: SourceFile = open_in_place
    ) -> Iterator[Video | Reject]:
        for source in manifest:
            if not is_picture(source.path):
                yield from ANY.run(None, [source], source_file)
                continue
            if ingest.has_changed(source):
                raise ValueError(f"{source.path} has changed since it was listed: import the set again")
            height, width = read_picture(source.path).shape[:2]
            about = (source.video_id, source.path, source.license, source.source, source.label)
            yield Video(*about, width, height, 0, 1.0, 0.0, STILL, 0, source.refused)


@dataclass(frozen=True)
class Segment(Stage):
    """Videos -> the clips that the data set names, frame by frame."""

    reads = {"ingest": Video, TABLE: ImportedClip}
    writes = ClipVideo
    row_noun = "clips"
    per = "video"
    opens_sources = True
    accounts_for = "video_id"
    version = 2

    max_short_side_px: int = 480
    """largest short side of a clip, pixels"""
    max_frames: int = 600
    """longest clip, frames; a longer one is rejected, since its frames are in memory at a time"""

    def run(
        self, model: None, videos: list[Video], asked: list[ImportedClip], source_file: SourceFile = open_in_place
    ) -> Iterator[ClipVideo | Reject]:
        (source,) = videos
        for clip in asked:
            wanted = range(clip.first, clip.end)
            if len(wanted) > self.max_frames:
                yield Reject(clip.clip_id, "too long", f"{len(wanted)} frames, max_frames = {self.max_frames}")
                continue
            frames = still(source) if source.codec == STILL else self.frames(source, source_file, wanted)
            made = self.clip(source, clip, frames)
            yield made if source.codec == STILL else with_sound(made, source, source_file)

    def frames(self, source: Video, source_file: SourceFile, wanted: range) -> Iterator[video.Frame]:
        opener = source_file(source.video_id, source.path)
        for frame in video.read(source.path, source.stream, opener=opener):
            if frame.index in wanted:
                yield frame
            if frame.index + 1 >= wanted.stop:
                return
        raise ValueError(f"{source.path} ends before frame {wanted.stop - 1}, which the data set names")

    def clip(self, source: Video, clip: ImportedClip, frames: Iterator[video.Frame]) -> ClipVideo:
        crop = clip.crop if any(clip.crop) else (0.0, 0.0, float(source.width), float(source.height))
        scale = min(1.0, self.max_short_side_px / min(crop[2] - crop[0], crop[3] - crop[1]))
        width, height = (max(2, round(side * scale / 2) * 2) for side in (source.width, source.height))
        shrink = clock.Downscaler(width, height, source.rotation)
        x0, x1 = (round(x / source.width * width / 2) * 2 for x in (crop[0], crop[2]))
        y0, y1 = (round(y / source.height * height / 2) * 2 for y in (crop[1], crop[3]))
        box = (x0, y0, x1, y1)
        ticks = [segment.Tick(f.index, f.pts_s, clock.crop(shrink.planes(f.picture), box)) for f in frames]
        fps = source.fps if len(ticks) > 1 else 1.0
        # a reference that is one picture is encoded almost without loss
        settings = segment.Segment(fps=fps, crop_letterbox=False, crf=18 if len(ticks) > 1 else 4)
        fields, mp4 = segment.make_clip(ticks, source, settings)
        fields |= {"clip_id": clip.clip_id, "crop": crop}
        return ClipVideo(**fields, shot=0, shot_start=clip.first, shot_end=clip.end, transition_in="start", video=mp4)


def with_sound(clip: ClipVideo, source: Video, source_file: SourceFile) -> ClipVideo:
    """Return the clip with the sound of its source at its time, if there is any."""
    rate_hz = segment.Segment().sound_hz
    with sound.reading(source.path, source_file(source.video_id, source.path), rate_hz) as track:
        if track is None:
            return clip
        heard = track.cut(clip.source_pts_s[0], len(clip.source_frames) / clip.fps)
    mp4 = clip.video if heard.samples is None else sound.with_sound(clip.video, heard.samples, rate_hz)
    return replace(clip, video=mp4, sound_problem=heard.problem)


def still(source: Video) -> Iterator[video.Frame]:
    """Yield the one frame of a picture, on white."""
    import av

    picture = read_picture(source.path)
    shown = images.on_white(picture) if picture.shape[2] == 4 else picture
    yield video.Frame(0, 0.0, av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24"))


@dataclass(frozen=True)
class Select(Stage):
    """Clips -> those with a prompt; the others only show references."""

    reads = {"segment": Clip, TABLE: ImportedClip}
    writes = Kept
    row_noun = "clips"
    accounts_for = "clip_id"

    def run(self, model: None, clips: list[Clip], asked: list[ImportedClip]) -> Iterator[Kept | Reject]:
        for clip in asked:
            if clip.purpose == REFERENCE:
                yield Reject(clip.clip_id, REFERENCE, "only shows references of other clips")
            elif not clip.prompt:
                yield Reject(clip.clip_id, "no prompt", "the data set has no caption for it")
            else:
                yield Kept(clip.clip_id, clip.video_id)


@dataclass(frozen=True)
class Elements(Stage):
    """Clips -> the elements of one table that the data set outlines."""

    reads = {"segment": ClipVideo, TABLE: ImportedClip}
    writes = Element
    row_noun = "elements"

    embedder: str = "mobilenetv2"
    """card of role embed"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return cards.gpus(self.embedder)

    def models(self) -> dict[str, str]:
        return {self.embedder: cards.revision(self.embedder)}

    def load(self) -> Any:
        return cards.load(self.embedder, cards.device())

    def run(self, embed: Any, films: list[ClipVideo], asked: list[ImportedClip]) -> Iterator[Element | Reject]:
        (film,) = films
        for shown in (each for clip in asked for each in clip.shown if each.kind in ELEMENT_TABLES[self.name()]):
            try:
                yield element(film, shown, embed, self.embedder)
            except ValueError as error:
                yield Reject(shown.element_id, "bad outline", str(error))


class Detect(Elements):
    """Clips -> the people and things that the data set outlines."""


class Faces(Elements):
    """Clips -> the faces that the data set outlines."""


class Parse(Elements):
    """Clips -> the garments that the data set outlines."""


class Background(Elements):
    """Clips -> the backgrounds that the data set names."""


class Ground(Elements):
    """Nothing: every outlined thing is in the table of detect."""

    def run(self, embed: Any, films: list[ClipVideo], asked: list[ImportedClip]) -> Iterator[Element | Reject]:
        return iter(())


def element(film: ClipVideo, shown: Shown, embed: Any, embedder: str) -> Element:
    """Return the row of an outlined element. Raises ValueError if its frame or its mask is outside the clip or empty."""
    if shown.source_frame not in film.source_frames:
        raise ValueError(f"frame {shown.source_frame} of the source is not in the clip")
    number = film.source_frames.index(shown.source_frame)
    frame = film.frames[number]
    mask = outline(shown, film)
    box = images.bounds(mask)
    cut = images.cut_out(frame, mask, box)
    png = images.to_png(cut)
    (vector,) = embed([frame], [mask])
    return Element(
        clip_id=film.clip_id, element_id=shown.element_id, kind=shown.kind, label=shown.label, parent_id="",
        frame=number, box=box, confidence=1.0, mask=images.to_rle(mask), image=png, image_sha256=images.sha16(png),
        embedding=vector.tolist(), embedder=embedder, quality=1.0, seen_frames=[number], seen_boxes=[box],
        attributes=[f"outline={'mask' if shown.mask.counts else 'box' if any(shown.box) else 'none'}"],
        stamp=images.stamp(cut),
    )  # fmt: skip


def outline(shown: Shown, film: ClipVideo) -> np.ndarray:
    """Return the mask of an element in its clip's frame, (h, w) bool. Raises ValueError if it is empty or of another size."""
    x0, y0, x1, y1 = film.crop
    across, down = film.width / (x1 - x0), film.height / (y1 - y0)
    size = (film.height, film.width)
    if shown.mask.counts:
        drawn = coco_rle.decode(shown.mask)
        if abs(drawn.shape[0] - (y1 - y0)) > 1 or abs(drawn.shape[1] - (x1 - x0)) > 1:
            raise ValueError(f"its mask is of {drawn.shape}, the picture of {(round(y1 - y0), round(x1 - x0))}")
        mask = cv2.resize(drawn.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    elif any(shown.box):
        box: Box = (shown.box[0] * across, shown.box[1] * down, shown.box[2] * across, shown.box[3] * down)
        if box[2] <= max(0.0, box[0]) or box[3] <= max(0.0, box[1]) or box[0] >= film.width or box[1] >= film.height:
            raise ValueError(f"its box {shown.box} is outside the picture")
        mask = np.zeros(size, bool)
        images.crop(mask, box)[:] = True
    else:
        mask = np.ones(size, bool)
    if not mask.any():
        raise ValueError("its mask is empty")
    return mask


@dataclass(frozen=True)
class Caption(Stage):
    """Clips -> the captions of the data set, with the phrases of its subjects."""

    reads = {"select": Kept, TABLE: ImportedClip}
    writes = records.Caption
    row_noun = "captions"
    accounts_for = "clip_id"

    def run(self, model: None, kept: list[Kept], asked: list[ImportedClip]) -> Iterator[records.Caption]:
        for clip in asked:
            subjects, place = [], (0, 0)
            kinds = {each.element_id: each.kind for each in clip.shown}
            for number, named in enumerate(clip.named):
                kind = kinds[named.element_id]
                if kind == "background":
                    place = named.start, named.end
                else:
                    about = ("Human" if kind == "human" else "Object", phrases.parse(named.phrase).noun, "", "", "", "")
                    subjects.append(records.Subject(*about, number == 0, named.phrase, named.start, named.end))
            yield records.Caption(clip.clip_id, clip.prompt, subjects, "", "", "", "", "", *place, "", [])


@dataclass(frozen=True)
class Match(Stage):
    """Clips -> the element of each phrase that the data set names."""

    reads = {"select": Kept, TABLE: ImportedClip}
    writes = records.Match
    row_noun = "phrases"

    def run(self, model: None, kept: list[Kept], asked: list[ImportedClip]) -> Iterator[records.Match]:
        for clip in asked:
            for named in clip.named:
                yield records.Match(
                    clip.clip_id, named.element_id, named.phrase, named.start, named.end, similarity=1.0, margin=1.0
                )


@dataclass(frozen=True)
class Retrieve(Stage):
    """Pairs of the data set -> references, measured as those of stages.retrieve are; none is rejected."""

    reads = {TABLE: ImportedClip, "ingest": Video, "segment": ClipTimes} | dict.fromkeys(
        ELEMENT_TABLES, EmbeddedElement
    )
    lookup_tables: ClassVar[dict[str, type]] = {"segment": ClipThumbs} | dict.fromkeys(ELEMENT_TABLES, Element)
    writes = Reference
    row_noun = "references"
    per = "all"
    unit_timeout_s = 86400.0

    def run(
        self, model: None, asked: pa.Table, videos: pa.Table, clips: pa.Table, *looks: pa.Table, lookup: Any
    ) -> Iterator[Reference | Reject]:
        known = corpus.assemble(looks)
        every = np.arange(len(known.elements))
        row_of = {element_id: row for row, element_id in enumerate(known.text("element_id", every))}
        footage = corpus.Footage(clips, lookup)
        clip_of = footage.rows(known.column("clip_id", every))
        pictures = Pictures(known, footage, clip_of, lookup)
        stills = set(videos.filter(pc.equal(videos["codec"], STILL))["video_id"].to_pylist())
        pairs: list[tuple[int, int]] = []
        for pair in (pair for pairs in asked["paired"].to_pylist() for pair in pairs):
            target, source = (row_of.get(pair[name], -1) for name in ("element_id", "source_element_id"))
            if min(target, source) < 0:
                lost = pair["element_id"] if target < 0 else pair["source_element_id"]
                yield Reject(pair["element_id"], "outline missing", f"{lost} was rejected, failed or forgotten")
                continue
            pairs.append((target, source))
        wanted = np.unique(np.array(pairs, np.int64))
        footage.spool(clip_of[wanted])
        pictures.spool(wanted)
        video_of = [footage.video_ids[code] for code in footage.video[clip_of]]
        links = [(video_of[row], n) for n, pair in enumerate(pairs) for row in pair]
        component_of = components(footage.video_ids, links)
        for target, source in pairs:
            made = reference(known, footage, pictures, target, source, video_of[source] in stills)
            yield replace(made, component=component_of[video_of[target]])


def reference(
    known: corpus.Corpus,
    footage: corpus.Footage,
    pictures: Pictures,
    target_row: int,
    source_row: int,
    still: bool,
) -> Reference:
    """Return the reference that a pair makes, with everything that is measured of it.

    still: whether its source is one picture, whose size and surroundings tell nothing, so that they do not lower the risk.
    """
    target, source = known.elements[target_row], known.elements[source_row]
    rows = np.array([target_row, source_row])
    here, there = clips = pictures.clips[rows]
    footage.read(clips)
    pictures.read(rows)
    shown = float(copies.picture_distances(footage.thumbs[there].take([source.frame]), [footage.thumbs[here]])[0, 0])
    gap_s = float(footage.overlap_and_gap_s(clips[:1], clips[1:])[1][0])
    vectors = known.vector(target_row), known.vector(source_row)
    similarity = round(float(vectors[0] @ vectors[1]), 5) if vectors[0] is not None and vectors[1] is not None else -1.0
    key = (target.clip_id, target.element_id, target.kind)
    first = Reference(
        *key, -1, int(known.shards[source_row]), source.clip_id, source.element_id, source.image_sha256, similarity,
        copy_risk=1.0, rules=[], thumbnail_distance=shown, gap_s=gap_s,
    )  # fmt: skip
    pixels, pose, scale, light, place = pictures.compare(rows[:1], rows[1:])[0].tolist()
    parts = copies.CopyDistances(shown, pixels, pose, scale, light, place, gap_s)
    counted = parts._replace(scale=0.0, place=0.0) if still else parts
    risk = 1.0 if parts.frames < copies.COPY else float(copies.copy_risk(counted))
    return replace(
        first,
        copy_risk=risk,
        rules=[Rule("similarity", similarity, -inf, inf), Rule("copy_risk", risk, -inf, inf)],
        pixel_distance=parts.pixels,
        silhouette_distance=parts.pose,
        log2_scale_ratio=-1.0 if still else parts.scale,
        luma_difference=parts.light,
        background_distance=-1.0 if still else parts.place,
    )
