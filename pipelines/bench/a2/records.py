"""The tables of `a2data bench run`: what is asked, what was sampled, what was measured. One case is a shard of its own."""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from a2data.media import video as codec
from a2data.media.video import open_bytes
from pipelines.bench.a2.cases import Case, picture


@dataclass(frozen=True)
class ReferenceImage:
    """A picture of somebody, something or some place, with its bytes: a worker elsewhere needs no folder of pictures."""

    role: str  # human, object, background
    label: str  # "" where nobody said
    suffix: str  # of its file: ".png"
    image: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def pixels(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB. Raises ValueError for what is no picture."""
        return picture(io.BytesIO(self.image), f"the picture {self.sha256[:16]}{self.suffix}")


@dataclass(frozen=True)
class CaseRow:
    """A case."""

    clip_id: str  # the case's id
    prompt: str
    shown: list[ReferenceImage]
    truth: bytes  # the mp4 that a case from held-out triplets was taken from; empty for others

    def of(self, role: str) -> list[ReferenceImage]:
        return [one for one in self.shown if one.role == role]

    @cached_property
    def true_frames(self) -> np.ndarray:
        """(t, h, w, 3) uint8 RGB of the truth. Raises ValueError where there is none."""
        return codec.decode(self.truth)


@dataclass(frozen=True)
class Sampled:
    """A system's video of a case."""

    clip_id: str
    fps: float
    video: bytes  # mp4

    @cached_property
    def frames(self) -> np.ndarray:
        """(t, h, w, 3) uint8 RGB."""
        return codec.decode(self.video)


@dataclass(frozen=True)
class Scored:
    """What one metric found in the video of one case."""

    clip_id: str
    metric: str
    value: float  # 0 where nothing was found
    found: bool
    seen: int  # frames in which it was found
    of: int  # frames in which it was looked for
    skipped: str  # why nothing was measured; then there is no number


def asked(case: Case) -> CaseRow:
    """A case with the bytes of its files."""
    shown = [ReferenceImage(e.role, e.label, e.path.suffix.lower(), e.path.read_bytes()) for e in case.elements]
    return CaseRow(case.id, case.prompt, shown, case.truth.read_bytes() if case.truth else b"")


def rate_fps(data: bytes) -> float:
    """The frames per second of an mp4's first video. Raises av.error.FFmpegError or ValueError for what is none."""
    with open_bytes(data) as container:
        if not container.streams.video:
            raise ValueError("there is no video in it")
        rate = container.streams.video[0].average_rate
    if not rate:
        raise ValueError("it says no frame rate")
    return float(rate)
