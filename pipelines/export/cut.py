"""Clips cut again from their source by the provenance of a sample, or resampled from the mp4 of the shard."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import av

from a2data.dataset.triplet import TripletMeta
from a2data.media import video
from a2data.media.video import Frame, Opener
from pipelines.export.clock import Clock, Fit, available, fit
from stages.segment import clock as pictures

PTS_TOLERANCE_S = 0.001  # containers round times to milliseconds
ANY_S = 1e6  # a frame may stand for the whole clip


@dataclass(frozen=True)
class Plan:
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


def plan(facts: TripletMeta, clock: Clock, margin_frames: int) -> Plan:
    """Return the plan of a clip. Raises TooSmallError if the clock does not accept it.

    margin_frames: frames beyond the count, as far as the clip has them. Trainers that estimate the count of a file from its
    duration then do not reject it.
    """
    span_s = facts.source_pts_s[-1] - facts.source_pts_s[0]
    found = available(span_s, clock.fps)
    count = clock.count(found)
    x0, y0, x1, y1 = facts.crop
    width, height = clock.size(round(x1 - x0), round(y1 - y0))
    return Plan(facts, count, min(found, count + margin_frames), clock.fps, width, height)


def from_source(path: str, opener: Opener | None, plans: Sequence[Plan], crf: int) -> Iterator[tuple[Plan, bytes]]:
    """Yield each clip of one source as mp4 without sound, in the order of its frames. The source is decoded once.

    Raises OSError if the source is missing, ValueError if it cannot be decoded or is not the one that the sample names.
    """
    facts = video.probe(path, opener=opener)
    frames = video.read(path, facts.stream, opener=opener)
    done = -1
    for wanted in sorted(plans, key=lambda each: each.first):
        if wanted.first <= done:
            frames = video.read(path, facts.stream, opener=opener)
        where = fit(facts.width, facts.height, wanted.facts.crop, (wanted.width, wanted.height))
        shown = _between(frames, wanted, path)
        yield wanted, video.encode(_at_fps(shown, wanted, where, facts.rotation), wanted.fps, crf)
        done = wanted.last


def from_shard(mp4: bytes, wanted: Plan, crf: int) -> bytes:
    """Return the clip made from the mp4 of its sample, whose frames are repeated or dropped to reach the target's rate."""
    facts = wanted.facts
    where = fit(facts.width, facts.height, (0, 0, facts.width, facts.height), (wanted.width, wanted.height))
    with video.open_bytes(mp4) as container:
        stream = container.streams.video[0]
        frames = (Frame(n, n / facts.fps, picture) for n, picture in enumerate(container.decode(stream)))
        return video.encode(_at_fps(frames, wanted, where, 0), wanted.fps, crf)


def shard_plan(facts: TripletMeta, clock: Clock, margin_frames: int) -> Plan:
    """Return the plan of a clip that is made from the mp4 of its sample. Raises TooSmallError."""
    found = available((facts.frames - 1) / facts.fps, clock.fps)
    count = clock.count(found)
    width, height = clock.size(facts.width, facts.height)
    return Plan(facts, count, min(found, count + margin_frames), clock.fps, width, height)


def _between(frames: Iterator[Frame], wanted: Plan, path: str) -> Iterator[Frame]:
    """Yield the source frames of a clip, none after its last. Raises ValueError if a time differs from the sample's."""
    times = dict(zip(wanted.facts.source_frames, wanted.facts.source_pts_s, strict=True))
    for frame in frames:
        if frame.index < wanted.first:
            continue
        known_s = times.get(frame.index)
        if known_s is not None and abs(known_s - frame.pts_s) > PTS_TOLERANCE_S:
            raise ValueError(
                f"{path} has frame {frame.index} at {frame.pts_s:.3f} s, the sample {wanted.facts.clip_id} at {known_s:.3f} s: "
                "it is another file than the one that was packed"
            )
        yield frame
        if frame.index >= wanted.last:
            return
    raise ValueError(
        f"{path} ends before frame {wanted.last}, the last of {wanted.facts.clip_id}: is the file complete?"
    )


def _at_fps(frames: Iterable[Frame], wanted: Plan, where: Fit, rotation: int) -> Iterator[av.VideoFrame]:
    """Yield the pictures of the exported clip: tick k shows the latest source frame due at k / fps, as `segment` does."""
    scale, left = pictures.Downscaler(*where.whole, rotation), wanted.frames
    for shown in pictures.resample_to_fps(frames, wanted.fps, ANY_S):
        if shown.ticks:
            planes = pictures.crop(scale.planes(shown.frame.picture), where.box)
            for _ in range(min(left, shown.ticks)):
                yield pictures.to_frame(planes)
            left -= shown.ticks
        if left <= 0:
            return
    raise ValueError(f"{wanted.facts.clip_id} has {left} frames fewer than the {wanted.frames} that its times promise")
