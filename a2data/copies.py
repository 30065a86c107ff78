"""Copies of footage, told from other takes of the same scene by the thumbnails of their frames. Pure functions.

Two thumbnails are compared after each has been brought to zero mean and unit contrast, so that a copy may be brighter, flatter
or more compressed than its original. Their distance is the root mean square difference: 0 for the same picture, about 1.4 for
two that have nothing in common. Mirrored copies are found too. Copies cropped by more than a few hundredths, or under a large
overlay, are not: their thumbnails do differ.
"""

import numpy as np

COPY = (
    0.08  # re-encoded copies stay below 0.03, with a gamma of 0.7 below 0.07; other takes above 0.13 (docs/shards.md)
)
RUN = 5  # successive frames that must agree: a third of a second at 15 fps. One alone may be a pose that comes back
FLAT = 8.0  # grey levels of standard deviation below which a frame (black, fog) is like any other and proves nothing

HALVING = 0.2  # distance beyond COPY that halves the risk
HALVING_S = 10.0  # seconds between two clips of one source that halve the risk
SAME_SOURCE = 0.5  # risk of two clips of one source that follow one another, however different they look


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


def copy_risk(distance: float, gap_s: float, copy: float = COPY) -> float:
    """How likely a model that is given this picture learns to copy it, 0 to 1.

    1 - (1 - view) (1 - take), where view = 2 ** -((distance - copy) / HALVING), at most 1, says how like the nearest frame of
    the target it is, and take = SAME_SOURCE * 2 ** -(gap_s / HALVING_S) how near they are in one source; gap_s = inf: another.
    """
    view = 2.0 ** -(max(0.0, distance - copy) / HALVING)
    take = SAME_SOURCE * 2.0 ** -(gap_s / HALVING_S)
    return round(1 - (1 - view) * (1 - take), 5)
