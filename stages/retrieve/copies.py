"""Detection of copied footage, as opposed to other takes of a scene, from the thumbnails of frames. Pure functions.

Thumbnails are compared after normalisation to zero mean and unit contrast, so that a copy may be brighter, flatter or more
compressed than its original. Their distance is the root mean square difference: 0 for the same picture, about 1.4 for two
unrelated ones. Mirrored copies are found too. Copies cropped by more than a few hundredths, or under a large overlay, are not,
because their thumbnails differ. Their subjects do not, so the cut-outs are compared as well.
"""

from typing import NamedTuple

import cv2
import numpy as np

# Re-encoded copies stay below 0.03, with a gamma of 0.7 below 0.07, mirrored under letterbox bars below 0.095; other takes of one
# person in one place are above 0.13 (docs/shards.md).
COPY = 0.1
RUN = 5  # successive frames that must agree: a third of a second at 15 fps; a single one may be a recurring pose
FLAT = 8.0  # standard deviation, grey levels, below which a frame (black, fog) resembles any other and proves nothing

HALVING = 0.2  # distance beyond COPY that halves the risk
HALVING_S = 10.0  # gap, in seconds, between two clips of one source that halves the risk
SAME_SOURCE = 0.5  # risk of two adjacent clips of one source, however different they look
# Distance of two pictures, in each component alone, that halves the risk.
PIXELS, POSE, SCALE, LIGHT, PLACE = 0.1, 0.2, 0.5, 0.1, 0.5
SIDE_PX = 48  # side of the square to which cut-outs are scaled


class Parts(NamedTuple):
    """Distances between a picture of a subject and the pictures a clip shows of it; all 0 for the same picture."""

    frames: float  # distance of its frame's thumbnail to the nearest of the clip, see `picture_distance`; inf: unknown
    pixels: float  # 1 - correlation of the area both aligned cut-outs show, mirrored or not; 0 to 2
    pose: float  # 1 - IoU of the aligned silhouettes; 0 to 1
    scale: float  # |log2| of the ratio of their sides
    light: float  # difference of mean luma inside the masks, 0 to 1
    place: float  # root mean square difference of the thumbnails outside both boxes, 0 to 1
    gap_s: float  # seconds between the two clips in one source; inf for different sources


def normalise(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return thumbnails (t, h, w) uint8 at zero mean and unit contrast, (t, h, w) float32, and which are flat, (t,) bool."""
    grey = thumbs.astype(np.float32)
    spread = grey.std(axis=(1, 2), keepdims=True)
    return (grey - grey.mean(axis=(1, 2), keepdims=True)) / np.maximum(spread, FLAT), spread[:, 0, 0] < FLAT


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of each thumbnail of a clip to each of another, (2, ta, tb): plain, mirrored; inf if one is flat."""
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
    """Return how close two clips come to showing the same run of frames: the minimum over all runs of the largest distance.

    a, b: (t, h, w) uint8 thumbnails at the same frame rate. inf if no run of frames can be compared.
    """
    run = min(run, len(a), len(b))
    table = distances(a, b)
    rows, columns = len(a) - run + 1, len(b) - run + 1
    worst = np.max([table[:, i : i + rows, i : i + columns] for i in range(run)], axis=0)
    return round(float(worst.min()), 5)


def picture_distance(picture: np.ndarray, clip: np.ndarray) -> float:
    """Return the distance of a thumbnail, (h, w) uint8, to the nearest frame of a clip, (t, h, w) uint8; inf if it is flat."""
    return round(float(distances(picture[None], clip).min()), 5)


class Stamp(NamedTuple):
    """A cut-out cropped to its mask and scaled to a small square, in grey."""

    grey: np.ndarray  # (SIDE_PX, SIDE_PX) float32
    inside: np.ndarray  # (SIDE_PX, SIDE_PX) bool: the scaled mask


def compare_stamps(a: Stamp, b: Stamp) -> tuple[float, float, float]:
    """Return the distances of two cut-outs in pixels, pose and light, see `Parts`.

    Pixels and pose are those of the orientation, plain or mirrored, that fits better.
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
    """Return the stamp of a cut-out, (h, w, 4) uint8 RGBA."""
    alpha = rgba[..., 3] > 0
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    part = rgba[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    weight = (part[..., 3] > 0).astype(np.float32)
    grey = cv2.cvtColor(np.ascontiguousarray(part[..., :3]), cv2.COLOR_RGB2GRAY) * weight
    # area averaging that excludes pixels outside the mask
    total, covered = (cv2.resize(v, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for v in (grey, weight))
    return Stamp(total / np.maximum(covered, 1e-6), covered >= 0.5)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; 0 if one side is flat or there are fewer than three pixels."""
    if x.size < 3 or min(x.std(), y.std()) < 1:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def around(a: np.ndarray, box_a: np.ndarray, b: np.ndarray, box_b: np.ndarray) -> float:
    """Return the root mean square difference of two thumbnails, (h, w) uint8, outside both boxes, 0 to 1; 0 if nothing is left.

    boxes: x0, y0, x1, y1 as fractions of the picture.
    """
    free = np.ones(a.shape, bool)
    height, width = a.shape
    for x0, y0, x1, y1 in (box_a, box_b):
        free[int(y0 * height) : int(np.ceil(y1 * height)), int(x0 * width) : int(np.ceil(x1 * width))] = False
    if not free.any():
        return 0.0
    return round(float(np.sqrt(np.mean((a[free] / 255.0 - b[free] / 255.0) ** 2))), 5)


def copy_risk(parts: Parts, copy: float = COPY) -> float:
    """Return how likely a model that is given this picture learns to copy it, 0 to 1.

    1 - (1 - view) (1 - take) (1 - subject), each a reason on its own: `view`, how similar its frame is to the nearest frame of
    the target, 2 ** -((frames - copy) / HALVING), at most 1; `take`, how close the clips are in one source, SAME_SOURCE * 2 **
    -(gap_s / HALVING_S); `subject`, how similar the cut-outs are: 2 ** -(the sum of pixels, pose, scale, light and place, each in
    units of the distance that halves it).
    """
    view = 2.0 ** -(max(0.0, parts.frames - copy) / HALVING)
    take = SAME_SOURCE * 2.0 ** -(parts.gap_s / HALVING_S)
    halvings = np.array([parts.pixels, parts.pose, parts.scale, parts.light, parts.place])
    subject = 2.0 ** -float((halvings / (PIXELS, POSE, SCALE, LIGHT, PLACE)).sum())
    return round(1 - (1 - view) * (1 - take) * (1 - subject), 5)
