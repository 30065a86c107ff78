"""From source frames to clip frames: resampling, scaling, rotation and letterbox removal; and measurements of pictures."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from a2data.media.video import Frame

LATE_S = 0.002  # containers round times to milliseconds: a frame this late still makes its tick
ANALYSIS_PX = 160  # width of the grey picture used for measurements
SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Planes(NamedTuple):
    """A picture as yuv420p, BT.601, limited range, which decoders assume without metadata."""

    y: np.ndarray  # (h, w) uint8, 16 to 235; h and w even
    u: np.ndarray  # (h / 2, w / 2) uint8
    v: np.ndarray


class TimedFrame(NamedTuple):
    """A frame and the number of clock ticks while it is on screen."""

    frame: Frame
    ticks: int
    after_gap: bool  # whether the previous frame was frozen for longer than the limit


def resample_to_fps(
    frames: Iterable[Frame], fps: float, max_gap_s: float, start_s: float | None = None
) -> Iterator[TimedFrame]:
    """Resample a whole video to one clock: tick k, at the first frame's time + k / fps, shows the latest frame due.

    The last frame is shown for as long as the one before it. A frame that is frozen for longer than max_gap_s gets only the ticks
    of that time. Buffers one frame. start_s: time of the video's first frame, if `frames` start later.
    """
    previous: Frame | None = None
    origin_s, tick, frame_duration_s, after_gap = 0.0, 0, 1 / fps, False
    for frame in frames:
        if previous is None:
            origin_s = frame.pts_s if start_s is None else start_s
            tick = ticks_before(frame.pts_s - origin_s, fps)
        else:
            frame_duration_s = frame.pts_s - previous.pts_s
            end = ticks_before(frame.pts_s - origin_s, fps)
            limit = ticks_before(previous.pts_s + max_gap_s - origin_s, fps)
            yield TimedFrame(previous, max(0, min(end, limit) - tick), after_gap)
            tick, after_gap = end, frame_duration_s > max_gap_s
        previous = frame
    if previous is not None:
        end = ticks_before(previous.pts_s + min(frame_duration_s, max_gap_s) - origin_s, fps)
        yield TimedFrame(previous, max(0, end - tick), after_gap)


def ticks_before(time_s: float, fps: float) -> int:
    """Return the number of ticks before a frame that starts time_s after the first.

    >>> [ticks_before(n / 30, 15) for n in range(5)]
    [0, 1, 1, 2, 2]
    """
    return max(0, math.ceil((time_s - LATE_S) * fps))


def fit_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """Return the size of a clip: the picture scaled down, never up, until its short side fits; even numbers."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


class Downscaler:
    """Scaler of frames to the clip's size and to the shot detectors' input. Reuses FFmpeg's scaler between frames."""

    def __init__(self, width: int, height: int, rotation: int) -> None:
        """width, height: size of the clip, after rotating the picture clockwise by `rotation` degrees."""
        self.size = (height, width) if rotation in (90, 270) else (width, height)
        self.quarters = rotation // 90
        self.large, self.small = VideoReformatter(), VideoReformatter()

    def planes(self, picture: av.VideoFrame) -> Planes:
        """Return the picture at the clip's size, upright."""
        scaled = self.large.reformat(
            picture,
            *self.size,
            format="yuv420p",
            interpolation=SCALING,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        rotated = (np.rot90(plane, -self.quarters) for plane in split_planes(scaled.to_ndarray()))
        return Planes(*(np.ascontiguousarray(plane) for plane in rotated))

    def detector_input(self, picture: av.VideoFrame, width: int, height: int) -> np.ndarray:
        """Return the picture as coded, scaled to (height, width, 3) uint8 RGB without keeping its aspect."""
        scaled = self.small.reformat(picture, width, height, format="rgb24", interpolation=SCALING, threads=1)
        return scaled.to_ndarray()


def split_planes(stacked: np.ndarray) -> Planes:
    """Return the planes of a yuv420p array in PyAV's layout, (h * 3 / 2, w)."""
    height, width = stacked.shape[0] * 2 // 3, stacked.shape[1]
    chroma = stacked[height:].reshape(2, height // 2, width // 2)
    return Planes(stacked[:height], chroma[0], chroma[1])


def to_frame(planes: Planes) -> av.VideoFrame:
    """Return planes as a frame for the encoder."""
    height, width = planes.y.shape
    stacked = np.concatenate([planes.y.ravel(), planes.u.ravel(), planes.v.ravel()]).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(stacked, format="yuv420p")


def crop(planes: Planes, box: tuple[int, int, int, int]) -> Planes:
    """Return the part inside a box of even coordinates."""
    x0, y0, x1, y1 = box
    half = np.s_[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2]
    return Planes(planes.y[y0:y1, x0:x1], planes.u[half], planes.v[half])


def crop_box(lumas: list[np.ndarray]) -> tuple[int, int, int, int]:
    """Return the box, in even pixels, that remains of pictures (y planes) without black bars on two opposite sides.

    A bar is flat and black in all pictures and has a counterpart on the opposite side, unlike a dark floor. If the bars would
    leave less than two fifths of a side, the picture is dark and is not cropped.
    """
    lightest = np.max(lumas, axis=0)
    darkest = np.min(lumas, axis=0)
    y0, y1 = _bounds_between_bars(lightest.max(axis=1), darkest.min(axis=1))
    x0, x1 = _bounds_between_bars(lightest[y0:y1].max(axis=0), darkest[y0:y1].min(axis=0))
    return x0, y0, x1, y1


def _bounds_between_bars(lightest: np.ndarray, darkest: np.ndarray) -> tuple[int, int]:
    size = len(lightest)
    lines = np.flatnonzero((lightest > 36) | (lightest.astype(int) - darkest > 14))
    if not len(lines):
        return 0, size
    bar_before, bar_after = int(lines[0]), size - 1 - int(lines[-1])
    if min(bar_before, bar_after) < 2 or size - bar_before - bar_after < size * 2 // 5:
        return 0, size
    # one more pixel on either side: scaling mixed it with the bar
    return -(-(bar_before + 1) // 2) * 2, (size - bar_after - 1) // 2 * 2


def grey(planes: Planes) -> np.ndarray:
    """Return the picture in grey, 0 to 255, at most ANALYSIS_PX wide."""
    height, width = planes.y.shape
    # averaging whole blocks is five times as fast; up to block - 1 lines at the edge are lost
    block = -(-width // ANALYSIS_PX)
    columns, rows = width // block, max(1, height // block)
    small = cv2.resize(planes.y[: rows * block, : columns * block], (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(np.maximum(small, 16), alpha=255 / 219, beta=-16 * 255 / 219)


def luma(picture: np.ndarray) -> float:
    """Return the mean of a grey picture, 0 to 1."""
    return float(picture.mean()) / 255


def sharpness(picture: np.ndarray) -> float:
    """Return the variance of the Laplacian of a grey picture.

    Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    return float(cv2.Laplacian(picture, cv2.CV_32F).var())


def motion(previous: np.ndarray, picture: np.ndarray) -> float:
    """Return the mean absolute difference of two grey pictures, 0 to 1."""
    return float(cv2.absdiff(previous, picture).mean()) / 255
