"""Clips cut again from their source by the provenance of a sample, or resampled from the mp4 of the shard."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import av

from a2data.dataset.triplet import TripletMeta
from a2data.media import video
from a2data.media.video import Frame, Opener
from pipelines.export.clock import Clock, ScaleAndCrop, num_ticks, scale_and_crop
from stages.segment import clock as pictures

PTS_TOLERANCE_S = 0.001  # containers round times to milliseconds
UNLIMITED_S = 1e6  # a frame may stand for the whole clip


@dataclass(frozen=True)
class CutPlan:
    """Length and size of an exported clip."""

    facts: TripletMeta
    count: int  # frames by the rule of the target
    frames: int  # with the margin
    fps: float
    width: int
    height: int

    @property
    def first(self) -> int:
        return self.facts.source_frames[0]

    @property
    def last(self) -> int:
        return self.facts.source_frames[-1]


def plan_from_source(meta: TripletMeta, clock: Clock, margin_frames: int) -> CutPlan:
    """Return the plan of a clip. Raises TooSmallError if the clock does not accept it.

    margin_frames: frames beyond the count, as far as the clip has them. Trainers that estimate the count of a file from its
    duration then do not reject it.
    """
    span_s = meta.source_pts_s[-1] - meta.source_pts_s[0]
    num_available = num_ticks(span_s, clock.fps)
    count = clock.count(num_available)
    x0, y0, x1, y1 = meta.crop
    width, height = clock.size(round(x1 - x0), round(y1 - y0))
    return CutPlan(meta, count, min(num_available, count + margin_frames), clock.fps, width, height)


def cut_from_source(
    path: str, opener: Opener | None, plans: Sequence[CutPlan], crf: int
) -> Iterator[tuple[CutPlan, bytes]]:
    """Yield each clip of one source as mp4 without sound, in the order of its frames. The source is decoded once.

    Raises OSError if the source is missing, ValueError if it cannot be decoded or is not the one that the sample names.
    """
    info = video.probe(path, opener=opener)
    frames = video.read(path, info.stream, opener=opener)
    last_frame = -1
    for plan in sorted(plans, key=lambda each: each.first):
        if plan.first <= last_frame:
            frames = video.read(path, info.stream, opener=opener)
        crop = scale_and_crop(info.width, info.height, plan.facts.crop, (plan.width, plan.height))
        clip_frames = _source_frames(frames, plan, path)
        yield plan, video.encode(_at_fps(clip_frames, plan, crop, info.rotation), plan.fps, crf)
        last_frame = plan.last


def cut_from_shard(mp4: bytes, plan: CutPlan, crf: int) -> bytes:
    """Return the clip made from the mp4 of its sample, whose frames are repeated or dropped to reach the target's rate."""
    meta = plan.facts
    crop = scale_and_crop(meta.width, meta.height, (0, 0, meta.width, meta.height), (plan.width, plan.height))
    with video.open_bytes(mp4) as container:
        stream = container.streams.video[0]
        frames = (Frame(n, n / meta.fps, picture) for n, picture in enumerate(container.decode(stream)))
        return video.encode(_at_fps(frames, plan, crop, 0), plan.fps, crf)


def plan_from_shard(meta: TripletMeta, clock: Clock, margin_frames: int) -> CutPlan:
    """Return the plan of a clip that is made from the mp4 of its sample. Raises TooSmallError."""
    num_available = num_ticks((meta.frames - 1) / meta.fps, clock.fps)
    count = clock.count(num_available)
    width, height = clock.size(meta.width, meta.height)
    return CutPlan(meta, count, min(num_available, count + margin_frames), clock.fps, width, height)


def _source_frames(frames: Iterator[Frame], plan: CutPlan, path: str) -> Iterator[Frame]:
    """Yield the source frames of a clip, none after its last. Raises ValueError if a time differs from the sample's."""
    times = dict(zip(plan.facts.source_frames, plan.facts.source_pts_s, strict=True))
    for frame in frames:
        if frame.index < plan.first:
            continue
        expected_s = times.get(frame.index)
        if expected_s is not None and abs(expected_s - frame.pts_s) > PTS_TOLERANCE_S:
            raise ValueError(
                f"{path} has frame {frame.index} at {frame.pts_s:.3f} s, the sample {plan.facts.clip_id} at {expected_s:.3f} s: "
                "it is another file than the one that was packed"
            )
        yield frame
        if frame.index >= plan.last:
            return
    raise ValueError(f"{path} ends before frame {plan.last}, the last of {plan.facts.clip_id}: is the file complete?")


def _at_fps(frames: Iterable[Frame], plan: CutPlan, crop: ScaleAndCrop, rotation: int) -> Iterator[av.VideoFrame]:
    """Yield the pictures of the exported clip: tick k shows the latest source frame due at k / fps, as `segment` does."""
    scale, remaining = pictures.Downscaler(*crop.whole, rotation), plan.frames
    for tick in pictures.resample_to_fps(frames, plan.fps, UNLIMITED_S):
        if tick.ticks:
            planes = pictures.crop(scale.planes(tick.frame.picture), crop.box)
            for _ in range(min(remaining, tick.ticks)):
                yield pictures.to_frame(planes)
            remaining -= tick.ticks
        if remaining <= 0:
            return
    raise ValueError(f"{plan.facts.clip_id} has {remaining} frames fewer than the {plan.frames} that its times promise")
