"""Logos and watermarks: what stays in place through a video while its scenes change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import av
import cv2
import numpy as np

from a2data.media import images, video
from a2data.media.images import Box
from a2data.records import ClipThumbs, ClipVideo, Failure, Score
from a2data.stage import Stage
from model_zoo.quality import overlays

C = TypeVar("C", bound=ClipThumbs)

LONGER_SIDE_PX = 640  # of the source picture when marks are searched


@dataclass(frozen=True)
class Framed(ClipThumbs):
    """ClipThumbs with the region of the source picture that the clip shows."""

    crop: Box


@dataclass(frozen=True)
class Logos(Stage):
    """Clips of a video -> the score "logo" of each: fraction of the picture under marks that stay in place, 0 to 1.

    It is 0 for videos that show fewer than `model_zoo.quality.overlays.MIN_PICTURES` different places, such as a short shot of a
    static camera: a mark cannot be told from the scene there.
    """

    reads = {"segment": Framed}
    lookup_tables = {"segment": ClipVideo}
    writes = Score
    row_noun = "scores"
    per = "shard"
    accounts_for = "clip_id"
    version = 2

    enabled: bool = True
    """search for marks; false = every clip has the score 0"""

    def run(self, model: None, clips: list[Framed], *, shard: int, lookup: Any) -> Iterator[Score | Failure]:
        for _, group in groupby(sorted(clips, key=lambda clip: clip.clip_id), key=lambda clip: clip.video_id):
            film = Film(list(group), shard, lookup)
            found = film.marks() if self.enabled else []
            for clip in film.clips:
                try:
                    yield Score(clip.clip_id, "logo", film.covered(clip, found) if found else 0.0)
                except (av.error.FFmpegError, ValueError) as error:
                    yield Failure(clip.clip_id, f"{type(error).__name__}: {error}")


class Film:
    """The clips of a video, whose pictures are read when they are needed, on the grid of the source picture."""

    def __init__(self, clips: list[Framed], shard: int, lookup: Any):
        self.clips, self.shard, self.lookup = clips, shard, lookup
        right, bottom = max(clip.crop[2] for clip in clips), max(clip.crop[3] for clip in clips)
        self.scale = LONGER_SIDE_PX / max(right, bottom)
        self.shape = round(bottom * self.scale), round(right * self.scale)

    def marks(self) -> list[overlays.Mark]:
        """Return the marks of the video."""
        step = -(-len(self.clips) // (4 * overlays.MAX_PICTURES))
        pictures = scenes(self.clips[::step])
        gradients = []
        for clip, pairs in groupby(pictures, key=lambda pair: pair[0]):
            try:
                gradients += self.gradients(clip, [frame for _, frame in pairs])
            except (av.error.FFmpegError, ValueError):  # reported when the clip is scored
                continue
        return overlays.marks(gradients)

    def covered(self, clip: Framed, marks: list[overlays.Mark]) -> float:
        """Return the fraction of a clip's picture under the marks that its first frame shows."""
        (first,) = self.gradients(clip, [0])
        areas = [mark.area for mark in marks if overlays.correlation(mark, first) >= overlays.MIN_KNOWN_CORRELATION]
        return float(np.any(areas, axis=0)[self.window(clip)].mean()) if areas else 0.0

    def window(self, clip: Framed) -> tuple[slice, slice]:
        """Return the part of the grid that a clip shows."""
        x0, y0, x1, y1 = (round(v * self.scale) for v in clip.crop)
        return np.s_[y0:y1, x0:x1]

    def gradients(self, clip: Framed, numbers: list[int]) -> list[np.ndarray]:
        """Return the gradients of frames of a clip on the grid, (h, w, 2) float32; zero outside the clip's window."""
        row = self.lookup("segment", self.shard, "clip_id", [clip.clip_id])[clip.clip_id]
        gradients = []
        for grey in greys(row.video, numbers):
            gradient = np.zeros((*self.shape, 2), np.float32)
            window = gradient[self.window(clip)]
            window[:] = overlays.gradient(cv2.resize(grey, window.shape[1::-1], interpolation=cv2.INTER_AREA))
            gradients.append(gradient)
        return gradients


def scenes(clips: Sequence[C]) -> list[tuple[C, int]]:
    """Return (clip, frame) of the pictures of different scenes in which marks are searched; none if there are too few."""
    candidates, thumbs = list[tuple[C, int]](), list[np.ndarray]()
    for clip in clips:
        clip_thumbs = images.thumbs(clip.thumbnails)
        for frame in sorted({0, len(clip_thumbs) // 2, len(clip_thumbs) - 1}):
            candidates.append((clip, frame))
            thumbs.append(clip_thumbs[frame])
    chosen = [candidates[n] for n in overlays.different(np.stack(thumbs))]
    return chosen if len(chosen) >= overlays.MIN_PICTURES else []


def greys(data: bytes, numbers: list[int]) -> Iterator[np.ndarray]:
    """Yield frames of an mp4 in grey, (h, w) uint8; numbers ascend. Nothing is decoded beyond the last."""
    with video.open_bytes(data) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in numbers:
                yield frame.to_ndarray(format="gray")
            if number == numbers[-1]:
                return
    raise ValueError(f"the clip has no frame {numbers[-1]}")
