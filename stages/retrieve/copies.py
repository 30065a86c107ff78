"""Detection of copied footage, as opposed to other takes of a scene, from the thumbnails of frames. Pure functions.

Thumbnails are compared after normalisation to zero mean and unit contrast, so that a copy may be brighter, flatter or more
compressed than its original. Their distance is the root mean square difference: 0 for the same picture, about 1.4 for two
unrelated ones. Mirrored copies are found too. Copies cropped by more than a few hundredths, or under a large overlay, are not,
because their thumbnails differ. Their subjects do not, so the cut-outs are compared as well.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
HEIGHT, WIDTH = 18, 24  # of a thumbnail
CELL = 3  # pixels of a cell's side
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


_Y, _X = np.mgrid[:HEIGHT, : WIDTH // 2] // CELL
_P = HEIGHT * WIDTH
# (216, 24) float32: which cell a pixel of the left half is in
CELLS = np.eye(_P // 2 // CELL**2, dtype=np.float32)[(_Y * (WIDTH // 2 // CELL) + _X).ravel()]


class Thumbs(NamedTuple):
    """The thumbnails of a clip, ready to be compared.

    With `even` and `odd`, the sums and differences of a thumbnail's left half and of its mirrored right half, the product of two
    thumbnails is half of even * even + odd * odd, and that of one with the mirrored other half of even * even - odd * odd. These
    are sums of integers below 2**24, which float32 adds exactly in any order: the distance of two thumbnails does not depend on
    what else is compared in the same matrix product, nor on the machine.
    """

    even: np.ndarray  # (t, 216) float32, of grey levels minus their mean as an integer
    odd: np.ndarray  # (t, 216) float32
    total: np.ndarray  # (t,) float64: sum of these levels, over the square root of half their number
    power: np.ndarray  # (t,) float64: mean square after normalisation; inf for a flat thumbnail
    scale: np.ndarray  # (t,) float64: factor of normalisation, over the square root of p
    # (t, 26) and (t, 24) float32: the same two of sums of cells after normalisation, a projection of the normalised pixels;
    # coarse_even has two more columns, whose product is half the sum of their powers, negative, 1e9 for a flat thumbnail
    coarse_even: np.ndarray
    coarse_odd: np.ndarray

    @classmethod
    def of(cls, data: bytes | np.ndarray) -> "Thumbs":
        """Prepare thumbnails, (t, 18, 24) uint8 or their bytes."""
        pixels = np.frombuffer(data, np.uint8).astype(np.float32).reshape(-1, _P)
        total = pixels @ np.ones(_P, np.float32)
        level = np.rint(total / _P)
        pixels -= level[:, None]
        rows = pixels.reshape(-1, WIDTH)
        left, right = rows[:, : WIDTH // 2], rows[:, : WIDTH // 2 - 1 : -1]
        even, odd = ((half).reshape(-1, _P // 2) for half in (left + right, left - right))
        left_over = total.astype(np.float64) - level.astype(np.float64) * _P
        squares = (np.einsum("tp,tp->t", even, even) + np.einsum("tp,tp->t", odd, odd)).astype(np.float64) / 2
        centred = squares - left_over**2 / _P
        spread = np.sqrt(centred / _P)
        scale, flat = 1 / (np.maximum(spread, FLAT) * _P**0.5), spread < FLAT
        cells = (scale / (CELL * 2**0.5)).astype(np.float32)[:, None]
        coarse = (even @ CELLS - (left_over * (2 * CELL**2 / _P)).astype(np.float32)[:, None]) * cells
        coarse_odd = (odd @ CELLS) * cells
        power = np.where(flat, 1e9, (coarse**2).sum(1) + (coarse_odd**2).sum(1)).astype(np.float32)
        coarse = np.column_stack([coarse, power / -2, np.ones_like(power)])
        power_of_all = np.where(flat, np.inf, centred * scale**2)
        return cls(even, odd, left_over * (2 / _P) ** 0.5, power_of_all, scale, coarse, coarse_odd)

    def at(self, frames: Any) -> "Thumbs":
        """Return the thumbnails of some frames: a slice or indices."""
        return Thumbs(*(column[frames] for column in self))

    @property
    def num_frames(self) -> int:
        return len(self.even)


def joined(several: Sequence[Thumbs]) -> Thumbs:
    """Return the thumbnails of several clips as one."""
    return several[0] if len(several) == 1 else Thumbs(*map(np.concatenate, zip(*several, strict=True)))


def squared_distances(a: Thumbs, b: Thumbs) -> np.ndarray:
    """Return the squared distance of each thumbnail of a to each of b, (2, ta, tb): plain, mirrored; inf if one is flat.

    Negative by rounding for equal ones.
    """
    even, odd = a.even @ b.even.T, a.odd @ b.odd.T
    offset, scale = np.multiply.outer(a.total, b.total), np.multiply.outer(a.scale, b.scale)
    power, out = np.add.outer(a.power, b.power), np.empty((2, *even.shape))
    for way, product in enumerate((even + odd, even - odd)):
        np.subtract(product, offset, out=out[way])
        out[way] *= scale
        np.subtract(power, out[way], out=out[way])
    return out


def repeat_distance(a: Thumbs, b: Thumbs, run: int = RUN) -> float:
    """Return how close two clips come to showing the same run of frames: the minimum over all runs of the largest distance.

    The clips have the same frame rate. inf if no run of frames can be compared.
    """
    run = min(run, a.num_frames, b.num_frames)
    worst, length = squared_distances(a, b), 1  # the largest of `length` frames
    while length < run:
        step = min(length, run - length)
        worst, length = np.maximum(worst[:, :-step, :-step], worst[:, step:, step:]), length + step
    return round(float(np.sqrt(max(worst.min(), 0.0))), 5)


def may_repeat(some: Sequence[Thumbs], others: Sequence[Thumbs], copy: float = COPY, run: int = RUN) -> np.ndarray:
    """Return for which pairs of clips `repeat_distance` may be below `copy`, (n, m) bool; it is not for the rest.

    Of each run of frames one has a number that leaves the rest run - 1 when divided by run, so only those of the others are
    compared, and of each thumbnail the means of cells, whose distance is never larger.
    """
    step = min(run, *(clip.num_frames for clip in (*some, *others)))
    few = [clip.at(slice(step - 1, None, step)) for clip in others]
    (even, odd), (rows, odd_rows) = (
        [np.concatenate([getattr(clip, name) for clip in clips]) for name in ("coarse_even", "coarse_odd")]
        for clips in (some, few)
    )
    # the two more columns the other way round
    alike = even @ np.concatenate([rows[:, :-2], rows[:, :-3:-1]], axis=1).T
    alike += np.abs(odd @ odd_rows.T)
    columns = np.maximum.reduceat(alike, _starts(few), axis=1)
    return -2 * np.maximum.reduceat(columns, _starts(some), axis=0) < (copy + 1e-3) ** 2


def _starts(clips: Sequence[Thumbs]) -> np.ndarray:
    return np.cumsum([0, *(clip.num_frames for clip in clips[:-1])])


def picture_distances(pictures: Thumbs, clips: Sequence[Thumbs]) -> np.ndarray:
    """Return the distance of each thumbnail to the nearest frame of each clip, (n, clips) float64; inf if it is flat."""
    near = np.minimum.reduceat(squared_distances(pictures, joined(clips)).min(axis=0), _starts(clips), axis=1)
    return np.round(np.sqrt(np.maximum(near, 0.0)), 5)


class Stamp(NamedTuple):
    """A cut-out cropped to its mask and scaled to a small square, in grey."""

    grey: np.ndarray  # (SIDE_PX, SIDE_PX) float32
    inside: np.ndarray  # (SIDE_PX, SIDE_PX) bool: the scaled mask


def compare_stamps(a: Stamp, b: Stamp) -> tuple[float, float, float]:
    """Return the distances of two cut-outs in pixels, pose and light, see `Parts`.

    Pixels and pose are those of the orientation, plain or mirrored, that fits better.
    """
    (x, in_x), (y, in_y) = a, b
    light = abs(brightness(a) - brightness(b)) / 255
    ways = []
    for other, inside in ((y, in_y), (y[:, ::-1], in_y[:, ::-1])):
        both = in_x & inside
        pose = 1 - both.sum() / (in_x | inside).sum()
        ways.append((1 - _correlation(x[both], other[both]), float(pose)))
    pixels, pose = min(ways)
    return round(pixels, 5), round(pose, 5), round(light, 5)


def brightness(one: Stamp) -> float:
    """Return the mean grey level of a stamp inside its mask, 0 to 255."""
    return float(one.grey[one.inside].mean())


def stamp(rgba: np.ndarray) -> Stamp:
    """Return the stamp of a cut-out, (h, w, 4) uint8 RGBA."""
    alpha = rgba[..., 3] > 0
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    part = rgba[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    weight = (part[..., 3] > 0).astype(np.float32)
    grey = cv2.cvtColor(part, cv2.COLOR_RGBA2GRAY) * weight
    # area averaging that excludes pixels outside the mask
    total, covered = (cv2.resize(v, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for v in (grey, weight))
    return Stamp(total / np.maximum(covered, 1e-6), covered >= 0.5)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; 0 if one side is flat or there are fewer than three pixels."""
    if x.size < 3 or min(x.std(), y.std()) < 1:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def outside(box: np.ndarray) -> np.ndarray:
    """Return which pixels of a thumbnail are outside a box, (18, 24) bool. box: x0, y0, x1, y1 as fractions of the picture."""
    free = np.ones((HEIGHT, WIDTH), bool)
    x0, y0, x1, y1 = box
    free[int(y0 * HEIGHT) : int(np.ceil(y1 * HEIGHT)), int(x0 * WIDTH) : int(np.ceil(x1 * WIDTH))] = False
    return free


def copy_risk(parts: Parts, copy: float = COPY) -> Any:
    """Return how likely a model that is given this picture learns to copy it, 0 to 1; (n,) if the parts are arrays.

    1 - (1 - view) (1 - take) (1 - subject), each a reason on its own: `view`, how similar its frame is to the nearest frame of
    the target, 2 ** -((frames - copy) / HALVING), at most 1; `take`, how close the clips are in one source, SAME_SOURCE * 2 **
    -(gap_s / HALVING_S); `subject`, how similar the cut-outs are: 2 ** -(the sum of pixels, pose, scale, light and place, each in
    units of the distance that halves it).
    """
    view = 2.0 ** -(np.maximum(0.0, parts.frames - copy) / HALVING)
    take = SAME_SOURCE * 2.0 ** -(parts.gap_s / HALVING_S)
    halvings = [parts.pixels / PIXELS, parts.pose / POSE, parts.scale / SCALE, parts.light / LIGHT, parts.place / PLACE]
    subject = 2.0 ** -sum(halvings)
    return np.round(1 - (1 - view) * (1 - take) * (1 - subject), 5)
