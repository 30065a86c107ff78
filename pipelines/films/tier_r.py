"""Tier R: draft truth files for real footage, to be completed by an annotator.

a2data triplet-bench make OUT VIDEOS --tier R
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2data.media import images, video
from pipelines.films.truth import Film, Shot, Truth, save


def draft(out: Path, videos: Sequence[str]) -> Truth:
    """Write a draft truth file for each video: frame count, thumbnails, and one shot without entities.

    Each video is decoded once. Raises ValueError if a file is not a video, or if two have the same name.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [Path(path).name for path in videos]
    duplicates = sorted({Path(n).stem for n in names if [Path(m).stem for m in names].count(Path(n).stem) > 1})
    if duplicates or not names:
        raise ValueError(
            f"two videos have the name {duplicates[0]}: rename one" if duplicates else "name the videos to be labelled"
        )
    truth = Truth("R", [draft_film(path) for path in videos])
    save(truth, out)
    return truth


def draft_film(path: str) -> Film:
    """Decode a video and return its draft truth. Thumbnails show the picture as coded, so a rotated video gets none."""
    info = video.probe(path)
    thumbs = [images.thumb(frame.picture.to_ndarray(format="rgb24")) for frame in video.read(path, info.stream)]
    return Film(
        Path(path).name,
        info.fps,
        len(thumbs),
        info.width,
        info.height,
        [],
        [Shot(0, len(thumbs))],
        labelled=["human"],
        thumbs=None if info.rotation else np.stack(thumbs),
    )
