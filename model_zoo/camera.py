"""How the camera moved: pan, tilt, zoom, roll, parallax and shake, from the background between sampled frames.

Corners (Shi and Tomasi 1994) are followed by pyramidal Lucas-Kanade (Bouguet 2001) and a similarity is fitted to them by
RANSAC (Fischler and Bolles 1981). What stands in front is masked out first: a person who fills the picture and walks would
otherwise be taken for a pan. Where nobody has said who stands in front, corners are taken evenly from the whole picture, so
that a subject has no more of them than its share of the picture. What a move is called is said in model_zoo/camera_moves.py.
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
PER_CELL = 10  # … at most so many each, the strongest
MIN_INLIERS = 0.4  # share of the corners that must agree on one move
LAYER_PX = 1.5  # a corner that leaves the common move by more, along it, lies nearer or further than the rest
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
    to frame in between.
    """
    zoom = WIDTH_PX / frames.shape[2]
    steps: list[Step | None] = []
    for first, last in pairwise(chosen):
        found = _step(frames, first, last, boxes, zoom)
        if last - first > 1 and (found is None or math.hypot(found.dx, found.dy) > FAR):
            small = [_step(frames, i, i + 1, boxes, zoom) for i in range(first, last)]
            known = [s for s in small if s is not None]
            found = compose(known) if len(known) == len(small) else found
        steps.append(found)
    return steps


def _step(frames: np.ndarray, first: int, last: int, boxes: Sequence[Sequence[Box]], zoom: float) -> Step | None:
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


def step(before: np.ndarray, after: np.ndarray, free: np.ndarray) -> Step | None:
    """The similarity that takes one grey (h, w) uint8 picture to the next, where `free` (h, w) uint8 is not 0."""
    corners = _corners(before, free)
    if len(corners) < MIN_CORNERS:
        return None
    there, found = _flow(before, after, corners)
    back, refound = _flow(after, before, there)
    returned = np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < 0.5
    good = found & refound & returned
    if good.sum() < MIN_CORNERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(corners[good], there[good], ransacReprojThreshold=1.0)
    if matrix is None or inliers.sum() < max(MIN_CORNERS, MIN_INLIERS * good.sum()):
        return None
    height, width = before.shape
    centre = np.array([width / 2, height / 2])
    dx, dy = matrix[:, :2] @ centre + matrix[:, 2] - centre
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    turn = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    layer = parallax(corners[good].reshape(-1, 2), there[good].reshape(-1, 2), matrix, (height, width))
    return Step(float(dx) / width, float(dy) / width, float(np.log(scale)), turn, layer)


def _corners(grey: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(n, 1, 2) float32 corners, the strongest of each cell of the grid."""
    found = cv2.goodFeaturesToTrack(grey, 1200, 0.004, 5, mask=free)
    if found is None:
        return np.empty((0, 1, 2), np.float32)
    points, cells = np.asarray(found), np.array(grey.shape) / GRID
    taken: dict[tuple[int, int], int] = {}
    kept = []
    for i, (x, y) in enumerate(points[:, 0]):  # strongest first
        cell = (int(y // cells[0]), int(x // cells[1]))
        taken[cell] = taken.get(cell, 0) + 1
        if taken[cell] <= PER_CELL:
            kept.append(i)
    return points[kept]


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
    along = (far > LAYER_PX) & (np.abs(rest @ (main / length)) > 0.9 * far)
    if along.mean() < LAYER_SHARE:
        return 0.0
    axis = 0 if abs(main[0]) >= abs(main[1]) else 1
    low, high = np.percentile(before[along][:, axis], (10, 90))
    return float(along.mean()) if high - low >= LAYER_SPAN * (width, height)[axis] else 0.0


def _flow(before: np.ndarray, after: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (n, 1, 2) corners went, and (n,) bool: whether they could be followed."""
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
