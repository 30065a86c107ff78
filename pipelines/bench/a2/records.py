"""Tables of `a2data bench run`: cases, sampled videos and scores. Each case is a shard of its own."""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from a2data.media import video as codec
from a2data.media.pictures import read_picture
from a2data.media.video import open_bytes
from pipelines.bench.a2.cases import Case


@dataclass(frozen=True)
class ReferenceImage:
    """A reference image with its bytes, so that remote workers do not need the image folder."""

    role: str
    """human, object, background"""
    label: str
    """"" if unknown"""
    suffix: str
    """suffix of its file: ".png" """
    image: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def pixels(self) -> np.ndarray:
        """Return (h, w, 3) uint8 RGB. Raises ValueError if the bytes are not an image."""
        return read_picture(io.BytesIO(self.image), f"the picture {self.sha256[:16]}{self.suffix}")


@dataclass(frozen=True)
class CaseRow:
    """A benchmark case."""

    clip_id: str
    """the case's id"""
    prompt: str
    shown: list[ReferenceImage]
    truth: bytes
    """mp4 of the clip that a case from held-out triplets was taken from; empty for others"""

    def of(self, role: str) -> list[ReferenceImage]:
        return [image for image in self.shown if image.role == role]

    @cached_property
    def true_frames(self) -> np.ndarray:
        """Return the frames of the ground truth, (t, h, w, 3) uint8 RGB. Raises ValueError if there is none."""
        return codec.decode(self.truth)


@dataclass(frozen=True)
class Sampled:
    """A system's video of a case."""

    clip_id: str
    fps: float
    video: bytes
    """mp4"""

    @cached_property
    def frames(self) -> np.ndarray:
        """Return the frames, (t, h, w, 3) uint8 RGB."""
        return codec.decode(self.video)


@dataclass(frozen=True)
class Scored:
    """Result of one metric for the video of one case."""

    clip_id: str
    metric: str
    value: float
    """0 where nothing was found"""
    found: bool
    seen: int
    """frames in which it was found"""
    of: int
    """frames in which it was looked for"""
    skipped: str
    """reason if nothing was measured; the value is then missing"""


def to_row(case: Case) -> CaseRow:
    """Return a case with the bytes of its files."""
    shown = [ReferenceImage(e.role, e.label, e.path.suffix.lower(), e.path.read_bytes()) for e in case.elements]
    return CaseRow(case.id, case.prompt, shown, case.truth.read_bytes() if case.truth else b"")


def read_fps(data: bytes) -> float:
    """Return the frame rate of an mp4's first video stream, frames per second. Raises av.error.FFmpegError or ValueError."""
    with open_bytes(data) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        rate = container.streams.video[0].average_rate
    if not rate:
        raise ValueError("it has no frame rate")
    return float(rate)
