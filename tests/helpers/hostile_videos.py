"""Small files that ask for much: what they claim is written into headers, and no large picture is ever encoded."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}


def write(
    path: Path,
    count: int = 40,
    size: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 30,
    pixel_aspect: Fraction | None = None,
    times: list[int] | None = None,
    frame: np.ndarray | None = None,
) -> Path:
    """A camera that pans over blotches, or `frame` again and again; times: the tick of each frame at `rate` a second."""
    wide = cv2.resize(np.random.default_rng(1).integers(20, 235, (8, 40, 3), np.uint8), (size[0] + count, size[1]))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for n in range(count):
            shown = wide[:, n : n + size[0]] if frame is None else frame
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            picture.pts, picture.time_base = times[n] if times else n, Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """The boxes of an mp4: type and offset."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, start
        if kind in CONTAINERS:
            yield from boxes(data, start + 8, start + size)
        start += max(8, size)


def with_pixel_aspect(path: Path, width: int, height: int) -> Path:
    """An mp4 whose pixels claim to be width : height; it was written with another pixel aspect than 1."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, data.index(b"pasp") + 4, width, height)
    path.write_bytes(data)
    return path


def with_sample_count(path: Path, count: int) -> Path:
    """An mp4 whose index claims so many frames of 10 bytes: FFmpeg would make an entry of 24 bytes for each."""
    data = bytearray(path.read_bytes())
    at = dict(boxes(bytes(data)))
    struct.pack_into(">II", data, at[b"stsz"] + 12, 10, count)
    struct.pack_into(">IIII", data, at[b"stsc"] + 12, 1, 1, count, 1)
    struct.pack_into(">I", data, at[b"stco"] + 12, 1)
    struct.pack_into(">III", data, at[b"stts"] + 12, 1, count, 512)
    path.write_bytes(data)
    return path


def with_jpeg_size(path: Path, width: int, height: int, first: int = 0) -> Path:
    """A video of JPEGs that claim to be width x height, from frame `first` on."""
    data = bytearray(path.read_bytes())
    at, found = 0, 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at)) >= 0:
        if found >= first:
            struct.pack_into(">HH", data, at + 5, height, width)
        at, found = at + 5, found + 1
    assert found > first
    path.write_bytes(data)
    return path


def with_attachment(path: Path, size: int) -> Path:
    """A Matroska file with an attached file of so many bytes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        container.add_attachment("font.ttf", "application/x-truetype-font", bytes(size))
        for _ in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be width x height, with no pixels in it."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
