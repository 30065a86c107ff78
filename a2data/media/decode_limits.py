"""Limits for decoding untrusted files: formats, picture size, memory.

A file of 4 kB can make a decoder allocate gigabytes, by the size of its pictures, the shape of its pixels or the length of its
index. Every source is therefore opened with a list of formats and within limits that are checked before scaling or storing.
"""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# Containers that hold their own pictures. Excluded: playlists (hls, dash, concat), which open other files and URLs, and pictures
# (image2, gif, apng), which are not videos.
VIDEO_FORMATS = "asf,avi,dv,flv,h264,hevc,ivf,matroska,mov,mpeg,mpegts,mpegvideo,mxf,nut,ogg,yuv4mpegpipe"
SOUND_FORMATS = f"{VIDEO_FORMATS},aac,aiff,caf,flac,mp3,w64,wav"


class Limits(NamedTuple):
    """Limits of a source. The defaults accept everything that cameras write or cinemas show."""

    max_side_px: int = 8192  # longest side, as coded and as displayed: DCI 8K
    max_pixel_aspect: float = 4.0  # width of a pixel over its height, or the reverse; anamorphic film has 2
    max_aspect: float = 4.0  # longer side over the shorter one, as displayed; Polyvision, the widest film format, has 4
    max_frames: int = 5_000_000  # decoded frames of one video: 10 hours at 120 fps are 4.3 million
    max_decoder_bytes: int = 1_500_000_000  # memory for opening and decoding; 8-bit 8K with 16 references takes 0.9 GB

    def options(self, formats: str = VIDEO_FORMATS, local: bool = False) -> dict[str, str]:
        """Return FFmpeg's options for av.open. local: whether FFmpeg opens the path itself, which needs the protocol "file"."""
        return {
            "format_whitelist": formats,
            "protocol_whitelist": "file" if local else "",
            "max_pixels": str(self.max_side_px**2),  # decoders reject larger frames before allocation
        }


LIMITS = Limits()


class LimitError(ValueError):
    """A source that exceeds one of Limits."""

    def __init__(self, path: str, reason: str, detail: str) -> None:
        """reason: one or two words, used as the reason of a Reject."""
        super().__init__(f"{path}: {reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_coded_size(path: str, width: int, height: int, limits: Limits) -> None:
    """Raise LimitError if a side of a decoded picture is too long."""
    if max(width, height) > limits.max_side_px:
        raise LimitError(
            path, "too large", f"{width} x {height} as coded: the longest side is over {limits.max_side_px} px"
        )


def check_displayed_size(path: str, width: int, height: int, pixel_aspect: float, limits: Limits) -> None:
    """Raise LimitError for an implausible shape, which scaling to a short side makes huge. width, height: displayed."""
    if not 1 / limits.max_pixel_aspect <= pixel_aspect <= limits.max_pixel_aspect:
        allowed = f"allowed 1:{limits.max_pixel_aspect:g} to {limits.max_pixel_aspect:g}:1"
        raise LimitError(path, "pixel aspect", f"a pixel is {pixel_aspect:.4g} times as wide as high, {allowed}")
    if max(width, height) > limits.max_side_px:
        raise LimitError(
            path, "too large", f"{width} x {height} as shown: the longest side is over {limits.max_side_px} px"
        )
    if max(width, height) > limits.max_aspect * max(1, min(width, height)):
        raise LimitError(path, "aspect", f"{width} x {height} as shown is longer than {limits.max_aspect:g}:1")


OWN_LIMITS = resource.getrlimit(resource.RLIMIT_DATA)  # read once: another thread may hold a ceiling later


class MemoryCeiling:
    """A limit on the additional memory of this process, in force inside `with ceiling.held():`.

    An allocation beyond it fails, which FFmpeg reports as an error. On Linux the soft limit RLIMIT_DATA enforces it; elsewhere it
    is not enforced. The limit applies to the process, so allocations of other threads count too.
    """

    def __init__(self, more_bytes: int) -> None:
        self.more_bytes = more_bytes
        self.soft, self.hard = OWN_LIMITS
        self.bytes = data_bytes() + more_bytes if sys.platform == "linux" else None
        bounds = [value for value in (self.soft, self.hard, self.bytes) if value not in (None, resource.RLIM_INFINITY)]
        self.lowest = min(bounds, default=resource.RLIM_INFINITY)

    def is_near(self) -> bool:
        """Return whether nine tenths of it are used. Some decoders report a failed allocation as damaged data."""
        return self.bytes is not None and data_bytes() > self.bytes - self.more_bytes / 10

    @contextmanager
    def held(self) -> Iterator[None]:
        if self.bytes is None:
            yield
            return
        resource.setrlimit(resource.RLIMIT_DATA, (self.lowest, self.hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (self.soft, self.hard))


def data_bytes() -> int:
    """Return the memory of this process that RLIMIT_DATA counts, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
