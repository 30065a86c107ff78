"""Video I/O: sources frame by frame with timestamps, and clips to and from H.264 bytes. Uses PyAV, optionally decord."""

import importlib.util
import io
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import dropwhile
from typing import Any, NamedTuple

import av
import fsspec
import numpy as np

from a2data import heartbeat
from a2data.media.decode_limits import (
    LIMITS,
    VIDEO_FORMATS,
    LimitError,
    Limits,
    MemoryCeiling,
    check_coded_size,
    check_displayed_size,
)

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

Opener = Callable[[], Any]  # returns a seekable binary file
BACKENDS = ("pyav", "decord")
MAX_CLIP_BYTES = 2_000_000_000  # limit of a clip's RGB frames, which are held in memory: 1,600 of 832 x 480


class KeyFrame(NamedTuple):
    """A frame at which decoding may start."""

    frame: int  # its number in presentation order, from 0
    pts: int  # in units of the stream's time base
    dts: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame of a source video."""

    index: int  # number of the decoded frame, from 0
    pts_s: float  # presentation time; need not start at 0
    picture: av.VideoFrame  # as coded, neither rotated nor scaled to square pixels


def open_bytes(data: bytes | memoryview) -> av.container.InputContainer:
    """Open a container in memory, with the formats and picture sizes allowed for sources, since data sets are untrusted.

    Raises av.error.FFmpegError.
    """
    options = LIMITS.options()
    container = av.open(io.BytesIO(data), "r", metadata_errors="ignore", options=dict(options))
    for stream in container.streams.video:
        stream.codec_context.options = {"max_pixels": options["max_pixels"]}
    return container


def check_backend(backend: str) -> None:
    """Raise ValueError for a decoder that is not one of BACKENDS, ModuleNotFoundError for one whose package is not installed."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown decoder {backend!r}: one of {', '.join(BACKENDS)}")
    if backend == "decord" and importlib.util.find_spec("decord") is None:
        raise ModuleNotFoundError(
            "the decoder decord needs the package 'decord': pip install 'a2data[decord]'", name="decord"
        )


def decode(data: bytes, backend: str = "pyav") -> np.ndarray:
    """Decode all frames of a clip, (t, h, w, 3) uint8 RGB. Raises av.error.FFmpegError, or ValueError if it has no frames."""
    check_backend(backend)
    if backend == "decord":
        return _decode_decord(data)
    with open_bytes(data) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames: list[np.ndarray] = []
        for frame in container.decode(stream):
            if (len(frames) + 1) * frame.width * frame.height * 3 > MAX_CLIP_BYTES:
                raise ValueError(f"the clip has more than {MAX_CLIP_BYTES / 1e9:g} GB of frames")
            frames.append(frame.to_ndarray(format="rgb24"))
    if not frames:
        raise ValueError("the clip does not have any frames")
    return np.stack(frames)


def _decode_decord(data: bytes) -> np.ndarray:
    import decord

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()


def encode(frames: Iterable[av.VideoFrame | np.ndarray], fps: float, crf: int = 18, preset: str = "veryfast") -> bytes:
    """Encode frames with even sizes as mp4 (H.264, yuv420p, moov first). Equal frames give equal bytes on any machine.

    frames: (t, h, w, 3) uint8 RGB, or any iterable of (h, w, 3) or of av.VideoFrame, all of one size; consumed one at a time.
    """
    rate = Fraction(fps).limit_denominator(1001)
    # a real file, since FFmpeg reopens it to move the index to the front
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        # without cpu-independent, x264 selects code by processor and the bytes differ
        options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": "cpu-independent=1"}
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


def read(
    path: str,
    stream: int = 0,
    backend: str = "pyav",
    limits: Limits = LIMITS,
    opener: Opener | None = None,
    start: KeyFrame | None = None,
) -> Iterator[Frame]:
    """Yield every frame of a source in presentation order, decoded once, in one thread. Times always increase, see `next_time`.

    path: local, or any URL that fsspec opens. stream: index among its video streams. limits: checked again for each frame, since
    the container may be wrong and pictures may grow. opener: opens a copy of the source, if there is one. start: the frame to
    start with (only pyav), see a2data.media.key_frames.
    Raises ValueError if the file is not a video, lacks the stream, exceeds the limits (LimitError), or is truncated. In the last
    case the frames before the error were already yielded and should not be used.
    """
    check_backend(backend)
    frames = (
        _read_pyav(path, stream, limits, opener, start)
        if backend == "pyav"
        else _read_decord(path, stream, limits, opener)
    )
    for frame in frames:
        check_coded_size(path, frame.picture.width, frame.picture.height, limits)
        if frame.index >= limits.max_frames:
            raise LimitError(path, "too many frames", f"more than {limits.max_frames} frames were decoded")
        yield frame


def _read_pyav(
    path: str, stream: int, limits: Limits, opener: Opener | None, start: KeyFrame | None
) -> Iterator[Frame]:
    first = start.frame if start else 0
    index, time_s, shift_s = first - 1, -math.inf, 0.0
    with open_source(path, limits, opener=opener) as (container, ceiling):
        video = video_stream(container, path, stream)
        # a worker has one core, and frames in flight in other threads take memory
        video.codec_context.thread_count = 1
        step_s = 1 / float(video.average_rate or video.guessed_rate or 25)
        try:
            pictures = _decode_stream(container, video, limits, ceiling)
            if start:
                container.seek(start.dts, stream=video)
                pictures = dropwhile(lambda picture: picture.pts is None or picture.pts < start.pts, pictures)
            for index, picture in enumerate(pictures, first):
                if start and index == first and picture.pts != start.pts:
                    raise ValueError(f"{path}: frame {first} is not at the time that its packet states")
                raw_s = picture.time
                time_s, shift_s = next_time(raw_s, time_s, shift_s, step_s)
                heartbeat.step()
                yield Frame(index, time_s, picture)
        except MemoryError as error:
            raise _out_of_memory(path, limits) from error
        except av.error.FFmpegError as error:
            if ceiling.is_near():
                raise _out_of_memory(path, limits) from error
            raise ValueError(decode_error_message(path, index, time_s, error)) from error
    if index < first:
        raise ValueError(f"{path}: none of the frames of the video stream can be decoded")


def _decode_stream(
    container: av.container.InputContainer, stream: av.VideoStream, limits: Limits, ceiling: MemoryCeiling
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream, each decoded below the ceiling, which does not limit the caller's use of them."""
    stream.codec_context.options = {"max_pixels": limits.options()["max_pixels"]}
    frames = container.decode(stream)
    while True:
        with ceiling.held():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _out_of_memory(path: str, limits: Limits) -> LimitError:
    return LimitError(path, "memory", f"its decoder needs more than {limits.max_decoder_bytes / 1e9:g} GB")


def _read_decord(path: str, stream: int, limits: Limits, opener: Opener | None) -> Iterator[Frame]:
    import decord

    probed = probe(path, limits, opener)
    if probed.rotation or stream != probed.stream:
        raise ValueError(f"{path}: decord misreads rotated videos and picks its own stream; use the decoder pyav")
    index, time_s, shift_s = -1, -math.inf, 0.0
    try:
        with opener() if opener else fsspec.open(path, "rb") as file:
            reader = decord.VideoReader(file, num_threads=1)
            for index in range(len(reader)):
                raw_s = float(reader.get_frame_timestamp(index)[0])
                time_s, shift_s = next_time(raw_s, time_s, shift_s, 1 / probed.fps)
                heartbeat.step()
                yield Frame(index, time_s, av.VideoFrame.from_ndarray(reader[index].asnumpy(), format="rgb24"))
    except decord.DECORDError as error:
        raise ValueError(decode_error_message(path, index - 1, time_s, error)) from error


def decode_error_message(path: str, index: int, time_s: float, error: Exception) -> str:
    """Return the error message for a file that stopped decoding after frame `index`, -1 if before the first."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    if index < 0:
        return f"{path}: no frame can be decoded: {reason}"
    return f"{path}: decoding stopped after frame {index} ({time_s:.2f} s): {reason}. Is the file complete?"


def next_time(raw_s: float | None, last_s: float, shift_s: float, step_s: float) -> tuple[float, float]:
    """Return the presentation time of a frame and the shift for the following frames, such that times always increase.

    raw_s: time in the file, None if missing. last_s: time of the previous frame, -inf for none. step_s: 1 / fps.
    A step back of more than a second is a restarted clock (joined or wrapped MPEG-TS), so all following frames are shifted.

    >>> next_time(7.0, 6.5, 0.0, 0.5)
    (7.0, 0.0)
    >>> next_time(0.0, 6.5, 0.0, 0.5)
    (7.0, 7.0)
    """
    if math.isinf(last_s):
        return raw_s or 0.0, 0.0
    if raw_s is None:
        return last_s + step_s, shift_s
    time_s = raw_s + shift_s
    if time_s > last_s:
        return time_s, shift_s
    if last_s - time_s > 1:
        return last_s + step_s, last_s + step_s - raw_s
    return last_s + step_s / 2, shift_s


class Probe(NamedTuple):
    """Properties of a source according to its container and first frame."""

    width: int  # as displayed, after rotation and pixel aspect
    height: int
    rotation: int  # clockwise rotation of the decoded picture in degrees: 0, 90, 180, 270
    fps: float  # average
    duration_s: float  # 0 if unknown
    codec: str
    stream: int  # index of the largest video stream, except cover pictures
    frames: int  # the larger of the container's count and duration times fps; 0 if neither is known


def probe(path: str, limits: Limits = LIMITS, opener: Opener | None = None) -> Probe:
    """Return the properties of a source.

    Raises ValueError if it is not a video or its first frame cannot be decoded, and LimitError if its pictures or its decoder's
    memory exceed the limits.
    """
    with open_source(path, limits, opener=opener) as (container, ceiling):
        number = best_stream(container, path)
        video = container.streams.video[number]
        check_coded_size(path, video.width, video.height, limits)
        try:
            frame = next(_decode_stream(container, video, limits, ceiling), None)
        except MemoryError as error:
            raise _out_of_memory(path, limits) from error
        except av.error.FFmpegError as error:
            raise ValueError(decode_error_message(path, -1, 0, error)) from error
        if frame is None:
            raise ValueError(f"{path}: none of the frames of the video stream can be decoded")
        check_coded_size(path, frame.width, frame.height, limits)
        aspect = float(video.sample_aspect_ratio or 1)  # of a pixel; 0 and None both mean unknown
        width, height = round(frame.width * aspect), frame.height
        rotation = round(-frame.rotation / 90) * 90 % 360  # FFmpeg counts counterclockwise
        if rotation in (90, 270):
            width, height = height, width
        check_displayed_size(path, width, height, aspect, limits)
        seconds = video.duration and video.time_base and float(video.duration * video.time_base)
        duration_s = seconds or (container.duration or 0) / av.time_base
        fps = float(video.average_rate or video.guessed_rate or 25)
        frames = max(video.frames, round(duration_s * fps))
        return Probe(width, height, rotation, fps, duration_s, video.codec_context.name, number, frames)


def best_stream(container: av.container.InputContainer, path: str) -> int:
    """Return the index of the video stream with the largest picture, except cover pictures."""
    streams = container.streams.video
    films = [n for n, s in enumerate(streams) if not s.disposition & av.stream.Disposition.attached_pic]
    if not films:
        raise ValueError(f"{path}: it does not contain a video stream, only {_others(container)}")
    return max(films, key=lambda n: (streams[n].width * streams[n].height, -n))


def _others(container: av.container.InputContainer) -> str:
    kinds = ["cover picture" if s.type == "video" else s.type for s in container.streams]
    return ", ".join(sorted(set(kinds))) or "nothing"


def video_stream(container: av.container.InputContainer, path: str, stream: int) -> av.video.stream.VideoStream:
    """Return a video stream by its index. Raises ValueError if it does not exist."""
    if stream >= len(container.streams.video):
        raise ValueError(f"{path}: video stream {stream} does not exist, it has {len(container.streams.video)}")
    return container.streams.video[stream]


@contextmanager
def open_source(
    path: str, limits: Limits = LIMITS, formats: str = VIDEO_FORMATS, opener: Opener | None = None
) -> Iterator[tuple[av.container.InputContainer, MemoryCeiling]]:
    """Open a container and yield it with the memory ceiling for decoding it.

    Local paths are opened by FFmpeg itself, URLs through fsspec, copies by their opener.
    formats: FFmpeg's names of the accepted formats, none of which can refer to other files.
    Raises ValueError for a file that is not a video, OSError for a file that is missing or unreadable.
    """
    local, ceiling = not opener and "://" not in path, MemoryCeiling(limits.max_decoder_bytes)
    with ExitStack() as stack:
        file = path
        if opener:
            file = stack.enter_context(opener())
        elif not local:
            file = stack.enter_context(fsspec.open(path, "rb"))
        try:
            with ceiling.held():
                container = av.open(file, metadata_errors="ignore", options=limits.options(formats, local))
        except (FileNotFoundError, PermissionError):
            raise
        except MemoryError as error:
            raise _out_of_memory(path, limits) from error
        except av.error.ArgumentError as error:
            raise ValueError(f"{path}: not a container in a supported format ({formats.replace(',', ', ')})") from error
        except av.error.FFmpegError as error:
            raise ValueError(_unopened(path, error)) from error
        yield stack.enter_context(container), ceiling


def _unopened(path: str, error: Exception) -> str:
    return f"{path}: not a video, or an empty or truncated one without its index: {error}"
