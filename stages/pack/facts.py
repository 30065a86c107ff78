"""The JSON of a triplet: caption, references, their boxes, and their sources."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.media import coco_rle, images
from a2data.media.images import Box
from a2data.records import Caption, Clip, ClipVideo, Element, ElementMeta, Match, Packed, Reference, Sound, Video
from a2data.store.lookup import element_row
from a2data.store.url import public_name

Lookup = Callable[..., dict[str, Any]]  # a2data.store.lookup.Lookup


def fetch_reference(reference: Reference, lookup: Lookup) -> tuple[Element, Clip, samples.Origin]:
    """Return a reference's element, its clip and its origin. Raises ValueError if it is missing or its picture changed."""
    shard, source = reference.source_shard, reference.source_element_id
    element = element_row(lookup, reference.kind, shard, source)
    if element is None or element.image_sha256 != reference.image_sha256:
        raise ValueError(f"{source} changed after {reference.element_id} was paired with it: run retrieve again")
    clip = lookup("segment", shard, "clip_id", [element.clip_id], Clip)[element.clip_id]
    video = lookup("ingest", shard, "video_id", [clip.video_id])[clip.video_id]
    origin = samples.Origin(
        video_id=video.video_id,
        path=public_name(video.path),
        license=video.license,
        source=video.source,
        clip_id=clip.clip_id,
        element_id=element.element_id,
        parent_id=element.parent_id,
        label=element.label,
        attributes=element.attributes,
        frame=element.frame,
        source_frame=clip.source_frames[element.frame],
        pts_s=clip.source_pts_s[element.frame],
        box=element.box,
        source_box=in_source(element.box, clip),
        width=clip.width,
        height=clip.height,
        mask=coco_rle.encode(images.from_rle(element.mask)),
        score=element.confidence,
        quality=element.quality,
        embedder=element.embedder,
        image_sha256=element.image_sha256,
    )
    return element, clip, origin


@dataclass(frozen=True)
class _ElementBox:  # columns of Element with frame and box
    element_id: str
    frame: int
    box: Box
    mask: bytes


def locate(trait: ElementMeta, clip: Clip, shard: int, lookup: Lookup) -> samples.Location:
    """Return the frame and box of an element of this shard in its clip."""
    seen = element_row(lookup, trait.kind, shard, trait.element_id, _ElementBox)
    source_frame, mask = clip.source_frames[seen.frame], coco_rle.encode(images.from_rle(seen.mask))
    return samples.Location(seen.frame, source_frame, seen.box, in_source(seen.box, clip), mask)


def in_source(box: Box, clip: Clip) -> Box:
    """Return a box of the clip's frame in pixels of the source picture, of which the clip shows the part `crop`, scaled."""
    x0, y0, x1, y1 = clip.crop
    across, down = (x1 - x0) / clip.width, (y1 - y0) / clip.height
    return x0 + box[0] * across, y0 + box[1] * down, x0 + box[2] * across, y0 + box[3] * down


def reference_meta(
    name: str, reference: Reference, match: Match | None, origin: samples.Origin, target: samples.Location
) -> samples.ReferenceMeta:
    phrase, start, end = (match.phrase, match.start, match.end) if match else ("", 0, 0)
    return samples.ReferenceMeta(
        name=name,
        role=reference.kind,
        phrase=phrase,
        start=start,
        end=end,
        element_id=reference.element_id,
        identity=reference.identity,
        similarity=reference.similarity,
        copy_risk=reference.copy_risk,
        same_clip=reference.clip_id == reference.source_clip_id,
        rules=reference.rules,
        origin=origin,
        target=target,
    )


def build_meta(
    film: ClipVideo,
    video: Video,
    caption: Caption,
    references: list[samples.ReferenceMeta],
    unpaired: list[samples.Unpaired],
    made_by: list[str],
    sound: Sound,
) -> samples.TripletMeta:
    return samples.TripletMeta(
        clip_id=film.clip_id,
        video_id=film.video_id,
        path=public_name(video.path),
        license=video.license,
        source=video.source,
        label=video.label,
        shot=film.shot,
        frames=len(film.source_frames),
        fps=film.fps,
        width=film.width,
        height=film.height,
        crop=film.crop,
        source_frames=film.source_frames,
        source_pts_s=film.source_pts_s,
        caption=caption,
        references=references,
        unpaired=unpaired,
        made_by=made_by,
        sound=sound,
        captions=samples.caption_variants(caption),
    )


def to_row(written: writer.WrittenSample, facts: samples.TripletMeta, split: str = "", component: str = "") -> Packed:
    """Return the row of one sample.

    Its licence joins those of the clip and of every reference, since each applies to a part of the sample.
    """
    return Packed(
        clip_id=written.key,
        shard=written.shard,
        shard_sha256=written.shard_sha256,
        offset=written.offset,
        bytes=written.bytes,
        members=written.members,
        frames=facts.frames,
        height=facts.height,
        width=facts.width,
        fps=facts.fps,
        roles=[reference.role for reference in facts.references],
        license=" AND ".join(sorted({facts.license, *(reference.origin.license for reference in facts.references)})),
        copy_risk=max(reference.copy_risk for reference in facts.references),
        split=split,
        component=component,
    )
