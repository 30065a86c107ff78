"""The stages of the profile "imported". Each has the name of the stage whose table it writes, so that its readers work."""

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
from pipelines.imported.records import REFERENCE, TABLE, ImportedClip, ImportedElement
from stages import ingest
from stages.retrieve import copies, corpus
from stages.retrieve.clusters import components
from stages.retrieve.pictures import Pictures
from stages.segment import clock
from stages.segment import stage as segment

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PICTURE_CODEC = "picture"  # codec of a source that is one picture
# published data sets are not filtered again
UNFILTERED_INGEST = ingest.Ingest(min_short_side_px=1, min_duration_s=0.0, min_fps=0.0)


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
                yield from UNFILTERED_INGEST.run(None, [source], source_file)
                continue
            if ingest.has_changed(source):
                raise ValueError(f"{source.path} has changed since it was listed: import the set again")
            height, width = read_picture(source.path).shape[:2]
            fields = (source.video_id, source.path, source.license, source.source, source.label)
            yield Video(*fields, width, height, 0, 1.0, 0.0, PICTURE_CODEC, 0, source.refused)


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
        self, model: None, videos: list[Video], imported: list[ImportedClip], source_file: SourceFile = open_in_place
    ) -> Iterator[ClipVideo | Reject]:
        (source,) = videos
        for clip in imported:
            frame_range = range(clip.first, clip.end)
            if len(frame_range) > self.max_frames:
                yield Reject(clip.clip_id, "too long", f"{len(frame_range)} frames, max_frames = {self.max_frames}")
                continue
            frames = (
                picture_frame(source)
                if source.codec == PICTURE_CODEC
                else self.frames(source, source_file, frame_range)
            )
            segmented = self.clip(source, clip, frames)
            yield segmented if source.codec == PICTURE_CODEC else add_sound(segmented, source, source_file)

    def frames(self, source: Video, source_file: SourceFile, frame_range: range) -> Iterator[video.Frame]:
        opener = source_file(source.video_id, source.path)
        for frame in video.read(source.path, source.stream, opener=opener):
            if frame.index in frame_range:
                yield frame
            if frame.index + 1 >= frame_range.stop:
                return
        raise ValueError(f"{source.path} ends before frame {frame_range.stop - 1}, which the data set names")

    def clip(self, source: Video, clip: ImportedClip, frames: Iterator[video.Frame]) -> ClipVideo:
        crop = clip.crop if any(clip.crop) else (0.0, 0.0, float(source.width), float(source.height))
        scale = min(1.0, self.max_short_side_px / min(crop[2] - crop[0], crop[3] - crop[1]))
        width, height = (max(2, round(side * scale / 2) * 2) for side in (source.width, source.height))
        downscaler = clock.Downscaler(width, height, source.rotation)
        x0, x1 = (round(x / source.width * width / 2) * 2 for x in (crop[0], crop[2]))
        y0, y1 = (round(y / source.height * height / 2) * 2 for y in (crop[1], crop[3]))
        box = (x0, y0, x1, y1)
        ticks = [segment.Tick(f.index, f.pts_s, clock.crop(downscaler.planes(f.picture), box)) for f in frames]
        fps = source.fps if len(ticks) > 1 else 1.0
        # a reference that is one picture is encoded almost without loss
        settings = segment.Segment(fps=fps, crop_letterbox=False, crf=18 if len(ticks) > 1 else 4)
        fields, mp4 = segment.make_clip(ticks, source, settings)
        fields |= {"clip_id": clip.clip_id, "crop": crop}
        return ClipVideo(**fields, shot=0, shot_start=clip.first, shot_end=clip.end, transition_in="start", video=mp4)


def add_sound(clip: ClipVideo, source: Video, source_file: SourceFile) -> ClipVideo:
    """Return the clip with the sound of its source at its time, if there is any."""
    rate_hz = segment.Segment().sound_hz
    with sound.reading(source.path, source_file(source.video_id, source.path), rate_hz) as track:
        if track is None:
            return clip
        cut = track.cut(clip.source_pts_s[0], len(clip.source_frames) / clip.fps)
    mp4 = clip.video if cut.samples is None else sound.with_sound(clip.video, cut.samples, rate_hz)
    return replace(clip, video=mp4, sound_problem=cut.problem)


def picture_frame(source: Video) -> Iterator[video.Frame]:
    """Yield the one frame of a picture, on white."""
    import av

    picture = read_picture(source.path)
    opaque = images.on_white(picture) if picture.shape[2] == 4 else picture
    yield video.Frame(0, 0.0, av.VideoFrame.from_ndarray(np.ascontiguousarray(opaque), format="rgb24"))


@dataclass(frozen=True)
class Select(Stage):
    """Clips -> those with a prompt; the others only show references."""

    reads = {"segment": Clip, TABLE: ImportedClip}
    writes = Kept
    row_noun = "clips"
    accounts_for = "clip_id"

    def run(self, model: None, clips: list[Clip], imported: list[ImportedClip]) -> Iterator[Kept | Reject]:
        for clip in imported:
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

    def run(self, embed: Any, videos: list[ClipVideo], imported: list[ImportedClip]) -> Iterator[Element | Reject]:
        (film,) = videos
        for outlined in (each for clip in imported for each in clip.shown if each.kind in ELEMENT_TABLES[self.name()]):
            try:
                yield element(film, outlined, embed, self.embedder)
            except ValueError as error:
                yield Reject(outlined.element_id, "bad outline", str(error))


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

    def run(self, embed: Any, videos: list[ClipVideo], imported: list[ImportedClip]) -> Iterator[Element | Reject]:
        return iter(())


def element(clip: ClipVideo, outlined: ImportedElement, embed: Any, embedder: str) -> Element:
    """Return the row of an outlined element. Raises ValueError if its frame or its mask is outside the clip or empty."""
    if outlined.source_frame not in clip.source_frames:
        raise ValueError(f"frame {outlined.source_frame} of the source is not in the clip")
    frame_number = clip.source_frames.index(outlined.source_frame)
    frame = clip.frames[frame_number]
    mask = element_mask(outlined, clip)
    box = images.bounds(mask)
    cut_out = images.cut_out(frame, mask, box)
    png = images.to_png(cut_out)
    (vector,) = embed([frame], [mask])
    return Element(
        clip_id=clip.clip_id, element_id=outlined.element_id, kind=outlined.kind, label=outlined.label, parent_id="",
        frame=frame_number, box=box, confidence=1.0, mask=images.to_rle(mask), image=png, image_sha256=images.sha16(png),
        embedding=vector.tolist(), embedder=embedder, quality=1.0, seen_frames=[frame_number], seen_boxes=[box],
        attributes=[f"outline={'mask' if outlined.mask.counts else 'box' if any(outlined.box) else 'none'}"],
        stamp=images.stamp(cut_out),
    )  # fmt: skip


def element_mask(outlined: ImportedElement, clip: ClipVideo) -> np.ndarray:
    """Return the mask of an element in its clip's frame, (h, w) bool. Raises ValueError if it is empty or of another size."""
    x0, y0, x1, y1 = clip.crop
    scale_x, scale_y = clip.width / (x1 - x0), clip.height / (y1 - y0)
    size = (clip.height, clip.width)
    if outlined.mask.counts:
        decoded = coco_rle.decode(outlined.mask)
        if abs(decoded.shape[0] - (y1 - y0)) > 1 or abs(decoded.shape[1] - (x1 - x0)) > 1:
            raise ValueError(f"its mask is of {decoded.shape}, the picture of {(round(y1 - y0), round(x1 - x0))}")
        mask = cv2.resize(decoded.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    elif any(outlined.box):
        box: Box = (
            outlined.box[0] * scale_x,
            outlined.box[1] * scale_y,
            outlined.box[2] * scale_x,
            outlined.box[3] * scale_y,
        )
        if box[2] <= max(0.0, box[0]) or box[3] <= max(0.0, box[1]) or box[0] >= clip.width or box[1] >= clip.height:
            raise ValueError(f"its box {outlined.box} is outside the picture")
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

    def run(self, model: None, kept: list[Kept], imported: list[ImportedClip]) -> Iterator[records.Caption]:
        for clip in imported:
            subjects, background_span = [], (0, 0)
            kinds = {each.element_id: each.kind for each in clip.shown}
            for number, phrase in enumerate(clip.named):
                kind = kinds[phrase.element_id]
                if kind == "background":
                    background_span = phrase.start, phrase.end
                else:
                    subject_type, noun = "Human" if kind == "human" else "Object", phrases.parse(phrase.phrase).noun
                    span = (phrase.phrase, phrase.start, phrase.end)
                    subjects.append(records.Subject(subject_type, noun, "", "", "", "", number == 0, *span))
            yield records.Caption(clip.clip_id, clip.prompt, subjects, "", "", "", "", "", *background_span, "", [])


@dataclass(frozen=True)
class Match(Stage):
    """Clips -> the element of each phrase that the data set names."""

    reads = {"select": Kept, TABLE: ImportedClip}
    writes = records.Match
    row_noun = "phrases"

    def run(self, model: None, kept: list[Kept], imported: list[ImportedClip]) -> Iterator[records.Match]:
        for clip in imported:
            for phrase in clip.named:
                yield records.Match(
                    clip.clip_id, phrase.element_id, phrase.phrase, phrase.start, phrase.end, similarity=1.0, margin=1.0
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
        self, model: None, imported: pa.Table, videos: pa.Table, clips: pa.Table, *element_tables: pa.Table, lookup: Any
    ) -> Iterator[Reference | Reject]:
        corpus_ = corpus.assemble(element_tables)
        all_rows = np.arange(len(corpus_.elements))
        row_of = {element_id: row for row, element_id in enumerate(corpus_.text("element_id", all_rows))}
        footage = corpus.Footage(clips, lookup)
        clip_of = footage.rows(corpus_.column("clip_id", all_rows))
        pictures = Pictures(corpus_, footage, clip_of, lookup)
        stills = set(videos.filter(pc.equal(videos["codec"], PICTURE_CODEC))["video_id"].to_pylist())
        pairs: list[tuple[int, int]] = []
        for pair in (pair for pairs in imported["paired"].to_pylist() for pair in pairs):
            target, source = (row_of.get(pair[name], -1) for name in ("element_id", "source_element_id"))
            if min(target, source) < 0:
                missing = pair["element_id"] if target < 0 else pair["source_element_id"]
                yield Reject(pair["element_id"], "outline missing", f"{missing} was rejected, failed or forgotten")
                continue
            pairs.append((target, source))
        used_rows = np.unique(np.array(pairs, np.int64))
        footage.spool(clip_of[used_rows])
        pictures.spool(used_rows)
        video_of = [footage.video_ids[code] for code in footage.video[clip_of]]
        component_links = [(video_of[row], n) for n, pair in enumerate(pairs) for row in pair]
        component_of = components(footage.video_ids, component_links)
        for target, source in pairs:
            result = reference(corpus_, footage, pictures, target, source, video_of[source] in stills)
            yield replace(result, component=component_of[video_of[target]])


def reference(
    corpus_: corpus.Corpus,
    footage: corpus.Footage,
    pictures: Pictures,
    target_row: int,
    source_row: int,
    still: bool,
) -> Reference:
    """Return the reference of a pair, with all its measurements.

    still: whether its source is one picture, whose size and surroundings carry no information and must not lower the risk.
    """
    target, source = corpus_.elements[target_row], corpus_.elements[source_row]
    rows = np.array([target_row, source_row])
    target_clip, source_clip = clips = pictures.clips[rows]
    footage.read(clips)
    pictures.read(rows)
    thumbnail_distance = float(
        copies.picture_distances(footage.thumbs[source_clip].take([source.frame]), [footage.thumbs[target_clip]])[0, 0]
    )
    gap_s = float(footage.overlap_and_gap_s(clips[:1], clips[1:])[1][0])
    vectors = corpus_.vector(target_row), corpus_.vector(source_row)
    similarity = round(float(vectors[0] @ vectors[1]), 5) if vectors[0] is not None and vectors[1] is not None else -1.0
    key = (target.clip_id, target.element_id, target.kind)
    unrated = Reference(
        *key, -1, int(corpus_.shards[source_row]), source.clip_id, source.element_id, source.image_sha256, similarity,
        copy_risk=1.0, rules=[], thumbnail_distance=thumbnail_distance, gap_s=gap_s,
    )  # fmt: skip
    pixels, pose, scale, light, place = pictures.compare(rows[:1], rows[1:])[0].tolist()
    distances = copies.CopyDistances(thumbnail_distance, pixels, pose, scale, light, place, gap_s)
    rated = distances._replace(scale=0.0, place=0.0) if still else distances
    risk = 1.0 if distances.frames < copies.COPY else float(copies.copy_risk(rated))
    return replace(
        unrated,
        copy_risk=risk,
        rules=[Rule("similarity", similarity, -inf, inf), Rule("copy_risk", risk, -inf, inf)],
        pixel_distance=distances.pixels,
        silhouette_distance=distances.pose,
        log2_scale_ratio=-1.0 if still else distances.scale,
        luma_difference=distances.light,
        background_distance=-1.0 if still else distances.place,
    )
