"""Pictures of people: a face that never moves on its background is on a wall."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin.motion import MIN_DIFFERENCE, difference, warp_to_view

MAX_PRINT_MOTION_PX = 1.5  # apparent motion of a printed face relative to its wall, at most
MIN_PRINT_NCC, MIN_PRINT_NCC_STATIC = 0.9, 0.99  # its correlation over time, for a moving and a static camera
BESIDE_RANGE = 1.0, 2.0  # range of the background beside a face that is compared, in sides from its centre
MIN_CHANGED_FRACTION = 0.002  # fraction of the picture that changes in a shot with any motion


class Head(NamedTuple):
    """A face in a small picture: its centre, its side from the brows to the chin, and the confidence, 0 to 1."""

    x: float
    y: float
    side: float
    score: float


def is_print(small: Sequence[np.ndarray], views: Sequence[np.ndarray], person: Sequence[Head | None]) -> bool:
    """Return whether a face is a picture on a wall: it does not move relative to the background, nor change.

    In three quarters of the frames with a static camera, since people may pass; in all of them with a moving one. A person
    breathes, blinks and talks. Fewer than three frames, or a shot without any motion, show no difference: the face then counts as
    real. views: see motion.camera_homographies.
    """
    visible = [t for t, head in enumerate(person) if head is not None]
    if len(visible) < 3:
        return False
    best = max(visible, key=lambda t: person[t].score)  # type: ignore[union-attr]
    head = person[best]
    assert head is not None
    warped = warp_to_view(small, views, best)
    face = _area(head, -0.5, 0.5)
    is_static = all(np.array_equal(view, np.eye(3)) for view in views)
    if is_static and max((difference(p, small[best]) > MIN_DIFFERENCE).mean() for p in small) < MIN_CHANGED_FRACTION:
        return False
    others = [warped[t] for t in visible if t != best]
    displacement, correlation = _displacements(small[best], others, face)
    if is_static:
        return bool(
            np.quantile(displacement, 0.75) <= MAX_PRINT_MOTION_PX
            and np.quantile(correlation, 0.25) >= MIN_PRINT_NCC_STATIC
        )
    # a pan follows a swaying person: no frame may contradict
    if displacement.max() > MAX_PRINT_MOTION_PX or correlation.min() < MIN_PRINT_NCC:
        return False
    # before a blurred background, the motion of the camera that fits best may be the person's own: then the background goes by
    for side_area in (_area(head, *BESIDE_RANGE), _area(head, -BESIDE_RANGE[1], -BESIDE_RANGE[0])):
        if side_area[1].start > 0 and side_area[1].stop < small[best].shape[1]:
            displacement, correlation = _displacements(small[best], others, side_area)
            is_match = correlation >= MIN_PRINT_NCC
            if float(np.median(displacement[is_match] if is_match.any() else 0)) > MAX_PRINT_MOTION_PX:
                return False
    return True


def _area(head: Head, left: float, right: float) -> tuple[slice, slice]:
    """Return the rows of a face, and the columns between two distances from its middle in sides, from the picture's border on."""
    rows = slice(max(0, round(head.y - 0.6 * head.side)), round(head.y + 0.6 * head.side))
    return rows, slice(max(0, round(head.x + left * head.side)), max(0, round(head.x + right * head.side)))


def _displacements(
    picture: np.ndarray, others: Sequence[np.ndarray], area: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far an area of a picture has moved in others, in pixels, and its correlation there."""
    displacement, correlation = zip(*(_match_displacement(picture, other, area) for other in others), strict=True)
    return np.array(displacement), np.array(correlation)


def _match_displacement(
    picture: np.ndarray, other: np.ndarray, area: tuple[slice, slice], radius: int = 5
) -> tuple[float, float]:
    """Return the displacement, in pixels, of an area's best match in another picture, and the correlation there."""
    rows, columns = area
    top, left = max(0, rows.start - radius), max(0, columns.start - radius)
    search_area = other[top : rows.stop + radius, left : columns.stop + radius]
    scores = cv2.matchTemplate(search_area, picture[area], cv2.TM_CCOEFF_NORMED)
    _, correlation, _, (x, y) = cv2.minMaxLoc(scores)
    return float(max(abs(x + left - columns.start), abs(y + top - rows.start))), float(correlation)
