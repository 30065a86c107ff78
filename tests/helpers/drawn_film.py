"""A film drawn by hand, and settings with which a run over such films loads few networks."""

from pathlib import Path

import cv2
import numpy as np

from a2data.media import video

QUICK = [
    *(
        "--set",
        "segment.shot_model=",
        "--set",
        "score.text_model=",
        "--set",
        "select.max_text=inf",
        "--set",
        "select.max_burnt_text=inf",
    ),
    *("--set", "pack.required_roles=background", "--videos-per-shard", "2"),
]


def film(path: Path, seed: int, step_px: int = 6) -> Path:
    """Two seconds of a checked square that slides over a place of its own, 320 x 240."""
    rng = np.random.default_rng(seed)
    place = cv2.resize(rng.integers(40, 220, (12, 16, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (60, 60), interpolation=cv2.INTER_NEAREST)
    frames = np.stack([place] * 30)
    for n, frame in enumerate(frames):
        frame[80:140, 20 + step_px * n : 80 + step_px * n] = square
    path.write_bytes(video.encode(frames, 15.0))
    return path
