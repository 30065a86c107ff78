"""Cases and videos of A2-Bench, from arrays."""

from pathlib import Path

import numpy as np

from a2data.media import images
from pipelines.bench.a2.records import CaseRow, ReferenceImage, Sampled


def shown(role: str, picture: np.ndarray | tuple[int, int, int], label: str = "") -> ReferenceImage:
    """A picture, or one of a single colour."""
    pixels = np.full((40, 60, 3), picture, np.uint8) if isinstance(picture, tuple) else picture
    return ReferenceImage(role, label, ".png", images.to_png(pixels))


def asked(*pictures: ReferenceImage, prompt: str = "", truth: bytes = b"") -> CaseRow:
    return CaseRow("a", prompt, list(pictures), truth)


def sampled(frames: np.ndarray, fps: float = 15.0) -> Sampled:
    """A video with exactly these frames: nothing is lost in coding."""
    made = Sampled("a", fps, b"")
    made.__dict__["frames"] = frames
    return made


def write(path: Path, frames: np.ndarray, fps: float = 8.0) -> Path:
    from a2data.media import video

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(video.encode(frames, fps))
    return path
