"""A long video in pieces: where they begin, and how the shots that were found in each of them join.

The detectors of a piece start before it, at a multiple of the network's stride, so that from the piece's first frame on they
have seen what they would have seen of the whole video. A piece finds the transitions that start in it, and makes the clips of the
shots that begin and end with one of these. The other shots, those across a border, are cut when both their ends are known.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from a2data.media.key_frames import FrameIndex
from a2data.media.video import Frame, KeyFrame
from a2data.records import Video
from model_zoo.shots.detector import Transition
from stages.segment import clock

WARM_UP = 300  # least frames that the detectors see before a piece, more than they remember; but see `ramp_frames`
OVERLAP = 100  # frames before a piece in which its transitions must be those of the piece before


class Piece(NamedTuple):
    """A part of a video."""

    source: Video
    decode_from: KeyFrame
    first: int  # first frame of the detectors
    begin: int  # first frame of the piece
    end: int  # end of the piece, exclusive
    start_s: float  # time of the video's first frame


class Shot(NamedTuple):
    """A shot and what its clips record of it."""

    number: int
    start: int
    transition_in: str
    closing: Transition

    @property
    def end(self) -> int:
        return self.closing.start


class Rest(NamedTuple):
    """Clips of a shot across a border, as the source frames of each."""

    source: Video
    decode_from: KeyFrame
    start_s: float
    shot: Shot
    clips: tuple[tuple[int, ...], ...]


def plan(index: FrameIndex, source: Video, piece_frames: int, stride: int) -> list[Piece]:
    """Divide a video into pieces of about `piece_frames`, whose borders are multiples of the network's stride."""
    total, warm_up = len(index.times_s), -(-WARM_UP // stride) * stride
    length = max(round(piece_frames / stride) * stride, warm_up)
    borders = [*range(0, max(1, total - length // 2), length), total + 1]  # the last piece has at least half the length
    pieces = []
    for begin, end in pairwise(borders):
        first = max(0, begin - warm_up)
        pieces.append(Piece(source, index.before(first), first, begin, end, index.times_s[0]))
    return pieces


def shots(pieces: Sequence[Piece], facts: Sequence[dict[str, Any]], frames: int) -> list[Shot] | None:
    """Join what was found in the pieces; None if two neighbours disagree, so that the video has to be processed as a whole.

    facts: of each piece "transitions"; "marks", by frame, what the decoder and the detectors made of the first frame of a piece;
    and "frames", of the last piece, the number of frames of the video.
    """
    for (left_facts, right_facts), (left, right) in zip(pairwise(facts), pairwise(pieces), strict=True):
        border = str(right.begin)
        transitions_of_both = [
            [list(t) for t in facts_of_piece["transitions"] if right.begin - OVERLAP <= t[1] < right.begin]
            for facts_of_piece in (left_facts, right_facts)
        ]
        if (
            left.end != right.begin
            or left_facts["marks"].get(border) != right_facts["marks"].get(border)
            or transitions_of_both[0] != transitions_of_both[1]
        ):
            return None
    if facts[-1]["frames"] != frames:
        return None
    transitions = [
        Transition(*t)
        for piece, facts_of_piece in zip(pieces, facts, strict=True)
        for t in facts_of_piece["transitions"]
        if piece.begin <= t[1] < piece.end
    ]
    all_shots: list[Shot] = []
    start, transition_in = 0, "start"
    for closing in [*transitions, Transition("end", frames, frames)]:
        if closing.start > start:
            all_shots.append(Shot(len(all_shots), start, transition_in, closing))
        start, transition_in = closing.end, closing.kind
    return all_shots


def ticks(index: FrameIndex, start: int, end: int, fps: float, max_gap_s: float) -> list[int]:
    """Return the source frame of each tick of the clip clock from frame `start` to `end`, exclusive."""
    times = enumerate(index.times_s[start : end + 1], start)  # a frame's ticks end with the next one
    frames = (Frame(number, time_s, None) for number, time_s in times)  # type: ignore[arg-type]
    timed_frames = clock.resample_to_fps(frames, fps, max_gap_s, index.times_s[0])
    return [timed.frame.index for timed in timed_frames if timed.frame.index < end for _ in range(timed.ticks)]


def rests(
    index: FrameIndex, source: Video, shot: Shot, clips: Sequence[tuple[int, ...]], piece_frames: int
) -> Iterator[Rest]:
    """Yield the clips of a shot, those of one piece at a time."""
    batch: list[tuple[int, ...]] = []
    for number, clip in enumerate(clips, 1):
        batch.append(clip)
        if number == len(clips) or clip[-1] - batch[0][0] >= piece_frames:
            yield Rest(source, index.before(batch[0][0]), index.times_s[0], shot, tuple(batch))
            batch = []
