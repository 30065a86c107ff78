"""Pictures of people: a face that never moves on its background is on a wall."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin.motion import MOVED, as_seen, difference

PRINT_PX = 1.5  # apparent motion of a printed face relative to its wall, at most
PRINT_NCC, PRINT_NCC_STILL = 0.9, 0.99  # its correlation over time, for a moving and a static camera
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
    rows = slice(max(0, round(head.y - 0.6 * head.side)), round(head.y + 0.6 * head.side))
    columns = slice(max(0, round(head.x - 0.5 * head.side)), round(head.x + 0.5 * head.side))
    stands = all(np.array_equal(view, np.eye(3)) for view in views)
    if stands and max((difference(p, small[here]) > MOVED).mean() for p in small) < HAPPENS:
        return False
    found = [_stirred(small[here], seen[t], (rows, columns)) for t in known if t != here]
    away, alike = (np.array(values) for values in zip(*found, strict=True))
    if stands:
        return bool(np.quantile(away, 0.75) <= PRINT_PX and np.quantile(alike, 0.25) >= PRINT_NCC_STILL)
    # a pan follows a swaying person: no frame may contradict
    return bool(away.max() <= PRINT_PX and alike.min() >= PRINT_NCC)


def _stirred(picture: np.ndarray, other: np.ndarray, area: tuple[slice, slice], reach: int = 5) -> tuple[float, float]:
    """Return the displacement, in pixels, of an area's best match in another picture, and the correlation there."""
    rows, columns = area
    top, left = max(0, rows.start - reach), max(0, columns.start - reach)
    field = other[top : rows.stop + reach, left : columns.stop + reach]
    scores = cv2.matchTemplate(field, picture[area], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return float(max(abs(x + left - columns.start), abs(y + top - rows.start))), float(best)
