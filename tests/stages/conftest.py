"""Rows to feed to a stage, drawn rather than found."""

from collections.abc import Callable

import numpy as np
import pytest

from a2data.media import video
from a2data.media.images import Box, cut_out, sha16, to_png, to_rle
from a2data.records import ClipVideo, Element


@pytest.fixture
def make_film() -> Callable[..., ClipVideo]:
    """make_film(frames): a film of (t, h, w, 3) uint8 RGB frames, really encoded."""

    def make(frames: np.ndarray, clip_id: str = "clip") -> ClipVideo:
        count, height, width, _ = frames.shape
        return ClipVideo(
            clip_id=clip_id,
            video_id="video",
            shot=0,
            shot_start=0,
            shot_end=count,
            transition_in="start",
            fps=15.0,
            width=width,
            height=height,
            source_frames=list(range(count)),
            source_pts_s=[n / 15 for n in range(count)],
            crop=(0.0, 0.0, float(width), float(height)),
            bars=0.0,
            luma=[0.5] * count,
            sharpness=[1.0] * count,
            motion=[0.0] * count,
            thumbnails=bytes(count * 18 * 24),
            video=video.encode(frames, 15.0, crf=1),
        )

    return make


@pytest.fixture
def make_element() -> Callable[..., Element]:
    """make_element(mask, seen): an element with that mask in its best frame; seen is {frame: box}, the first is the best."""

    def make(mask: np.ndarray, seen: dict[int, Box], name: str = "human/0", kind: str = "human", **other) -> Element:
        picture = np.full((*mask.shape, 3), 128, np.uint8)
        best = next(iter(seen))
        image = to_png(cut_out(picture, mask, seen[best]))
        given = {
            "clip_id": "clip",
            "element_id": f"clip/{name}",
            "kind": kind,
            "label": "person",
            "parent_id": "",
            "frame": best,
            "box": seen[best],
            "confidence": 0.9,
            "mask": to_rle(mask),
            "image": image,
            "image_sha256": sha16(image),
            "embedding": [],
            "embedder": "",
            "quality": 0.8,
            "seen_frames": sorted(seen),
            "seen_boxes": [seen[n] for n in sorted(seen)],
            "attributes": [],
        }
        return Element(**(given | other))

    return make
