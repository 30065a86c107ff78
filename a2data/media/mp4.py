"""Validation of an mp4 before FFmpeg opens it, so that a few bytes cannot make FFmpeg allocate gigabytes.

FFmpeg's demuxer trusts the counts in the index of an mp4 (samples, edits) and unpacks compressed indexes. The files that
`a2data.media.video.encode` writes have one video track, one index and no fragments; `a2data.media.sound` adds a track of sound.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}
REFUSED = {b"moof": "fragments", b"cmov": "a compressed index"}
MAX_EDITS = 16
INDEX_BYTES = 1 << 16  # of an index, in addition to INDEX_BYTES_PER_FRAME
INDEX_BYTES_PER_FRAME = 64
MAX_SOUND_FRAMES = 1 << 18  # of 1024 samples: 93 minutes at 48 kHz; FFmpeg holds about 24 bytes for each
SOUND_BYTES_PER_FRAME = 16  # of an index


def boxes(data: memoryview, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, first and last byte (exclusive) of the content of each box, containers before their content.

    Raises ValueError for a box that exceeds its container.
    """
    while begin < end:
        if end - begin < 8:
            raise ValueError(f"has {end - begin} bytes that are not an mp4 box")
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1 and end - begin >= 16:
            size, head = struct.unpack_from(">Q", data, begin + 8)[0], 16
        last = end if size == 0 else begin + size
        if last > end or last < begin + head:
            raise ValueError(f"has a box {kind!r} of {size} bytes, but only {end - begin} are left")
        yield kind, begin + head, last
        if kind in CONTAINERS:
            yield from boxes(data, begin + head, last)
        begin = last


class Track(NamedTuple):
    """What the index says of a track."""

    kind: bytes  # "vide", "soun" ...
    frames: list[int]  # of each table of sizes
    runs: list[tuple[bytes, int, int]]  # type, first and last byte of each table of times


def frame_count(data: memoryview, max_frames: int) -> int:
    """Return the number of frames of the only video track, from its index.

    Raises ValueError for more than max_frames, for anything but one video track with one index and at most one track of sound,
    and for a damaged index.
    """
    tracks, limit = _tracks(data, max_frames), {b"vide": max_frames, b"soun": MAX_SOUND_FRAMES}
    kinds = sorted(track.kind for track in tracks)
    if kinds not in ([b"vide"], [b"soun", b"vide"]) or any(len(track.frames) != 1 for track in tracks):
        raise ValueError(f"has tracks {kinds} instead of one video track and at most one of sound, each with one index")
    for track in tracks:
        if track.frames[0] > limit[track.kind]:
            raise ValueError(f"has {track.frames[0]} frames, more than {limit[track.kind]}")
        for kind, begin, end in track.runs:
            check_runs(data, begin, end, kind, limit[track.kind])
    return next(track.frames[0] for track in tracks if track.kind == b"vide")


def _tracks(data: memoryview, max_frames: int) -> list[Track]:
    """Return the tracks of an index. Raises ValueError for what `encode` does not write."""
    tracks = list[Track]()
    most = INDEX_BYTES + INDEX_BYTES_PER_FRAME * max_frames + SOUND_BYTES_PER_FRAME * MAX_SOUND_FRAMES
    for kind, begin, end in boxes(data, 0, len(data)):
        if kind in REFUSED:
            raise ValueError(f"has {REFUSED[kind]}, unlike a packed mp4")
        if kind == b"moov" and end - begin > most:
            raise ValueError(f"has an index of {end - begin} bytes, too many for {max_frames} frames")
        if kind == b"trak":
            tracks.append(Track(b"", [], []))
        elif kind == b"elst" and number(data, begin + 4, end) > MAX_EDITS:
            raise ValueError(f"has {number(data, begin + 4, end)} edits, more than {MAX_EDITS}")
        elif tracks and kind in (b"stsz", b"stz2"):
            tracks[-1].frames.append(number(data, begin + 8, end))
        elif tracks and kind in (b"stts", b"ctts"):
            tracks[-1].runs.append((kind, begin, end))
        elif tracks and kind == b"hdlr" and not tracks[-1].kind:
            tracks[-1] = tracks[-1]._replace(kind=bytes(data[begin + 8 : begin + 12]))
    return tracks


def check_runs(data: memoryview, begin: int, end: int, kind: bytes, max_frames: int) -> None:
    """Raise ValueError if a table of times covers more than max_frames frames."""
    runs = number(data, begin + 4, end)
    if begin + 8 + 8 * runs > end:
        raise ValueError(f"has a table {kind!r} that is truncated before its {runs} rows")
    total = sum(struct.unpack_from(f">{2 * runs}I", data, begin + 8)[::2])
    if total > max_frames:
        raise ValueError(f"has times for {total} frames, more than {max_frames}")


def number(data: memoryview, at: int, end: int) -> int:
    if at + 4 > end:
        raise ValueError("has a truncated table")
    return struct.unpack_from(">I", data, at)[0]
