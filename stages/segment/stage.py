"""Videos -> clips: one decode detects the shots, measures every frame, and cuts, scales and encodes the clips."""

import logging
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from a2data.media import images, sound, video
from a2data.media.decode_limits import Limits
from a2data.media.key_frames import FrameIndex, frame_index
from a2data.records import ClipVideo, Reject, Video
from a2data.stage import Stage
from a2data.store.partial import PartialResult
from a2data.store.source_files import SourceFile, open_in_place
from a2data.task_map import TaskMap, map_serial
from model_zoo import cards
from model_zoo.shots import detector as shots
from model_zoo.shots import transnet
from stages.segment import clock, pieces

log = logging.getLogger("a2data")


@lru_cache(maxsize=1)
def _network(name: str, device: str) -> transnet.Network:
    """Load a shot network once for the pieces that one process works on."""
    return cards.load(name, device)  # type: ignore[no-any-return]


class Tick(NamedTuple):
    """One tick of the clip clock: the frame that is on screen."""

    source_frame: int
    pts_s: float
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
    uses_task_map = True
    uncached_fields = ("piece_s", "max_side_px", "max_source_frames", "max_decoder_bytes")

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
    """"pyav" or "decord"; decord does not support AV1, MPEG-TS or rotated video"""
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

    piece_s: float = 300.0
    """length of the pieces of a longer video, seconds, which several workers may process; the clips are the same"""

    # Decoding limits, whatever the container claims; a video beyond one of them fails. They are not part of the resume key: after
    # raising one, `a2data retry` processes those videos again.
    max_side_px: int = 8192
    """longest side of a frame as coded, pixels"""
    max_source_frames: int = 5_000_000
    """most source frames of a video"""
    max_decoder_bytes: int = 1_500_000_000
    """most memory that decoding may add to the worker's own, bytes; Linux only"""

    def models(self) -> dict[str, str]:
        return {self.shot_model: cards.revision(self.shot_model)} if self.shot_model else {}

    def margin(self, kind: str) -> int:
        """Return the number of source frames dropped on either side of a transition of that kind."""
        margins = {"fade": self.margin_frames, "dissolve": self.margin_frames}
        return margins.get(kind, min(1, self.margin_frames) if kind == "wipe" else 0)

    def load(self) -> transnet.Network | None:
        video.check_backend(self.decoder)
        return _network(self.shot_model, cards.device()) if self.shot_model else None

    def run(
        self,
        network: transnet.Network | None,
        videos: list[Video],
        source_file: SourceFile = open_in_place,
        task_map: TaskMap = map_serial,
    ) -> Iterator[ClipVideo | Reject]:
        for source in videos:
            clips_of_pieces = self.clips_by_pieces(network, source, source_file, task_map)
            rows = self.clips(network, source, source_file) if clips_of_pieces is None else clips_of_pieces
            for row in self.with_sound(rows, source, source_file) if self.sound_hz else rows:
                yield drop_excluded_frames(row, source)

    def with_sound(
        self, rows: Iterable[ClipVideo | Reject], source: Video, source_file: SourceFile
    ) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of a video, in order, with its sound, which is decoded once."""
        opener = source_file(source.video_id, source.path)
        with sound.reading(source.path, opener, self.sound_hz, self.limits()) as track:
            for row in rows:
                if track is None or isinstance(row, Reject):
                    yield row
                    continue
                clip_sound = track.cut(start_s(row), len(row.source_frames) / row.fps)
                samples, mp4 = clip_sound.samples, row.video
                if samples is not None:
                    mp4 = sound.with_sound(mp4, samples, self.sound_hz)
                yield replace(row, video=mp4, sound_problem=clip_sound.problem)

    def clips(
        self, network: transnet.Network | None, source: Video, source_file: SourceFile = open_in_place
    ) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of one video, in order. Memory does not grow with the video's length."""
        shrink, detector = self.scaler(source), self.detector(network)
        with tempfile.TemporaryFile() as spool:
            buffer = ShotBuffer(self, source, spool)
            for timed in self.timed_frames(source, source_file):
                small = buffer.add(timed, shrink)
                for transition in detector.add(small, cut=timed.after_gap):
                    yield from buffer.close(transition)
                buffer.advance(detector.settled, detector.judged)
            for transition in detector.finish():
                yield from buffer.close(transition)
            yield from buffer.close(shots.Transition("end", detector.settled, detector.settled))
            if not buffer.shot:
                yield no_shot(source, detector.count, detector.blank)

    def clips_by_pieces(
        self, network: transnet.Network | None, source: Video, source_file: SourceFile, task_map: TaskMap
    ) -> Iterator[ClipVideo | Reject] | None:
        """Return the clips of a long video like `clips`; None if it is short, or must be processed as a whole."""
        if source.duration_s < 1.5 * self.piece_s or self.decoder != "pyav":
            return None
        limits, opener = self.limits(), source_file(source.video_id, source.path)
        length = round(self.piece_s * source.fps)
        try:
            index = frame_index(source.path, source.stream, limits, opener)
            if index is None or len(index.times_s) > self.max_source_frames:
                return None
            planned = pieces.plan(index, source, length, transnet.STRIDE * (network.windows_per_call if network else 1))
            results = list(task_map(clips_in_piece, [self, source_file, *planned], _tasks(len(planned))))
            all_shots = pieces.shots(planned, [result.facts for result in results], len(index.times_s))
            if not all_shots:
                log.info("%s: its pieces do not join; it is processed as a whole", source.path)
                return None
            closed = {start: result for result in results for start in result.facts["closed"]}
            frames_across = {shot: self.clip_frames(index, shot) for shot in all_shots if shot.start not in closed}
            rests = [r for shot, grid in frames_across.items() for r in pieces.rests(index, source, shot, grid, length)]
            results_across = task_map(clips_across, [self, source_file, *rests], _tasks(len(rests)))
            return self.join_shots(source, all_shots, closed, zip(rests, list(results_across), strict=True))
        except (ValueError, OSError) as error:  # read as a whole, it fails the same way or was not at fault
            log.warning("%s: in pieces: %s", source.path, error)
            return None

    def join_shots(
        self,
        source: Video,
        all_shots: list[pieces.Shot],
        closed: dict[int, PartialResult],
        across: Iterable[tuple[pieces.Rest, PartialResult]],
    ) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of all shots in order. closed: start of a shot -> the piece that has its clips."""
        rest: dict[int, list[PartialResult]] = {}
        for task, result in across:
            rest.setdefault(task.shot.number, []).append(result)
        loaded: tuple[PartialResult | None, list[ClipVideo]] = None, []  # the clips of one piece
        for shot in all_shots:
            if (piece := closed.get(shot.start)) is not None:
                loaded = loaded if loaded[0] is piece else (piece, piece.rows())
                clips = [clip for clip in loaded[1] if clip.shot_start == shot.start]
            else:
                clips = [clip for result in rest.get(shot.number, []) for clip in result.rows()]
            yield from (replace(clip, shot=shot.number) for clip in clips)
            if not clips:
                yield too_short(source, shot.start, shot.end, self)

    def clip_frames(self, index: FrameIndex, shot: pieces.Shot) -> list[tuple[int, ...]]:
        """Return the source frames of each clip of a shot, like ShotBuffer."""
        first, last = shot.start + self.margin(shot.transition_in), self.last_frame(shot.closing)
        frames = pieces.ticks(index, shot.start, last, self.fps, self.max_frozen_s) if last > first else []
        frames = [frame for frame in frames if frame >= first]
        clips = [tuple(frames[n : n + self.max_frames]) for n in range(0, len(frames), self.max_frames)]
        return [clip for clip in clips if len(clip) >= self.min_clip_s * self.fps]

    def last_frame(self, closing: shots.Transition) -> int:
        """Return the end of the frames of a shot that may be in a clip, exclusive."""
        # the next shot starts right after a fade-out
        fades_out = closing.kind == "cut" and closing.start < closing.end
        return closing.start - self.margin("fade" if fades_out else closing.kind)

    def limits(self) -> Limits:
        return Limits(
            max_side_px=self.max_side_px,
            max_frames=self.max_source_frames,
            max_decoder_bytes=self.max_decoder_bytes,
        )

    def scaler(self, source: Video) -> clock.Downscaler:
        width, height = clock.fit_size(source.width, source.height, self.max_short_side_px)
        return clock.Downscaler(width, height, source.rotation)

    def detector(self, network: transnet.Network | None) -> shots.ShotDetector:
        return shots.ShotDetector(
            network, self.cut_threshold, self.gradual_threshold, self.adaptive_threshold, self.min_content_val
        )

    def timed_frames(
        self,
        source: Video,
        source_file: SourceFile,
        decode_from: video.KeyFrame | None = None,
        start_s: float | None = None,
    ) -> Iterator[clock.TimedFrame]:
        """Yield the frames of a video on the clip clock, from a frame on."""
        opener = source_file(source.video_id, source.path)
        frames = video.read(source.path, source.stream, self.decoder, self.limits(), opener, decode_from)
        return clock.resample_to_fps(frames, self.fps, self.max_frozen_s, start_s)


def _tasks(count: int) -> list[tuple[int, int, int]]:
    """Return tasks whose first two arguments are the same."""
    return [(0, 1, 2 + n) for n in range(count)]


def clips_in_piece(stage: Segment, source_file: SourceFile, piece: pieces.Piece) -> PartialResult:
    """Return what `pieces.shots` joins, and the clips of the shots whose two ends are in the piece."""
    shrink, detector = stage.scaler(piece.source), stage.detector(stage.load())
    marks: dict[str, Any] = {}
    with tempfile.TemporaryFile() as spool:
        piece_shots = PieceShots(piece, ShotBuffer(stage, piece.source, spool), start_known=piece.begin == 0)
        for timed in stage.timed_frames(piece.source, source_file, piece.decode_from, piece.start_s):
            if timed.frame.index < piece.first:
                continue
            small = piece_shots.buffer.add(timed, shrink)
            piece_shots.add_transitions(detector.add(small, cut=timed.after_gap))
            if timed.frame.index in (piece.begin, piece.end):
                marks[str(timed.frame.index)] = [zlib.crc32(small.tobytes()), timed.frame.pts_s, detector.ramp_frames()]
            settled, judged = (piece.first + number for number in (detector.settled, detector.judged))
            if settled > piece.end:
                break
            piece_shots.advance(settled, judged)
        else:
            piece_shots.add_transitions(detector.finish())
            end = piece.first + detector.settled
            if end < piece.end:  # of the last piece; another may also read to the end before its frames are judged
                piece_shots.close(shots.Transition("end", end, end))
    facts = {"transitions": piece_shots.transitions, "closed": piece_shots.closed}
    facts |= {"marks": marks, "frames": piece.first + detector.count}
    return PartialResult(facts, partial(list, piece_shots.rows))


@dataclass
class PieceShots:
    """The transitions and shots of one piece. start_known: whether the start of the shot being decoded is known."""

    piece: pieces.Piece
    buffer: "ShotBuffer"
    start_known: bool
    transitions: list[shots.Transition] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)  # starts of the shots whose clips are in `rows`
    rows: list[ClipVideo] = field(default_factory=list)

    def add_transitions(self, transitions: list[shots.Transition]) -> None:
        """Process transitions of the detector, which counts from the first frame that it saw."""
        for transition in transitions:
            moved = transition._replace(
                start=transition.start + self.piece.first, end=transition.end + self.piece.first
            )
            self.transitions.append(moved)
            if self.piece.begin <= moved.start < self.piece.end:
                self.close(moved)

    def close(self, transition: shots.Transition) -> None:
        if self.start_known:
            self.closed.append(self.buffer.start)
        else:  # an empty shot, so that the next one has a start
            self.buffer.start, self.start_known = transition.start, transition.kind != "end"
        self.rows += [row for row in self.buffer.close(transition) if isinstance(row, ClipVideo)]

    def advance(self, settled: int, judged: int) -> None:
        if self.start_known:
            self.buffer.advance(settled, judged)
        else:
            self.buffer.drop_before(settled)


def clips_across(stage: Segment, source_file: SourceFile, rest: pieces.Rest) -> PartialResult:
    """Return the clips of a shot across a border."""
    source, shot = rest.source, rest.shot
    shrink = stage.scaler(source)
    needed = {frame for clip in rest.clips for frame in clip}
    due = deque(rest.clips)
    ticks: dict[int, Tick] = {}
    rows = []
    for timed in stage.timed_frames(source, source_file, rest.decode_from, rest.start_s):
        frame = timed.frame
        if frame.index in needed:
            ticks[frame.index] = Tick(frame.index, frame.pts_s, shrink.planes(frame.picture))
        while due and due[0][-1] == frame.index:
            fields, data = make_clip([ticks[number] for number in due.popleft()], source, stage)
            shot_fields: dict[str, Any] = {"shot": shot.number, "shot_start": shot.start, "shot_end": shot.end}
            rows.append(ClipVideo(**fields, **shot_fields, transition_in=shot.transition_in, video=data))
            ticks = {frame.index: ticks[frame.index]}  # the next clip may start with another tick of it
        if not due:
            break
    return PartialResult({}, partial(list, rows))


@dataclass
class ShotBuffer:
    """The shot being decoded: ticks that will become clips, and clips that wait for the shot's end.

    A clip records the end of its shot, which may be far away: its bytes wait in a spool file, not in memory.
    """

    settings: Segment
    source: Video
    spool: Any  # a temporary file
    ticks: deque[Tick] = field(default_factory=deque)
    pending: list[tuple[dict[str, Any], int]] = field(default_factory=list)  # fields of a clip, length of its bytes
    shot: int = 0
    start: int = 0
    transition_in: str = "start"

    def add(self, timed: clock.TimedFrame, shrink: clock.Downscaler) -> np.ndarray:
        """Add the ticks of a frame. Returns the frame as the detectors take it."""
        frame = timed.frame
        if timed.ticks:
            self.ticks.extend([Tick(frame.index, frame.pts_s, shrink.planes(frame.picture))] * timed.ticks)
        return shrink.detector_input(frame.picture, transnet.WIDTH, transnet.HEIGHT)

    def advance(self, settled: int, judged: int) -> None:
        """Make clips of the frames before `settled`; frames from there to `judged` are in a transition and are dropped."""
        self.drop_before(self.start + self.settings.margin(self.transition_in))
        ready = settled - self.settings.margin_frames
        while self._count(ready) >= self.settings.max_frames:
            self._clip(self.settings.max_frames)
        if settled < judged:
            self.ticks = deque(t for t in self.ticks if not settled <= t.source_frame < judged)

    def close(self, transition: shots.Transition) -> Iterator[ClipVideo | Reject]:
        """Yield the clips of the shot that a transition ends; a Reject if there are none."""
        self.drop_before(self.start + self.settings.margin(self.transition_in))
        last = self.settings.last_frame(transition)
        while (
            count := min(self._count(last), self.settings.max_frames)
        ) >= self.settings.min_clip_s * self.settings.fps:
            self._clip(count)
        if transition.start > self.start:
            yield from self._finished(transition.start)
            self.shot += 1
        self.drop_before(transition.end)
        self.start, self.transition_in = transition.end, transition.kind

    def _count(self, end: int) -> int:
        return sum(tick.source_frame < end for tick in self.ticks)

    def drop_before(self, frame: int) -> None:
        while self.ticks and self.ticks[0].source_frame < frame:
            self.ticks.popleft()

    def _clip(self, count: int) -> None:
        fields, data = make_clip([self.ticks.popleft() for _ in range(count)], self.source, self.settings)
        self.spool.write(data)
        self.pending.append((fields, len(data)))

    def _finished(self, end: int) -> Iterator[ClipVideo | Reject]:
        if not self.pending:
            yield too_short(self.source, self.start, end, self.settings)
        self.spool.seek(0)
        for fields, size in self.pending:
            yield ClipVideo(
                **fields,
                shot=self.shot,
                shot_start=self.start,
                shot_end=end,
                transition_in=self.transition_in,
                video=self.spool.read(size),
            )
        self.pending.clear()
        self.spool.seek(0)
        self.spool.truncate()


def too_short(source: Video, start: int, end: int, settings: Segment) -> Reject:
    """Return the rejection of a shot without a clip."""
    detail = f"frames {start} to {end} of the source have less than {settings.min_clip_s:g} s outside transitions"
    return Reject(f"{source.video_id}-{start:08d}", "shot too short", detail)


def start_s(clip: ClipVideo) -> float:
    """Return the time of a clip's first tick: the earliest at which every frame is due. Its first frame may be older."""
    return max(pts_s - n / clip.fps for n, pts_s in enumerate(clip.source_pts_s))


def no_shot(source: Video, frames: int, blank: int) -> Reject:
    """Return the rejection of a video without a shot; blank: number of frames that are black or white."""
    if blank == frames:
        detail = f"black or white throughout: all {frames} frames are blank"
    else:
        detail = (
            f"only transitions: {blank} of {frames} frames are black or white, the others in a fade, dissolve or wipe"
        )
    return Reject(source.video_id, "no shot", detail)


def drop_excluded_frames(row: ClipVideo | Reject, source: Video) -> ClipVideo | Reject:
    """Return the clip, or its rejection if it shows source frames that were forgotten."""
    if isinstance(row, ClipVideo) and source.refused:
        for span in source.refused.split(","):
            first, end = map(int, span.split("-"))
            if row.source_frames[0] < end and first <= row.source_frames[-1]:
                return Reject(row.clip_id, "forgotten", f"source frames {first} to {end} were forgotten")
    return row


def make_clip(ticks: list[Tick], source: Video, settings: Segment) -> tuple[dict[str, Any], bytes]:
    """Return the fields of a clip that do not depend on the rest of its shot, and its mp4."""
    height, width = ticks[0].planes.y.shape
    box = (0, 0, width, height)
    if settings.crop_letterbox:
        box = clock.crop_box([tick.planes.y for tick in ticks[:: max(1, len(ticks) // 10)]])
    pictures = [clock.crop(tick.planes, box) for tick in ticks]
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
