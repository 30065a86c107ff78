"""Pictures of people: a face that never moves on its background is on a wall."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin.motion import MOVED, as_seen, difference

PRINT_PX = 1.5  # apparent motion of a printed face relative to its wall, at most
PRINT_NCC, PRINT_NCC_STILL = 0.9, 0.99  # its correlation over time, for a moving and a static camera
BESIDE = 1.0, 2.0  # where the background beside a face is looked at, in sides from its middle
HAPPENS = 0.002  # fraction of the picture that changes in a shot with any motion


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
    known = [t for t, head in enumerate(person) if head is not None]
    if len(known) < 3:
        return False
    here = max(known, key=lambda t: person[t].score)  # type: ignore[union-attr]
    head = person[here]
    assert head is not None
    seen = as_seen(small, views, here)
    face = _area(head, -0.5, 0.5)
    stands = all(np.array_equal(view, np.eye(3)) for view in views)
    if stands and max((difference(p, small[here]) > MOVED).mean() for p in small) < HAPPENS:
        return False
    others = [seen[t] for t in known if t != here]
    away, alike = _motion(small[here], others, face)
    if stands:
        return bool(np.quantile(away, 0.75) <= PRINT_PX and np.quantile(alike, 0.25) >= PRINT_NCC_STILL)
    # a pan follows a swaying person: no frame may contradict
    if away.max() > PRINT_PX or alike.min() < PRINT_NCC:
        return False
    # before a blurred background, the motion of the camera that fits best may be the person's own: then the background goes by
    for beside in (_area(head, *BESIDE), _area(head, -BESIDE[1], -BESIDE[0])):
        if beside[1].start > 0 and beside[1].stop < small[here].shape[1]:
            away, alike = _motion(small[here], others, beside)
            if float(np.median(away[alike >= PRINT_NCC] if (alike >= PRINT_NCC).any() else 0)) > PRINT_PX:
                return False
    return True


def _area(head: Head, left: float, right: float) -> tuple[slice, slice]:
    """Return the rows of a face, and the columns between two distances from its middle in sides, from the picture's border on."""
    rows = slice(max(0, round(head.y - 0.6 * head.side)), round(head.y + 0.6 * head.side))
    return rows, slice(max(0, round(head.x + left * head.side)), max(0, round(head.x + right * head.side)))


def _motion(
    picture: np.ndarray, others: Sequence[np.ndarray], area: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far an area of a picture has moved in others, in pixels, and its correlation there."""
    away, alike = zip(*(_stirred(picture, other, area) for other in others), strict=True)
    return np.array(away), np.array(alike)


def _stirred(picture: np.ndarray, other: np.ndarray, area: tuple[slice, slice], reach: int = 5) -> tuple[float, float]:
    """Return the displacement, in pixels, of an area's best match in another picture, and the correlation there."""
    rows, columns = area
    top, left = max(0, rows.start - reach), max(0, columns.start - reach)
    field = other[top : rows.stop + reach, left : columns.stop + reach]
    scores = cv2.matchTemplate(field, picture[area], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return float(max(abs(x + left - columns.start), abs(y + top - rows.start))), float(best)
