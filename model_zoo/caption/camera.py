"""Camera motion: pan, tilt, zoom, roll, parallax and shake, from the background between sampled frames.

Corners (Shi and Tomasi 1994) are tracked by pyramidal Lucas-Kanade (Bouguet 2001) and fitted with a similarity by RANSAC
(Fischler and Bolles 1981). The foreground is masked out first: a walking person who fills the picture would otherwise be measured
as a pan. The foreground may be unknown, so the corners are sorted into layers, each with its own motion (RANSAC again on the
outliers, Torr 1998). The background is the layer that reaches furthest along the left, right and upper border, not the one with
the most corners: a person in a patterned coat has more of them than a plain wall, but is at the lower border and seldom fills two
others. Motions are named in model_zoo/caption/camera_moves.py.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

Box = tuple[float, float, float, float]

WIDTH_PX = 320  # width of the frames in which corners are tracked
SAMPLE_HZ = 5.0  # steps per second; slow motion needs a baseline, fast motion must stay within reach of Lucas-Kanade
MAX_STEP = 0.06  # picture widths; a longer step is measured from frame to frame
MIN_CORNERS = 12  # with fewer, the background is too plain to measure
GRID = (4, 8)  # rows and columns of the cells from which corners are taken
MAX_PER_CELL = 8  # most corners per cell, strongest first
QUALITY = 0.0003  # of the strongest corner's: a plain wall behind a patterned coat has weak corners
LAYERS = 4  # motions searched in a step: the background, and objects in front of it
INLIER_PX = 0.6  # distance from a motion's prediction up to which a corner belongs to its layer
MIN_REACH = 0.3  # fraction of all corners' reach that a layer needs to be the background
MIN_TRACKED_REACH = 0.5  # a layer with less of the reach of all sampled corners may have been too fast to track
LAYER_PX = 1.5  # a corner that deviates more from the common motion, along it, is nearer or further
MIN_ALONG = 0.25  # least fraction of the common motion that a layer makes in the same direction
MIN_LAYER_FRACTION = 0.08  # fraction of corners that make a layer
MIN_LAYER_SPAN = 0.6  # fraction of the picture's width or height that a layer spans; a passer-by does not


class Step(NamedTuple):
    """Motion of the background from one sampled frame to the next, about the centre of the picture."""

    dx: float  # to the right, picture widths
    dy: float  # down, picture widths
    scale: float  # natural logarithm; above 0 it grew
    turn: float  # degrees, clockwise as seen
    parallax: float = 0.0  # fraction of corners in a layer that moved further or less than the rest, 0 to 1


class Move(NamedTuple):
    """Camera motion of a clip."""

    pan: float  # to the right, picture widths
    tilt: float  # up, picture widths
    zoom: float  # in, natural logarithm of the scale
    roll: float  # clockwise, degrees
    shake: float  # median deviation of each step from a steady motion, picture widths
    duration_s: float
    measured: float  # fraction of the steps that could be measured, 0 to 1
    parallax: float = 0.0  # median over the steps: above 0 only if the camera was displaced


def measure(frames: np.ndarray, fps: float, boxes: Sequence[Sequence[Box]]) -> Move:
    """Return the camera motion of a clip.

    frames: (t, h, w, 3) uint8 RGB. boxes: for each frame, the foreground that must not be tracked, in pixels.
    """
    frame_indices = sample_indices(len(frames), fps)
    steps = background_steps(frames, frame_indices, boxes)
    return sum_steps(steps, len(steps) * step_s(fps))


def sample_indices(count: int, fps: float) -> list[int]:
    """Return the frames between which camera motion is measured: about SAMPLE_HZ per second, the first included."""
    return list(range(0, count, stride(fps)))


def stride(fps: float) -> int:
    """Return the number of frames from one sampled frame to the next."""
    return max(1, round(fps / SAMPLE_HZ))


def step_s(fps: float) -> float:
    """Return the seconds from one sampled frame to the next."""
    return stride(fps) / fps


def background_steps(
    frames: np.ndarray, frame_indices: Sequence[int], boxes: Sequence[Sequence[Box]]
) -> list[Step | None]:
    """Return the background's motion between successive sampled frames; None where it is too plain to measure.

    A step that is too long for Lucas-Kanade, or so long that near objects have left the picture, is composed of the steps between
    all frames. So is one in which most corners were lost: if the camera moves fast along with a person, only the person can be
    tracked.
    """
    zoom = WIDTH_PX / frames.shape[2]
    steps: list[Step | None] = []
    for first, last in pairwise(frame_indices):
        # after a long step the next one is usually long, too
        is_fast = bool(steps) and _is_long(steps[-1])
        current, is_reliable = (None, False) if is_fast else _step(frames, first, last, boxes, zoom)
        if last - first > 1 and (not is_reliable or _is_long(current)):
            substeps = [_step(frames, i, i + 1, boxes, zoom)[0] for i in range(first, last)]
            measured = [s for s in substeps if s is not None]
            current = compose(measured) if len(measured) == len(substeps) else current
        if is_fast and current is None:
            current, _ = _step(frames, first, last, boxes, zoom)
        steps.append(current)
    return steps


def _is_long(step: Step | None) -> bool:
    return step is not None and math.hypot(step.dx, step.dy) > MAX_STEP


def _step(
    frames: np.ndarray, first: int, last: int, boxes: Sequence[Sequence[Box]], zoom: float
) -> tuple[Step | None, bool]:
    before, after = _grey(frames[first], zoom), _grey(frames[last], zoom)
    background_mask = np.full(before.shape, 255, np.uint8)
    for x0, y0, x1, y1 in boxes[first]:
        background_mask[
            max(0, int(y0 * zoom) - 4) : int(y1 * zoom) + 5, max(0, int(x0 * zoom) - 4) : int(x1 * zoom) + 5
        ] = 0
    return step(before, after, background_mask)


def _grey(frame: np.ndarray, zoom: float) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)


def compose(steps: Sequence[Step]) -> Step:
    """Return the composition of successive steps; Step(0, 0, 0, 0) for none."""
    shift, factor = 0j, 1 + 0j
    for s in steps:
        rotation = math.exp(s.scale) * complex(math.cos(math.radians(s.turn)), math.sin(math.radians(s.turn)))
        shift, factor = rotation * shift + complex(s.dx, s.dy), rotation * factor
    scale, turn = sum(s.scale for s in steps), sum(s.turn for s in steps)
    return Step(shift.real, shift.imag, scale, turn, max((s.parallax for s in steps), default=0.0))


def step(before: np.ndarray, after: np.ndarray, background_mask: np.ndarray) -> tuple[Step | None, bool]:
    """Return the background's motion between two grey (h, w) uint8 pictures, and whether it is reliable.

    background_mask: (h, w) uint8, not 0 where corners may be. A step is unreliable if most corners were lost: the tracked
    ones may not be background.
    """
    start_points = corners(before, background_mask)
    if len(start_points) < MIN_CORNERS:
        return None, False
    start, end = track_corners(before, after, start_points)
    weights = _weights(start_points, before.shape)
    motion_layers = layers(start, end)
    if not motion_layers:
        return None, False
    matrix, members = max(motion_layers, key=lambda layer: reach(start[layer[1]], weights, before.shape))
    layer_reach = reach(start[members], weights, before.shape)
    if layer_reach < MIN_REACH * reach(start, weights, before.shape):
        return None, False
    height, width = before.shape
    centre = np.array([width / 2, height / 2])
    dx, dy = matrix[:, :2] @ centre + matrix[:, 2] - centre
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    turn = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    parallax_fraction = parallax(start, end, matrix, (height, width))
    is_reliable = layer_reach >= MIN_TRACKED_REACH * reach(start_points, weights, before.shape)
    return Step(float(dx) / width, float(dy) / width, float(np.log(scale)), turn, parallax_fraction), is_reliable


def corners(grey: np.ndarray, background_mask: np.ndarray) -> np.ndarray:
    """Return the strongest corners of each cell of the grid, (n, 2) float32, x and y."""
    strength = cv2.cornerMinEigenVal(grey, 3)
    peak = (strength == cv2.dilate(strength, np.ones((5, 5), np.uint8))) & (background_mask > 0)
    ys, xs = np.nonzero(peak & (strength > QUALITY * max(float(strength.max()), 1e-6)))
    cells = _cells(np.c_[xs, ys], grey.shape)
    order = np.lexsort((-strength[ys, xs], cells))  # by cell, the strongest first
    rank = np.arange(len(order)) - np.searchsorted(cells[order], cells[order])
    kept = order[rank < MAX_PER_CELL]
    return np.c_[xs, ys][kept].astype(np.float32)


def _cells(points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the cell of the grid of each of (n, 2) points, (n,) int, row by row."""
    rows, columns = GRID
    return (points[:, 1] * rows // size[0]).astype(int) * columns + (points[:, 0] * columns // size[1]).astype(int)


def _weights(points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the weight of a corner of each cell, (rows, columns), so that all corners of a cell together count 1."""
    return 1 / np.maximum(np.bincount(_cells(points, size), minlength=GRID[0] * GRID[1]), 1)


def reach(points: np.ndarray, weights: np.ndarray, size: tuple[int, ...]) -> float:
    """Return how far (n, 2) corners reach over the picture and along its left, right and upper border, 0 to 1.

    weights: weight of a corner of each cell. The lower border, where people stand, is ignored.
    """
    cells = _cells(points, size)
    filled = np.bincount(cells, weights[cells], minlength=GRID[0] * GRID[1]).reshape(GRID)
    return float(np.mean([filled[:, 0].mean(), filled[:, -1].mean(), filled[0].mean(), filled.mean()]))


def track_corners(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and end positions of (n, 2) corners, each (m, 2): those that are found again in the backward pass."""
    end, is_tracked = _flow(before, after, points)
    returned, is_returned = _flow(after, before, end)
    is_consistent = is_tracked & is_returned & (np.linalg.norm(returned - points, axis=1) < 0.5)
    return points[is_consistent], end[is_consistent]


def layers(start: np.ndarray, end: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the similarities that map corners from start to end, (2, 3) each, with the indices of the corners that agree.

    The one with the most corners is found first, then the one of the rest and so on; [] without MIN_CORNERS.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    remaining = np.arange(len(start))
    while len(remaining) >= MIN_CORNERS and len(found) < LAYERS:
        matrix, inliers = cv2.estimateAffinePartial2D(start[remaining], end[remaining], ransacReprojThreshold=INLIER_PX)
        if matrix is None or inliers.sum() < MIN_CORNERS:
            break
        is_inlier = inliers.ravel() > 0
        found.append((matrix, remaining[is_inlier]))
        remaining = remaining[~is_inlier]
    return found


def parallax(before: np.ndarray, after: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> float:
    """Return the fraction of corners in a layer at another depth than the rest, 0 to 1; 0 if there is none.

    before, after: (n, 2) pixels; matrix: (2, 3), the motion of the rest; size: height and width of the picture, px. A rotating
    camera moves near and far alike; one that is displaced sideways or up moves the near further (Hartley and Zisserman 2004,
    8.4).
    """
    height, width = size
    centre = np.array([width / 2, height / 2])
    motion = matrix[:, :2] @ centre + matrix[:, 2] - centre
    length = float(np.hypot(*motion))
    if length < LAYER_PX:
        return 0.0
    residual = after - (before @ matrix[:, :2].T + matrix[:, 2])
    distance = np.linalg.norm(residual, axis=1)
    along_motion = (residual + motion) @ (motion / length)
    across_motion = np.linalg.norm(residual + motion - along_motion[:, None] * motion / length, axis=1)
    # a person who stays in the picture, or moves another way, lags behind the background's motion
    is_layer = (distance > LAYER_PX) & (along_motion > MIN_ALONG * length) & (across_motion < 0.1 * along_motion + 0.5)
    if is_layer.mean() < MIN_LAYER_FRACTION:
        return 0.0
    axis = 0 if abs(motion[0]) >= abs(motion[1]) else 1
    low, high = np.percentile(before[is_layer][:, axis], (10, 90))
    return float(is_layer.mean()) if high - low >= MIN_LAYER_SPAN * (width, height)[axis] else 0.0


def _flow(before: np.ndarray, after: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the new positions of (n, 2) corners, and whether each could be tracked, (n,) bool."""
    end, status, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    return np.asarray(end), np.asarray(status).ravel() == 1


def sum_steps(steps: Sequence[Step | None], duration_s: float) -> Move:
    """Return the sum of the steps in the camera's own directions; unmeasured steps count as the mean step."""
    measured = np.array([s for s in steps if s is not None], np.float64).reshape(-1, 5)
    if not len(measured):
        return Move(0.0, 0.0, 0.0, 0.0, 0.0, duration_s, 0.0)
    dx, dy, scale, turn, _ = (measured.mean(axis=0) * len(steps)).tolist()
    # The steps of a steady motion change slowly: the difference from the mean of both neighbours is shake. The median, because a
    # single bad step (a passer-by) is not shake.
    residual = measured[1:-1, :2] - (measured[:-2, :2] + measured[2:, :2]) / 2
    shake = float(np.median(np.hypot(residual[:, 0], residual[:, 1]))) if len(residual) else 0.0
    depth = float(np.median(measured[:, 4]))
    return Move(-dx, dy, scale, -turn, shake, duration_s, len(measured) / len(steps), depth)
