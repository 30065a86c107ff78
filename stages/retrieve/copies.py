"""Detection of copied footage, as opposed to other takes of a scene, from the thumbnails of frames. Pure functions.

Thumbnails are compared after normalisation to zero mean and unit contrast, so that a copy may be brighter, flatter or more
compressed than its original. Their distance is the root mean square difference: 0 for the same picture, about 1.4 for two
unrelated ones. Mirrored copies are found too. Copies cropped by more than a few hundredths, or under a large overlay, are not,
because their thumbnails differ. Their subjects do not, so the cut-outs are compared as well.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from a2data.media import images

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
FLAT_STAMP = 0.25  # variance, in steps of 2 grey levels, below which a cut-out resembles any other


class CopyDistances(NamedTuple):
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
HALF = _P // 2
# (216, 24) float32: which cell a pixel of the left half is in
CELLS = np.eye(HALF // CELL**2, dtype=np.float32)[(_Y * (WIDTH // 2 // CELL) + _X).ravel()]


class Thumbs(NamedTuple):
    """The thumbnails of a clip, ready to be compared.

    With `even` and `odd`, the sums and differences of a thumbnail's left half and of its mirrored right half, the product of two
    thumbnails is half of even * even + odd * odd, and that of one with the mirrored other half of even * even - odd * odd. These
    are sums of integers below 2**24, which float32 adds exactly in any order: the distance of two thumbnails does not depend on
    what else is compared in the same matrix product, nor on the machine.
    """

    halves: np.ndarray  # (t, 432) float32: even and odd, of grey levels minus their mean as an integer
    # (t, 3) float64: their sum, over the square root of half their number; mean square after normalisation, inf for a flat
    # thumbnail; factor of normalisation, over the square root of p
    about: np.ndarray
    # (t, 50) float32: even and odd of sums of cells after normalisation, a projection of the normalised pixels, then two columns,
    # whose product is half the sum of two powers, negative, 1e9 for a flat thumbnail
    coarse: np.ndarray

    @classmethod
    def of(cls, data: bytes | np.ndarray) -> "Thumbs":
        """Prepare thumbnails, (t, 18, 24) uint8 or their bytes."""
        pixels = np.frombuffer(data, np.uint8).astype(np.float32).reshape(-1, _P)
        total = pixels @ np.ones(_P, np.float32)
        rounded_mean = np.rint(total / _P)
        pixels -= rounded_mean[:, None]
        rows = pixels.reshape(-1, WIDTH)
        left, right = rows[:, : WIDTH // 2], rows[:, : WIDTH // 2 - 1 : -1]
        halves = np.empty_like(pixels)
        even, odd = halves[:, :HALF], halves[:, HALF:]
        even[:], odd[:] = (left + right).reshape(-1, HALF), (left - right).reshape(-1, HALF)
        residual = total.astype(np.float64) - rounded_mean.astype(np.float64) * _P
        centred = np.einsum("tp,tp->t", halves, halves).astype(np.float64) / 2 - residual**2 / _P
        deviation = np.sqrt(centred / _P)
        scale, flat = 1 / (np.maximum(deviation, FLAT) * _P**0.5), deviation < FLAT
        mean = residual * (2 * CELL**2 / _P)
        cells = np.concatenate([even @ CELLS - mean.astype(np.float32)[:, None], odd @ CELLS], axis=1)
        cells *= (scale / (CELL * 2**0.5)).astype(np.float32)[:, None]
        power = np.where(flat, 1e9, np.einsum("tp,tp->t", cells, cells)).astype(np.float32)
        coarse = np.column_stack([cells, power / -2, np.ones_like(power)])
        power_of_all = np.where(flat, np.inf, centred * scale**2)
        return cls(halves, np.stack([residual * (2 / _P) ** 0.5, power_of_all, scale], axis=1), coarse)

    def take(self, frames: Any) -> "Thumbs":
        """Return the thumbnails of some frames: a slice or indices."""
        return Thumbs(*(column[frames] for column in self))

    @property
    def num_frames(self) -> int:
        return len(self.about)


def concatenate_thumbs(clips: Sequence[Thumbs]) -> Thumbs:
    """Return the thumbnails of several clips as one."""
    return clips[0] if len(clips) == 1 else Thumbs(*map(np.concatenate, zip(*clips, strict=True)))


def squared_distances(a: Thumbs, b: Thumbs) -> np.ndarray:
    """Return the squared distance of each thumbnail of a to each of b, (2, ta, tb): plain, mirrored; inf if one is flat.

    Negative by rounding for equal ones.
    """
    even, odd = (a.halves[:, half] @ b.halves[:, half].T for half in (slice(HALF), slice(HALF, None)))
    (total, one, factor), (other_total, other, other_factor) = a.about.T, b.about.T
    offset, scale = np.multiply.outer(total, other_total), np.multiply.outer(factor, other_factor)
    power, out = np.add.outer(one, other), np.empty((2, *even.shape))
    for orientation, product in enumerate((even + odd, even - odd)):
        np.subtract(product, offset, out=out[orientation])
        out[orientation] *= scale
        np.subtract(power, out[orientation], out=out[orientation])
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


def may_repeat(clips: Sequence[Thumbs], others: Sequence[Thumbs], copy: float = COPY, run: int = RUN) -> np.ndarray:
    """Return for which pairs of clips `repeat_distance` may be below `copy`, (n, m) bool; it is not for the rest.

    Of each run of frames one has a number that leaves the rest run - 1 when divided by run, so only those of the others are
    compared, and of each thumbnail the means of cells, whose distance is never larger.
    """
    step = min(run, *(clip.num_frames for clip in (*clips, *others)))
    sampled = [clip.coarse[step - 1 :: step] for clip in others]
    all_coarse, rows, half = np.concatenate([clip.coarse for clip in clips]), np.concatenate(sampled), len(CELLS.T)
    # the last two columns the other way round
    even = [*range(half), -2, -1]
    products = all_coarse[:, even] @ rows[:, [*range(half), -1, -2]].T
    products += np.abs(all_coarse[:, half:-2] @ rows[:, half:-2].T)
    columns = np.maximum.reduceat(products, _starts(map(len, sampled)), axis=1)
    return -2 * np.maximum.reduceat(columns, _starts(clip.num_frames for clip in clips), axis=0) < (copy + 1e-3) ** 2


def _starts(lengths: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *lengths])[:-1]


def picture_distances(pictures: Thumbs, clips: Sequence[Thumbs]) -> np.ndarray:
    """Return the distance of each thumbnail to the nearest frame of each clip, (n, clips) float64; inf if it is flat."""
    starts = _starts(clip.num_frames for clip in clips)
    squared = np.minimum.reduceat(squared_distances(pictures, concatenate_thumbs(clips)).min(axis=0), starts, axis=1)
    return np.round(np.sqrt(np.maximum(squared, 0.0)), 5)


class Stamps(NamedTuple):
    """Stamps of n cut-outs, ready to be compared: sums of their products are integers below 2**24, exact in float32."""

    inside: np.ndarray  # (n, p) float32: the mask
    grey: np.ndarray  # (n, p) float32: inside it the grey level, in steps of 2, minus its mean as an integer
    square: np.ndarray  # (n, p) float32
    luma: np.ndarray  # (n,) mean grey level inside the mask, 0 to 255

    @classmethod
    def of(cls, stamps: Any) -> "Stamps":
        """Prepare stamps, (n, p) uint8, see a2data.media.images.stamp."""
        stamps = np.asarray(stamps, np.uint8)
        inside, grey = (stamps >> 7).astype(np.float32), (stamps & (images.INSIDE - 1)).astype(np.float32)
        count = np.maximum(inside.sum(1), 1)
        mean = grey.sum(1) / count  # outside the mask it is 0
        grey = (grey - np.rint(mean)[:, None]) * inside
        return cls(inside, grey, grey**2, 2.0 * mean + 0.5)

    def take(self, indices: np.ndarray) -> "Stamps":
        return Stamps(*(column[indices] for column in self))


def compare_stamps(a: Stamps, b: Stamps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distances of cut-outs in pixels, pose and light, see `CopyDistances`, (n, m) each, of each of a to each of b.

    Pixels, from Pearson's correlation, and pose are those of the orientation, plain or mirrored, that fits better. The
    correlation is 0 if one side is flat, or if both masks share fewer than three pixels.
    """
    size = len(a.luma)
    turned = [x.reshape(size, images.STAMP_PX, images.STAMP_PX)[:, :, ::-1].reshape(x.shape) for x in a[:3]]
    inside, grey, square = (np.concatenate(both).reshape(2 * size, -1) for both in zip(a, turned, strict=False))
    n, y, yy = np.split((inside @ np.concatenate(b[:3]).T).astype(np.float64), 3, axis=1)
    x, xy = np.split((grey @ np.concatenate(b[:2]).T).astype(np.float64), 2, axis=1)
    xx, union = (square @ b.inside.T).astype(np.float64), np.add.outer(inside.sum(1), b.inside.sum(1)) - n
    count = np.maximum(n, 1)
    var_x, var_y = xx / count - (x / count) ** 2, yy / count - (y / count) ** 2
    flat = (n < 3) | (np.minimum(var_x, var_y) < FLAT_STAMP)
    pixels = 1 - np.where(flat, 0.0, (xy - x * y / count) / count / np.sqrt(np.where(flat, 1.0, var_x * var_y)))
    pixels, pose = (np.round(v, 5).reshape(2, size, -1) for v in (pixels, 1 - n / np.maximum(union, 1)))
    better = (pixels[1] < pixels[0]) | ((pixels[1] == pixels[0]) & (pose[1] < pose[0]))
    light = np.round(np.abs(np.subtract.outer(a.luma, b.luma)).astype(np.float64) / 255, 5)
    return np.where(better, pixels[1], pixels[0]), np.where(better, pose[1], pose[0]), light


def outside(boxes: np.ndarray) -> np.ndarray:
    """Return which pixels of a thumbnail are outside boxes, (n, 432) bool. boxes: (n, 4) fractions of the picture, x0, y0, ..."""
    low = np.floor(boxes[:, :2] * (WIDTH, HEIGHT))[..., None]
    high = np.ceil(boxes[:, 2:] * (WIDTH, HEIGHT))[..., None]
    x, y = np.arange(WIDTH), np.arange(HEIGHT)
    across, down = (x >= low[:, 0]) & (x < high[:, 0]), (y >= low[:, 1]) & (y < high[:, 1])
    return ~(down[:, :, None] & across[:, None]).reshape(len(boxes), -1)


def copy_risk(distances: CopyDistances, copy: float = COPY) -> Any:
    """Return how likely a model that is given this picture learns to copy it, 0 to 1; (n,) if the distances are arrays.

    1 - (1 - view) (1 - take) (1 - subject), each a reason on its own: `view`, how similar its frame is to the nearest frame of
    the target, 2 ** -((frames - copy) / HALVING), at most 1; `take`, how close the clips are in one source, SAME_SOURCE * 2 **
    -(gap_s / HALVING_S); `subject`, how similar the cut-outs are: 2 ** -(the sum of pixels, pose, scale, light and place, each in
    units of the distance that halves it).
    """
    view = 2.0 ** -(np.maximum(0.0, distances.frames - copy) / HALVING)
    take = SAME_SOURCE * 2.0 ** -(distances.gap_s / HALVING_S)
    _, pixels, pose, scale, light, place, _ = distances
    halvings = [pixels / PIXELS, pose / POSE, scale / SCALE, light / LIGHT, place / PLACE]
    subject = 2.0 ** -sum(halvings)
    return np.round(1 - (1 - view) * (1 - take) * (1 - subject), 5)
