"""Video in and out: every frame of a source once, with its time; clips to H.264 bytes and back. PyAV; decord as an option."""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")


class Frame(NamedTuple):
    """A decoded frame of a source video."""

    index: int  # counts decoded frames from 0
    pts_s: float  # presentation time; need not start at 0
    picture: av.VideoFrame  # as coded: neither rotated nor scaled to square pixels


def decode(data: bytes, backend: str = "pyav") -> np.ndarray:
    """All frames of a clip, (t, h, w, 3) uint8 RGB. Raises av.error.FFmpegError, or ValueError where there is no frame."""
    if backend == "decord":
        return _decode_decord(data)
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    if not frames:
        raise ValueError("the clip has no frame")
    return np.stack(frames)


def _decode_decord(data: bytes) -> np.ndarray:
    import decord  # optional: `pip install a2data[decord]`

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()


def encode(frames: Iterable[av.VideoFrame | np.ndarray], fps: float, crf: int = 18, preset: str = "veryfast") -> bytes:
    """An mp4 (H.264, yuv420p, moov first) of frames with even sizes; the same frames give the same bytes on any machine.

    frames: (t, h, w, 3) uint8 RGB, or any iterable of (h, w, 3) or of av.VideoFrame, all of one size; taken one at a time.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with tempfile.NamedTemporaryFile(
        suffix=".mp4"
    ) as file:  # a real file: FFmpeg reopens it to move the index to the front
        # x264's macroblock tree gives one of two streams for the same frames, by chance (seen with PyAV 18 at 320x180)
        options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": "mbtree=0"}
        _write(file.name, frames, rate, options)
        return file.read()


def _write(path: str, frames: Iterable[av.VideoFrame | np.ndarray], rate: Fraction, options: dict[str, str]) -> None:
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = 1 / rate
        for number, picture in enumerate(frames):
            if isinstance(picture, np.ndarray):
                picture = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if number == 0:
                stream.width, stream.height = picture.width, picture.height
            picture.pts, picture.time_base = number, 1 / rate
            picture.pict_type = av.video.frame.PictureType.NONE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def read(path: str, stream: int = 0) -> Iterator[Frame]:
    """Every frame of a source, in presentation order, decoded once. Paths are local or any URL that fsspec opens.

    Raises av.error.FFmpegError for what is no video, IndexError where there is no such stream.
    """
    with open_source(path) as container:
        video = container.streams.video[stream]
        video.thread_type = "AUTO"
        for index, picture in enumerate(container.decode(video)):
            pts_s = (
                float(picture.pts * picture.time_base)
                if picture.pts is not None
                else index / float(video.average_rate or 25)
            )
            yield Frame(index, pts_s, picture)


def open_source(path: str) -> av.container.InputContainer:
    """A container to read from. Local paths are opened by FFmpeg itself, all others through fsspec."""
    if "://" not in path:
        return av.open(path, metadata_errors="ignore")
    import fsspec

    return av.open(fsspec.open(path, "rb").open(), metadata_errors="ignore")
