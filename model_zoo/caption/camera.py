"""How the camera moved: pan, tilt, zoom, roll, parallax and shake, from the background between sampled frames.

Corners (Shi and Tomasi 1994) are followed by pyramidal Lucas-Kanade (Bouguet 2001) and a similarity is fitted to them by
RANSAC (Fischler and Bolles 1981). What stands in front is masked out first: a person who fills the picture and walks would
otherwise be taken for a pan. Nobody may have said who stands in front; so the corners are sorted into layers, each with a move
of its own (RANSAC again on what is left over, Torr 1998), and the background is the layer that reaches furthest along the left,
the right and the upper border, not the one with the most corners: a person in a patterned coat has more of them than a plain
wall, but stands on the lower border and seldom fills two others. What a move is called is said in
model_zoo/caption/camera_moves.py.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

Box = tuple[float, float, float, float]

WIDTH_PX = 320  # frames are scaled to this width before corners are followed
SAMPLE_HZ = 5.0  # steps a second; slow moves need a baseline, fast ones must stay within reach of Lucas-Kanade
FAR = 0.06  # widths of the picture; a step further than that is measured from frame to frame
MIN_CORNERS = 12  # fewer, and the background is too plain to tell
GRID = (4, 8)  # rows and columns of the cells from which corners are taken …
PER_CELL = 8  # … at most so many each, the strongest
QUALITY = 0.0003  # of the strongest corner's: a plain wall behind a patterned coat has corners too, if weak ones
LAYERS = 4  # moves that are looked for in a step: the background, what stands or goes in front of it
INLIER_PX = 0.6  # a corner so far from where a move takes it belongs to its layer
MIN_REACH = 0.3  # share of what all corners reach, that a layer must reach to be the background
LOST = 0.5  # one that reaches less than this share of all corners that were taken may have been too fast to follow
LAYER_PX = 1.5  # a corner that leaves the common move by more, along it, lies nearer or further than the rest
LEAST_AHEAD = 0.25  # share of the common move that a layer makes at least, and in the same direction
LAYER_SHARE = 0.08  # so many corners make a layer …
LAYER_SPAN = 0.6  # … if they lie over this share of the picture's width or height: a passer-by does not


class Step(NamedTuple):
    """What the background did from one sampled frame to the next, about the centre of the picture."""

    dx: float  # to the right, in widths of the picture
    dy: float  # down, in widths of the picture
    scale: float  # natural logarithm; above 0 it grew
    turn: float  # degrees, clockwise as seen
    parallax: float = 0.0  # share of the corners in a layer that moved further or less far than the rest, 0 to 1


class Move(NamedTuple):
    """What the camera did in a clip."""

    pan: float  # to the right, in widths of the picture
    tilt: float  # up, in widths of the picture
    zoom: float  # in, as the natural logarithm of the scale
    roll: float  # clockwise, degrees
    shake: float  # median of what a steady move leaves over of each step, in widths of the picture
    duration_s: float
    known: float  # share of the steps that could be measured, 0 to 1
    parallax: float = 0.0  # median of the steps': above 0 only where the camera went from its place


def measure(frames: np.ndarray, fps: float, boxes: Sequence[Sequence[Box]]) -> Move:
    """The camera's move over a clip.

    frames: (t, h, w, 3) uint8 RGB. boxes: for each frame, what stands in front and is not to be followed, in pixels.
    """
    chosen = sampled(len(frames), fps)
    steps = follow(frames, chosen, boxes)
    return total(steps, len(steps) * step_s(fps))


def sampled(count: int, fps: float) -> list[int]:
    """The frames between which the camera is measured: about SAMPLE_HZ of them a second, the first included."""
    return list(range(0, count, stride(fps)))


def stride(fps: float) -> int:
    """Frames from one sampled frame to the next."""
    return max(1, round(fps / SAMPLE_HZ))


def step_s(fps: float) -> float:
    """Seconds from one sampled frame to the next."""
    return stride(fps) / fps


def follow(frames: np.ndarray, chosen: Sequence[int], boxes: Sequence[Sequence[Box]]) -> list[Step | None]:
    """What the background did between each two successive chosen frames; None where it is too plain to tell.

    A step that is too far for Lucas-Kanade, or so far that what is near has left the picture, is made of the steps from frame
    to frame in between. So is one in which most of the corners were lost: where the camera moves fast and goes with somebody,
    only he can be followed.
    """
    zoom = WIDTH_PX / frames.shape[2]
    steps: list[Step | None] = []
    for first, last in pairwise(chosen):
        fast = bool(steps) and _far(steps[-1])  # then so is the next as a rule, and the long way need not be tried
        found, sure = (None, False) if fast else _step(frames, first, last, boxes, zoom)
        if last - first > 1 and (not sure or _far(found)):
            small = [_step(frames, i, i + 1, boxes, zoom)[0] for i in range(first, last)]
            known = [s for s in small if s is not None]
            found = compose(known) if len(known) == len(small) else found
        if fast and found is None:
            found, _ = _step(frames, first, last, boxes, zoom)
        steps.append(found)
    return steps


def _far(step: Step | None) -> bool:
    return step is not None and math.hypot(step.dx, step.dy) > FAR


def _step(
    frames: np.ndarray, first: int, last: int, boxes: Sequence[Sequence[Box]], zoom: float
) -> tuple[Step | None, bool]:
    before, after = _grey(frames[first], zoom), _grey(frames[last], zoom)
    free = np.full(before.shape, 255, np.uint8)
    for x0, y0, x1, y1 in boxes[first]:
        free[max(0, int(y0 * zoom) - 4) : int(y1 * zoom) + 5, max(0, int(x0 * zoom) - 4) : int(x1 * zoom) + 5] = 0
    return step(before, after, free)


def _grey(frame: np.ndarray, zoom: float) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)


def compose(steps: Sequence[Step]) -> Step:
    """One step that does what these do one after the other; Step(0, 0, 0, 0) for none."""
    shift, factor = 0j, 1 + 0j
    for s in steps:
        turned = math.exp(s.scale) * complex(math.cos(math.radians(s.turn)), math.sin(math.radians(s.turn)))
        shift, factor = turned * shift + complex(s.dx, s.dy), turned * factor
    scale, turn = sum(s.scale for s in steps), sum(s.turn for s in steps)
    return Step(shift.real, shift.imag, scale, turn, max((s.parallax for s in steps), default=0.0))


def step(before: np.ndarray, after: np.ndarray, free: np.ndarray) -> tuple[Step | None, bool]:
    """What the background did from one grey (h, w) uint8 picture to the next, where `free` (h, w) uint8 is not 0.

    Also whether that is sure: False where most of the corners were lost, and what was followed may be no background.
    """
    taken = corners(before, free)
    if len(taken) < MIN_CORNERS:
        return None, False
    here, there = followed(before, after, taken)
    weights = _weights(taken, before.shape)
    found = layers(here, there)
    if not found:
        return None, False
    matrix, of_it = max(found, key=lambda layer: reach(here[layer[1]], weights, before.shape))
    reached = reach(here[of_it], weights, before.shape)
    if reached < MIN_REACH * reach(here, weights, before.shape):
        return None, False
    height, width = before.shape
    centre = np.array([width / 2, height / 2])
    dx, dy = matrix[:, :2] @ centre + matrix[:, 2] - centre
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    turn = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    layer = parallax(here, there, matrix, (height, width))
    sure = reached >= LOST * reach(taken, weights, before.shape)
    return Step(float(dx) / width, float(dy) / width, float(np.log(scale)), turn, layer), sure


def corners(grey: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(n, 2) float32, x and y of the strongest corners of each cell of the grid."""
    strength = cv2.cornerMinEigenVal(grey, 3)
    peak = (strength == cv2.dilate(strength, np.ones((5, 5), np.uint8))) & (free > 0)
    ys, xs = np.nonzero(peak & (strength > QUALITY * max(float(strength.max()), 1e-6)))
    cells = _cells(np.c_[xs, ys], grey.shape)
    order = np.lexsort((-strength[ys, xs], cells))  # cell by cell, the strongest first
    rank = np.arange(len(order)) - np.searchsorted(cells[order], cells[order])
    kept = order[rank < PER_CELL]
    return np.c_[xs, ys][kept].astype(np.float32)


def _cells(points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(n,) int: in which cell of the grid (n, 2) points lie, row by row."""
    rows, columns = GRID
    return (points[:, 1] * rows // size[0]).astype(int) * columns + (points[:, 0] * columns // size[1]).astype(int)


def _weights(taken: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(rows, columns): what a corner of each cell counts, so that all that were taken from a cell count 1 together."""
    return 1 / np.maximum(np.bincount(_cells(taken, size), minlength=GRID[0] * GRID[1]), 1)


def reach(points: np.ndarray, weights: np.ndarray, size: tuple[int, ...]) -> float:
    """How far (n, 2) corners reach over the picture and along its left, right and upper border, 0 to 1.

    weights: what a corner of each cell counts. The lower border is what a person stands on, and is not asked.
    """
    cells = _cells(points, size)
    filled = np.bincount(cells, weights[cells], minlength=GRID[0] * GRID[1]).reshape(GRID)
    return float(np.mean([filled[:, 0].mean(), filled[:, -1].mean(), filled[0].mean(), filled.mean()]))


def followed(before: np.ndarray, after: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (n, 2) corners were and where they went, each (m, 2): those that are found again on the way back."""
    there, found = _flow(before, after, taken)
    back, refound = _flow(after, before, there)
    good = found & refound & (np.linalg.norm(back - taken, axis=1) < 0.5)
    return taken[good], there[good]


def layers(here: np.ndarray, there: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The similarities that take corners from here to there, each (2, 3) with which of the (n, 2) corners agree on it.

    The one with the most corners is found first, then that of the rest and so on; [] for none with MIN_CORNERS.
    """
    out: list[tuple[np.ndarray, np.ndarray]] = []
    left = np.arange(len(here))
    while len(left) >= MIN_CORNERS and len(out) < LAYERS:
        matrix, agree = cv2.estimateAffinePartial2D(here[left], there[left], ransacReprojThreshold=INLIER_PX)
        if matrix is None or agree.sum() < MIN_CORNERS:
            break
        inside = agree.ravel() > 0
        out.append((matrix, left[inside]))
        left = left[~inside]
    return out


def parallax(before: np.ndarray, after: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> float:
    """The share of the corners in a layer at another depth than the rest, 0 to 1; 0 where there is none.

    before, after: (n, 2) pixels; matrix: (2, 3), the move of the rest; size: height and width of the picture, px. A camera that
    turns moves near and far alike; one that goes sideways or up moves the near further (Hartley and Zisserman 2004, 8.4).
    """
    height, width = size
    centre = np.array([width / 2, height / 2])
    main = matrix[:, :2] @ centre + matrix[:, 2] - centre
    length = float(np.hypot(*main))
    if length < LAYER_PX:
        return 0.0
    rest = after - (before @ matrix[:, :2].T + matrix[:, 2])
    far = np.linalg.norm(rest, axis=1)
    ahead = (rest + main) @ (main / length)
    aside = np.linalg.norm(rest + main - ahead[:, None] * main / length, axis=1)
    # a person who stays in the picture, or goes another way, is left behind by the background, along its move
    along = (far > LAYER_PX) & (ahead > LEAST_AHEAD * length) & (aside < 0.1 * ahead + 0.5)
    if along.mean() < LAYER_SHARE:
        return 0.0
    axis = 0 if abs(main[0]) >= abs(main[1]) else 1
    low, high = np.percentile(before[along][:, axis], (10, 90))
    return float(along.mean()) if high - low >= LAYER_SPAN * (width, height)[axis] else 0.0


def _flow(before: np.ndarray, after: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (n, 2) corners went, and (n,) bool: whether they could be followed."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    return np.asarray(there), np.asarray(found).ravel() == 1


def total(steps: Sequence[Step | None], duration_s: float) -> Move:
    """Steps added up and turned into the camera's own directions; what could not be measured counts as the mean step."""
    found = np.array([s for s in steps if s is not None], np.float64).reshape(-1, 5)
    if not len(found):
        return Move(0.0, 0.0, 0.0, 0.0, 0.0, duration_s, 0.0)
    dx, dy, scale, turn, _ = (found.mean(axis=0) * len(steps)).tolist()
    # A steady move has steps that change slowly: what differs from the mean of the two neighbours is shake. The median, for
    # one step that went wrong (somebody crossed the picture) is no shake.
    rest = found[1:-1, :2] - (found[:-2, :2] + found[2:, :2]) / 2
    shake = float(np.median(np.hypot(rest[:, 0], rest[:, 1]))) if len(rest) else 0.0
    depth = float(np.median(found[:, 4]))
    return Move(-dx, dy, scale, -turn, shake, duration_s, len(found) / len(steps), depth)
