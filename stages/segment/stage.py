"""Videos -> clips: one decode detects the shots, measures every frame, and cuts, scales and encodes the clips."""

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from a2data.media import images, sound, video
from a2data.media.decode_limits import Limits
from a2data.media.video import Opener
from a2data.records import ClipVideo, Reject, Video
from a2data.stage import Stage
from a2data.store.source_files import SourceFile, in_place
from model_zoo import cards
from model_zoo.shots import detector as shots
from model_zoo.shots import transnet
from stages.segment import clock


class Tick(NamedTuple):
    """One tick of the clip clock: the frame that is on screen."""

    source_frame: int
    pts_s: float
    due_s: float  # presentation time of the tick, at which the frame is at least as old
    planes: clock.Planes


@dataclass(frozen=True)
class Segment(Stage):
    """Videos -> clips, each within one shot and without transitions.

    The whole video is resampled to one clock (see stages.segment.clock.resample_to_fps), so the frames that a clip may need are
    known when they are decoded. Only those are scaled and kept, until the shot detectors have judged them.
    """

    reads = {"ingest": Video}
    writes = ClipVideo
    row_noun = "clips"
    per = "video"
    opens_sources = True
    accounts_for = "video_id"
    version = 5
    uncached_fields = ("max_side_px", "max_source_frames", "max_decoder_bytes")

    fps: float = 15.0
    """frames per second of the clips"""
    max_frames: int = 81
    """longest clip, frames"""
    min_clip_s: float = 1.0
    """shortest clip, seconds; shorter shots, and shorter remainders of long shots, are dropped"""
    max_short_side_px: int = 480
    """largest short side of a clip, pixels"""
    margin_frames: int = 4
    """source frames dropped next to a fade or dissolve, whose ends are faint; 1 next to a wipe"""
    max_frozen_s: float = 1.0
    """longest frozen picture, seconds; a longer one ends the shot"""
    crop_letterbox: bool = True
    """remove letterbox and pillarbox bars"""
    crf: int = 18
    """x264 quality, 0 (lossless) to 51"""
    sound_hz: int = 48_000
    """sample rate of the clips' sound, stereo; 0 = clips without sound"""
    decoder: str = "pyav"
    """"pyav" or "decord"; decord supports no AV1, MPEG-TS or rotated video"""
    shot_model: str = "transnetv2"
    """card of the shot network; "" = none"""
    cut_threshold: float = 0.4
    """network score of a cut, 0 to 1"""
    gradual_threshold: float = 0.3
    """network score of a frame within a fade or dissolve, 0 to 1"""
    adaptive_threshold: float = 3.5
    """least ratio of a cut's change to the changes around it"""
    min_content_val: float = 12.0
    """least mean change in HSV of a cut, 0 to 255"""

    # Decoding limits, whatever the container claims; a video beyond one of them fails. They are not part of the resume key: after
    # raising one, `a2data retry` processes those videos again.
    max_side_px: int = 8192
    """longest side of a frame as coded, pixels"""
    max_source_frames: int = 5_000_000
    """most source frames of a video"""
    max_decoder_bytes: int = 1_500_000_000
    """memory that decoding may add to the worker's own, bytes; Linux only"""

    def models(self) -> dict[str, str]:
        return {self.shot_model: cards.revision(self.shot_model)} if self.shot_model else {}

    def margin(self, kind: str) -> int:
        """Return the number of source frames dropped on either side of a transition of that kind."""
        faint = {"fade": self.margin_frames, "dissolve": self.margin_frames}
        return faint.get(kind, min(1, self.margin_frames) if kind == "wipe" else 0)

    def load(self) -> transnet.Network | None:
        video.check_backend(self.decoder)
        return cards.load(self.shot_model, cards.device()) if self.shot_model else None

    def run(
        self, network: transnet.Network | None, videos: list[Video], source_file: SourceFile = in_place
    ) -> Iterator[ClipVideo | Reject]:
        for source in videos:
            for made in self.clips(network, source, source_file):
                yield drop_excluded_frames(made, source)

    def clips(
        self, network: transnet.Network | None, source: Video, source_file: SourceFile = in_place
    ) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of one video, in order. Memory does not grow with the video's length."""
        opener = source_file(source.video_id, source.path)
        width, height = clock.fit(source.width, source.height, self.max_short_side_px)
        shrink = clock.Downscaler(width, height, source.rotation)
        detector = shots.ShotDetector(
            network, self.cut_threshold, self.gradual_threshold, self.adaptive_threshold, self.min_content_val
        )
        limits = Limits(
            max_side_px=self.max_side_px,
            max_frames=self.max_source_frames,
            max_decoder_bytes=self.max_decoder_bytes,
        )
        with tempfile.TemporaryFile() as spool, self.sound_of(source, opener, limits) as track:
            reel = ShotBuffer(self, source, spool, track)
            for shown in clock.resample_to_fps(
                video.read(source.path, source.stream, self.decoder, limits, opener), self.fps, self.max_frozen_s
            ):
                frame = shown.frame
                if shown.ticks:
                    planes = shrink.planes(frame.picture)
                    due = (shown.start_s + n / self.fps for n in range(shown.ticks))
                    reel.ticks.extend(Tick(frame.index, frame.pts_s, due_s, planes) for due_s in due)
                tiny = shrink.tiny(frame.picture, transnet.WIDTH, transnet.HEIGHT)
                for transition in detector.add(tiny, cut=shown.after_gap):
                    yield from reel.close(transition)
                reel.advance(detector.settled, detector.judged)
            for transition in detector.finish():
                yield from reel.close(transition)
            yield from reel.close(shots.Transition("end", detector.settled, detector.settled))
            if not reel.shot:
                yield no_shot(source, detector.count, detector.blank)

    def sound_of(
        self, source: Video, opener: Opener | None, limits: Limits
    ) -> AbstractContextManager[sound.Track | None]:
        """Return the sound of a video; None if it has none or clips are to have none."""
        return sound.reading(source.path, opener, self.sound_hz, limits) if self.sound_hz else nullcontext()


@dataclass
class ShotBuffer:
    """The shot being decoded: ticks that will become clips, and clips that wait for the shot's end.

    A clip records the end of its shot, which may be far away: its bytes wait in a spool file, not in memory.
    """

    settings: Segment
    source: Video
    spool: Any  # a temporary file
    track: sound.Track | None = None
    ticks: deque[Tick] = field(default_factory=deque)
    waiting: list[tuple[dict[str, Any], int]] = field(default_factory=list)  # fields of a clip, length of its bytes
    shot: int = 0
    start: int = 0
    transition_in: str = "start"

    def advance(self, settled: int, judged: int) -> None:
        """Make clips of the frames before `settled`; frames from there to `judged` are in a transition and are dropped."""
        self._drop_before(self.start + self.settings.margin(self.transition_in))
        ready = settled - self.settings.margin_frames
        while self._count(ready) >= self.settings.max_frames:
            self._clip(self.settings.max_frames)
        if settled < judged:
            self.ticks = deque(t for t in self.ticks if not settled <= t.source_frame < judged)

    def close(self, transition: shots.Transition) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of the shot that a transition ends; a Reject if there are none."""
        self._drop_before(self.start + self.settings.margin(self.transition_in))
        # the next shot starts right after a fade-out
        fades_out = transition.kind == "cut" and transition.start < transition.end
        last = transition.start - self.settings.margin("fade" if fades_out else transition.kind)
        while (
            count := min(self._count(last), self.settings.max_frames)
        ) >= self.settings.min_clip_s * self.settings.fps:
            self._clip(count)
        if transition.start > self.start:
            yield from self._finished(transition.start)
            self.shot += 1
        self._drop_before(transition.end)
        self.start, self.transition_in = transition.end, transition.kind

    def _count(self, end: int) -> int:
        return sum(tick.source_frame < end for tick in self.ticks)

    def _drop_before(self, frame: int) -> None:
        while self.ticks and self.ticks[0].source_frame < frame:
            self.ticks.popleft()

    def _clip(self, count: int) -> None:
        ticks = [self.ticks.popleft() for _ in range(count)]
        fields, data = make_clip(ticks, self.source, self.settings)
        if self.track:
            heard = self.track.cut(ticks[0].due_s, count / self.settings.fps)
            fields["sound_problem"] = heard.problem
            if heard.samples is not None:
                data = sound.with_sound(data, heard.samples, self.track.rate_hz)
        self.spool.write(data)
        self.waiting.append((fields, len(data)))

    def _finished(self, end: int) -> Iterator[ClipVideo | Reject]:
        if not self.waiting:
            shortest = f"{self.settings.min_clip_s:g} s"
            length = f"frames {self.start} to {end} of the source have less than {shortest} outside transitions"
            yield Reject(f"{self.source.video_id}-{self.start:08d}", "shot too short", length)
        self.spool.seek(0)
        for fields, size in self.waiting:
            yield ClipVideo(
                **fields,
                shot=self.shot,
                shot_start=self.start,
                shot_end=end,
                transition_in=self.transition_in,
                video=self.spool.read(size),
            )
        self.waiting.clear()
        self.spool.seek(0)
        self.spool.truncate()


def no_shot(source: Video, frames: int, blank: int) -> Reject:
    """Return the rejection of a video without a shot; blank: number of frames that are black or white."""
    if blank == frames:
        detail = f"black or white throughout: all {frames} frames are blank"
    else:
        detail = (
            f"only transitions: {blank} of {frames} frames are black or white, the others in a fade, dissolve or wipe"
        )
    return Reject(source.video_id, "no shot", detail)


def drop_excluded_frames(made: ClipVideo | Reject, source: Video) -> ClipVideo | Reject:
    """Return the clip, or its rejection if it shows source frames that were forgotten."""
    if isinstance(made, ClipVideo) and source.refused:
        for span in source.refused.split(","):
            first, end = map(int, span.split("-"))
            if made.source_frames[0] < end and first <= made.source_frames[-1]:
                return Reject(made.clip_id, "forgotten", f"source frames {first} to {end} were forgotten")
    return made


def make_clip(ticks: list[Tick], source: Video, settings: Segment) -> tuple[dict[str, Any], bytes]:
    """Return the fields of a clip that do not depend on the rest of its shot, and its mp4 without sound."""
    height, width = ticks[0].planes.y.shape
    box = (0, 0, width, height)
    if settings.crop_letterbox:
        box = clock.without_bars([tick.planes.y for tick in ticks[:: max(1, len(ticks) // 10)]])
    pictures = [clock.cut(tick.planes, box) for tick in ticks]
    greys = [clock.grey(picture) for picture in pictures]
    x_scale, y_scale = source.width / width, source.height / height
    x0, y0, x1, y1 = box
    fields = {
        "clip_id": f"{source.video_id}-{ticks[0].source_frame:08d}",
        "video_id": source.video_id,
        "fps": settings.fps,
        "width": x1 - x0,
        "height": y1 - y0,
        "source_frames": [tick.source_frame for tick in ticks],
        "source_pts_s": [tick.pts_s for tick in ticks],
        "crop": (x0 * x_scale, y0 * y_scale, x1 * x_scale, y1 * y_scale),
        "bars": 1 - (x1 - x0) * (y1 - y0) / (width * height),
        "luma": [clock.luma(grey) for grey in greys],
        "sharpness": [clock.sharpness(grey) for grey in greys],
        "motion": [0.0] + [clock.motion(a, b) for a, b in pairwise(greys)],
        "thumbnails": np.stack([images.thumb(grey) for grey in greys]).tobytes(),
    }
    return fields, video.encode([clock.to_frame(picture) for picture in pictures], settings.fps, crf=settings.crf)
