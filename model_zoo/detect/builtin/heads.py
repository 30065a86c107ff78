"""Heads through a shot: faces linked into people, followed where no face is found, and separated from pictures of faces."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from model_zoo.detect.builtin.motion import MOVED, as_seen, difference
from model_zoo.detect.builtin.people import LOST_NCC, Head

SURE_FACE, SURE_ALONE = 0.5, 0.8  # scores of dlib's detector: a face; a face even if seen once
HIDDEN = -9.0  # score of a head behind another: its position is known, its visible part is not
PRINT_PX = 1.5  # apparent motion of a printed face relative to its wall, at most
PRINT_NCC, PRINT_NCC_STILL = 0.9, 0.99  # its correlation over time, for a moving and a static camera
HAPPENS = 0.002  # fraction of the picture that changes in a shot with any motion

People = list[list[Head | None]]


def follow(small: Sequence[np.ndarray], heads: Sequence[Sequence[Head]]) -> People:
    """Return one list per person of the head in each frame, tracked by appearance where no face was found; None if lost.

    A person needs a face of SURE_FACE and, in four frames or more, a second one; or one of SURE_ALONE. A face on another's chest
    is a print. Faces are assigned to people by extrapolated position, so that people who cross keep their identity; a person
    hidden between two sightings by another's face has the score HIDDEN.
    """
    people: People = []
    for t, found in enumerate(heads):
        expected = [_expected(p, t) for p in people]
        pairs = sorted(
            (_gap(where, head), -head.score, i, k)
            for i, where in enumerate(expected)
            for k, head in enumerate(found)
            if where is not None and _near(where, head)
        )
        given: set[int] = set()
        for _, _, i, k in pairs:
            if people[i][t] is None and k not in given:
                people[i][t] = found[k]
                given.add(k)
        for k in sorted(set(range(len(found))) - given, key=lambda k: (-found[k].score, found[k].x, found[k].y)):
            people.append([found[k] if u == t else None for u in range(len(heads))])
    sure = [p for p in people if _is_sure([h.score for h in p if h is not None], len(heads))]
    sure = [p for p in sure if not any(_print_on(p, q) for q in sure if q is not p)]
    return [_fill(small, _hide(p, others := [q for q in sure if q is not p]), others) for p in sure]


def _is_sure(scores: list[float], frames: int) -> bool:
    need = 1 if frames < 4 else 2
    return max(scores) >= SURE_ALONE or (max(scores) >= SURE_FACE and len(scores) >= need)


def _expected(person: list[Head | None], t: int) -> Head | None:
    """Return where the person's face should be in frame t, extrapolated from the last two frames with it, if these are near."""
    seen = [u for u in range(t) if person[u] is not None][-2:]
    if not seen:
        return None
    last = person[seen[-1]]
    assert last is not None
    if len(seen) == 2 and t - seen[0] <= 4 and (before := person[seen[0]]) is not None:
        share = (t - seen[1]) / (seen[1] - seen[0])
        return last._replace(x=last.x + share * (last.x - before.x), y=last.y + share * (last.y - before.y))
    return last


def _gap(a: Head, b: Head) -> float:
    return max(abs(a.x - b.x), abs(a.y - b.y)) / a.side


def _near(a: Head, b: Head) -> bool:
    return _gap(a, b) < 1 and 0.6 < a.side / b.side < 1.7


def _print_on(p: list[Head | None], q: list[Head | None]) -> bool:
    """Return whether p is, wherever both are seen, right below q and not larger: a face printed on a chest."""
    both = [(a, b) for a, b in zip(p, q, strict=True) if a and b]
    return bool(both) and all(
        abs(a.x - b.x) < b.side and b.side < a.y - b.y < 4 * b.side and a.side < 1.3 * b.side for a, b in both
    )


def _hide(person: list[Head | None], others: People) -> list[Head | None]:
    """Return the person with a hidden head wherever another's face is at its interpolated position between two sightings."""
    out = list(person)
    seen = [t for t, head in enumerate(person) if head is not None]
    for a, b in pairwise(seen):
        for t in range(a + 1, b):
            here = _between(person[a], person[b], (t - a) / (b - a))
            if any((face := other[t]) is not None and _gap(face, here) < 1 for other in others):
                out[t] = here
    return out


def _between(a: Head | None, b: Head | None, share: float) -> Head:
    assert a is not None
    assert b is not None
    x, y, side, _ = (u + share * (v - u) for u, v in zip(a, b, strict=True))
    return Head(x, y, side, HIDDEN)


def _fill(small: Sequence[np.ndarray], person: list[Head | None], others: People) -> list[Head | None]:
    """Follow a head through the frames without a face, forwards from each face and then backwards from the first.

    Tracking stops where the head is hidden, and never moves onto another's face.
    """
    out = list(person)
    steps = [(t, t - 1) for t in range(1, len(out))] + [(t, t + 1) for t in reversed(range(len(out) - 1))]
    for t, other in steps:
        if out[t] is None and (head := out[other]) is not None and head.score > HIDDEN:
            there = _move(small[other], small[t], head)
            if there is None or not any((o := face[t]) is not None and _gap(o, there) < 0.7 for face in others):
                out[t] = there
    return out


def _move(before: np.ndarray, after: np.ndarray, head: Head) -> Head | None:
    """Return where a head and its shoulders went, by normalised cross-correlation within one face side; None if lost."""
    height, width = before.shape[:2]
    x0, x1 = max(0, round(head.x - 1.2 * head.side)), min(width, round(head.x + 1.2 * head.side))
    y0, y1 = max(0, round(head.y - 1.2 * head.side)), min(height, round(head.y + 1.5 * head.side))
    step = round(head.side)
    left, top = max(0, x0 - step), max(0, y0 - step)
    scores = cv2.matchTemplate(after[top : y1 + step, left : x1 + step], before[y0:y1, x0:x1], cv2.TM_CCOEFF_NORMED)
    _, best, _, (dx, dy) = cv2.minMaxLoc(scores)
    if best < LOST_NCC:
        return None
    return Head(head.x + left + dx - x0, head.y + top + dy - y0, head.side, head.score * best)


def is_print(small: Sequence[np.ndarray], views: Sequence[np.ndarray], person: Sequence[Head | None]) -> bool:
    """Return whether a face is a picture on a wall: it does not move relative to the background, nor change.

    In three quarters of the frames with a static camera, since people may pass; in all of them with a moving one. A person
    breathes, blinks and talks. Fewer than three frames, or a shot without any motion, show no difference: the face then counts as
    real. views: see motion.camera_homographies.
    """
    known = [t for t, head in enumerate(person) if head is not None and head.score > HIDDEN]
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
