"""Copies of footage, told from other takes of the same scene by the thumbnails of their frames. Pure functions.

Two thumbnails are compared after each has been brought to zero mean and unit contrast, so that a copy may be brighter, flatter
or more compressed than its original. Their distance is the root mean square difference: 0 for the same picture, about 1.4 for
two that have nothing in common. Mirrored copies are found too. Copies cropped by more than a few hundredths, or under a large
overlay, are not: their thumbnails do differ. Their subjects do not, which is why two cut-outs are laid over each other, too.
"""

from typing import NamedTuple

import cv2
import numpy as np

# Copies coded again stay below 0.03, with a gamma of 0.7 below 0.07, mirrored under letterbox bars below 0.095; other takes of
# one person at one place are above 0.13 (docs/shards.md).
COPY = 0.1
RUN = 5  # successive frames that must agree: a third of a second at 15 fps. One alone may be a pose that comes back
FLAT = 8.0  # grey levels of standard deviation below which a frame (black, fog) is like any other and proves nothing

HALVING = 0.2  # distance beyond COPY that halves the risk
HALVING_S = 10.0  # seconds between two clips of one source that halve the risk
SAME_SOURCE = 0.5  # risk of two clips of one source that follow one another, however different they look
# How far apart two pictures must be, in each part alone, for the risk to be half of what it were otherwise.
PIXELS, POSE, SCALE, LIGHT, PLACE = 0.1, 0.2, 0.5, 0.1, 0.5
SIDE_PX = 48  # of the square into which the cut-outs are laid over each other


class Parts(NamedTuple):
    """What makes a picture of a subject another than the pictures that a clip shows of it; 0 of each, and it is the same."""

    frames: (
        float  # distance of its frame's thumbnail to the nearest of the clip, see `picture_distance`; inf: not known
    )
    pixels: float  # 1 - correlation of what both cut-outs show, laid over each other, mirrored or not; 0 to 2
    pose: float  # 1 - IoU of the silhouettes, laid over each other; 0 to 1
    scale: float  # |log2| of the ratio of their sides
    light: float  # difference of the mean luma inside the masks, 0 to 1
    place: float  # root mean square difference of the thumbnails outside both boxes, 0 to 1
    gap_s: float  # seconds between the two clips in one source; inf: of two sources


def normalise(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(t, h, w) uint8 thumbnails at zero mean and unit contrast, (t, h, w) float32, and which are flat, (t,) bool."""
    grey = thumbs.astype(np.float32)
    spread = grey.std(axis=(1, 2), keepdims=True)
    return (grey - grey.mean(axis=(1, 2), keepdims=True)) / np.maximum(spread, FLAT), spread[:, 0, 0] < FLAT


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(2, ta, tb) float32: of each thumbnail of one clip to each of another, as it is and mirrored; inf where one is flat."""
    (x, flat_x), (y, flat_y) = normalise(a), normalise(b)
    pixels = x[0].size
    flat = flat_x[:, None] | flat_y[None]
    out = []
    for other in (y, y[:, :, ::-1]):
        p, q = x.reshape(len(x), pixels), other.reshape(len(y), pixels)
        squared = (p**2).mean(1)[:, None] + (q**2).mean(1)[None] - 2 * (p @ q.T) / pixels
        out.append(np.where(flat, np.inf, np.sqrt(np.maximum(squared, 0))))
    return np.stack(out).astype(np.float32)


def repeat_distance(a: np.ndarray, b: np.ndarray, run: int = RUN) -> float:
    """How near two clips come to showing the same run of frames: over all runs, the smallest of their largest distances.

    a, b: (t, h, w) uint8 thumbnails at the same frame rate. inf where no run of frames can be compared.
    """
    run = min(run, len(a), len(b))
    table = distances(a, b)
    rows, columns = len(a) - run + 1, len(b) - run + 1
    worst = np.max([table[:, i : i + rows, i : i + columns] for i in range(run)], axis=0)
    return round(float(worst.min()), 5)


def picture_distance(picture: np.ndarray, clip: np.ndarray) -> float:
    """The distance of one thumbnail, (h, w) uint8, to the nearest frame of a clip, (t, h, w) uint8; inf where it is flat."""
    return round(float(distances(picture[None], clip).min()), 5)


class Stamp(NamedTuple):
    """A cut-out laid tight into a small square, in grey."""

    grey: np.ndarray  # (SIDE_PX, SIDE_PX) float32
    inside: np.ndarray  # (SIDE_PX, SIDE_PX) bool: where it shows anything


def compare_stamps(a: Stamp, b: Stamp) -> tuple[float, float, float]:
    """How far apart two cut-outs are in pixels, pose and light, see `Parts`.

    Pixels and pose are those of the way round, as it is or mirrored, that fits better.
    """
    (x, in_x), (y, in_y) = a, b
    light = abs(float(x[in_x].mean()) - float(y[in_y].mean())) / 255
    ways = []
    for other, inside in ((y, in_y), (y[:, ::-1], in_y[:, ::-1])):
        both = in_x & inside
        pose = 1 - both.sum() / (in_x | inside).sum()
        ways.append((1 - _correlation(x[both], other[both]), float(pose)))
    pixels, pose = min(ways)
    return round(pixels, 5), round(pose, 5), round(light, 5)


def stamp(rgba: np.ndarray) -> Stamp:
    """The stamp of a cut-out, (h, w, 4) uint8 RGBA."""
    alpha = rgba[..., 3] > 0
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    part = rgba[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    weight = (part[..., 3] > 0).astype(np.float32)
    grey = cv2.cvtColor(np.ascontiguousarray(part[..., :3]), cv2.COLOR_RGB2GRAY) * weight
    # area averaging that leaves out what is outside the mask
    total, covered = (cv2.resize(v, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for v in (grey, weight))
    return Stamp(total / np.maximum(covered, 1e-6), covered >= 0.5)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, -1 to 1; 0 where one side is flat, or where less than three pixels are there."""
    if x.size < 3 or min(x.std(), y.std()) < 1:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def around(a: np.ndarray, box_a: np.ndarray, b: np.ndarray, box_b: np.ndarray) -> float:
    """Root mean square difference of two thumbnails, (h, w) uint8, outside both boxes, 0 to 1; 0 where nothing is.

    boxes: x0, y0, x1, y1 as shares of the picture.
    """
    free = np.ones(a.shape, bool)
    height, width = a.shape
    for x0, y0, x1, y1 in (box_a, box_b):
        free[int(y0 * height) : int(np.ceil(y1 * height)), int(x0 * width) : int(np.ceil(x1 * width))] = False
    if not free.any():
        return 0.0
    return round(float(np.sqrt(np.mean((a[free] / 255.0 - b[free] / 255.0) ** 2))), 5)


def copy_risk(parts: Parts, copy: float = COPY) -> float:
    """How likely a model that is given this picture learns to copy it, 0 to 1.

    1 - (1 - view) (1 - take) (1 - subject), each of them a reason by itself: `view`, how like the nearest frame of the target
    its frame is, 2 ** -((frames - copy) / HALVING), at most 1; `take`, how near the clips are in one source, SAME_SOURCE * 2 **
    -(gap_s / HALVING_S); `subject`, how like the cut-outs are: 2 ** -(the sum of pixels, pose, scale, light and place, each in
    units of what halves it).
    """
    view = 2.0 ** -(max(0.0, parts.frames - copy) / HALVING)
    take = SAME_SOURCE * 2.0 ** -(parts.gap_s / HALVING_S)
    halvings = np.array([parts.pixels, parts.pose, parts.scale, parts.light, parts.place])
    subject = 2.0 ** -float((halvings / (PIXELS, POSE, SCALE, LIGHT, PLACE)).sum())
    return round(1 - (1 - view) * (1 - take) * (1 - subject), 5)
