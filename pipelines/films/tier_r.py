"""Tier R: truth files for real footage, for somebody who watches it to fill in. `a2data bench-data make OUT VIDEOS --tier R`."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from a2data.media import images, video
from pipelines.films.truth import Film, Shot, Truth, save


def draft(out: Path, videos: Sequence[str]) -> Truth:
    """Truth files that say of each video how many frames it has and what they look like: one shot, with nobody in it.

    Decodes each video once. Raises ValueError where one is no video, or where two have one name.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [Path(path).name for path in videos]
    twice = sorted({Path(n).stem for n in names if [Path(m).stem for m in names].count(Path(n).stem) > 1})
    if twice or not names:
        raise ValueError(
            f"two videos have the name {twice[0]}: rename one" if twice else "name the videos to be labelled"
        )
    truth = Truth("R", [draft_film(path) for path in videos])
    save(truth, out)
    return truth


def draft_film(path: str) -> Film:
    """What decoding a video says of it. The thumbnails are of the picture as coded: a rotated video gets none."""
    facts = video.probe(path)
    thumbs = [images.thumb(frame.picture.to_ndarray(format="rgb24")) for frame in video.read(path, facts.stream)]
    return Film(
        Path(path).name,
        facts.fps,
        len(thumbs),
        facts.width,
        facts.height,
        [],
        [Shot(0, len(thumbs))],
        labelled=["human"],
        thumbs=None if facts.rotation else np.stack(thumbs),
    )


def polygon_mask(points: Sequence[tuple[float, float]], height: int, width: int) -> np.ndarray:
    """(h, w) bool inside a polygon: what labelling tools write, as `truth.sight` takes it."""
    corners = np.rint(np.array(points, float)).astype(np.int32)
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [corners], 1) > 0
