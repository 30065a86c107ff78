"""A detector that needs no weights but dlib's face detector: people grow from faces, things from motion and contrast.

It names nothing: every person is a "person", everything else an "object". It is strong on people who show their face, weak on
people from behind (who become objects while they move), and blind to things that neither move nor stand out from the border.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from model_zoo import grabcut
from model_zoo.builtin_motion import MOVED, as_seen, cameras, difference, plates
from model_zoo.builtin_people import LOST_NCC, Body, Head, ledges, left_behind, likely, person_masks
from model_zoo.builtin_things import movers, separation, still_masks
from model_zoo.cards import Card, Detection

FACE_LONG_PX = 960  # dlib's HOG finds faces from about 70 px: smaller frames are enlarged to this long side
FACE_SCORE, SURE_FACE, SURE_ALONE = -0.2, 0.5, 0.8  # of dlib's detector: worth a look, a face, a face even if seen once


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """Motion, saliency and GrabCut around faces, with no training; it runs on the CPU whatever the device."""
    import dlib

    faces = dlib.get_frontal_face_detector()

    def heads_in(frame: np.ndarray) -> list[Head]:
        scale = max(1.0, FACE_LONG_PX / max(frame.shape[:2]))
        large = frame if scale == 1 else cv2.resize(frame, None, fx=scale, fy=scale)
        boxes, scores, _ = faces.run(np.ascontiguousarray(large), 0, FACE_SCORE)
        back = min(1.0, grabcut.WORK_PX / max(frame.shape[:2])) / scale
        return [
            Head((b.left() + b.width() / 2) * back, (b.top() + b.height() / 2) * back, b.width() * back, float(s))
            for b, s in zip(boxes, scores, strict=True)
        ]

    return lambda frames: detect(frames, [heads_in(frame) for frame in frames])


def detect(frames: np.ndarray, heads: list[list[Head]]) -> list[list[Detection]]:
    """People and things in the (t, h, w, 3) uint8 frames of one shot, given the heads found in each, at grabcut.shrink's size."""
    small = [grabcut.shrink(frame) for frame in frames]
    views = cameras(small)
    grounds = plates(small, views)
    people = bodies(small, views, grounds, follow(small, heads))
    things = movers(small, grounds, [likely(here, small[0].shape[:2]) for here in people])
    moving = [[mask for thing in things if (mask := thing[t]) is not None] for t in range(len(small))]
    return [_detections(*one) for one in zip(frames, small, grounds, people, moving, strict=True)]


def bodies(
    small: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    grounds: Sequence[np.ndarray],
    people: Sequence[Sequence[Head | None]],
) -> list[list[Body]]:
    """For each picture of a shot the bodies below the heads, one list of heads per person, with what the shot tells of them."""
    rows = [ledges(grounds, views, person) for person in people]
    out: list[list[Body]] = []
    for t in range(len(small)):
        here = [(head, row[t]) for person, row in zip(people, rows, strict=True) if (head := person[t]) is not None]
        seen = as_seen(small, views, t) if here else []
        out.append([Body(head, ledge_y, left_behind(seen, t, head)) for head, ledge_y in here])
    return out


def _detections(
    frame: np.ndarray, picture: np.ndarray, plate: np.ndarray, people: list[Body], moving: list[np.ndarray]
) -> list[Detection]:
    """The people and things of one frame; all arrays but the frame are small. moving: masks of what moves by itself."""
    before = _any(moving, picture.shape[:2])
    masks = person_masks(picture, people, difference(picture, plate) > MOVED, before)
    found = [
        _detection("human", "person", float(1 / (1 + np.exp(-body.head.score))), grabcut.enlarge(mask, frame))
        for body, mask in zip(people, masks, strict=True)
    ]
    for mask in moving + still_masks(picture, _any([before, *masks], picture.shape[:2])):
        found.append(_detection("object", "object", separation(picture, mask), grabcut.enlarge(mask, frame)))
    return [d for d in found if d is not None]


def _any(masks: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The union of masks, (h, w) bool; all False without any."""
    return np.any(masks, axis=0) if masks else np.zeros(shape, bool)


def _detection(kind: str, label: str, score: float, mask: np.ndarray) -> Detection | None:
    """A detection with a tight box; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    return Detection(kind, label, score, (float(xs[0]), float(ys[0]), xs[-1] + 1.0, ys[-1] + 1.0), mask)


def follow(small: Sequence[np.ndarray], heads: Sequence[Sequence[Head]]) -> list[list[Head | None]]:
    """One list per person of the head in each frame; where no face was found it is followed by its looks, else None.

    A person needs a face of SURE_FACE and, in four frames or more, a second one; or one of SURE_ALONE. A face on another's
    chest is a print.
    """
    people: list[list[Head | None]] = []
    for t, found in enumerate(heads):
        for head in sorted(found, key=lambda h: (-h.score, h.x, h.y)):
            mine = [p for p in people if p[t] is None and (last := _last(p, t)) is not None and _near(last, head)]
            if not mine:
                mine = [[None] * len(heads)]
                people.append(mine[0])
            mine[0][t] = head
    need = 1 if len(heads) < 4 else 2
    sure = []
    for person in people:
        scores = [h.score for h in person if h is not None]
        if max(scores) >= SURE_ALONE or (max(scores) >= SURE_FACE and len(scores) >= need):
            sure.append(person)
    sure = [p for p in sure if not any(_print_on(p, q) for q in sure if q is not p)]
    return [_fill(small, person) for person in sure]


def _last(person: list[Head | None], t: int) -> Head | None:
    return next((h for h in reversed(person[:t]) if h is not None), None)


def _near(a: Head, b: Head) -> bool:
    return max(abs(a.x - b.x), abs(a.y - b.y)) < a.side and 0.6 < a.side / b.side < 1.7


def _print_on(p: list[Head | None], q: list[Head | None]) -> bool:
    """Whether p is, wherever both are seen, right below q and not larger: a face printed on a chest."""
    both = [(a, b) for a, b in zip(p, q, strict=True) if a and b]
    return bool(both) and all(
        abs(a.x - b.x) < b.side and b.side < a.y - b.y < 4 * b.side and a.side < 1.3 * b.side for a, b in both
    )


def _fill(small: Sequence[np.ndarray], person: list[Head | None]) -> list[Head | None]:
    """Follow a head through the frames without a face, forwards from each face and then backwards from the first."""
    out = list(person)
    steps = [(t, t - 1) for t in range(1, len(out))] + [(t, t + 1) for t in reversed(range(len(out) - 1))]
    for t, other in steps:
        if out[t] is None and (head := out[other]) is not None:
            out[t] = _move(small[other], small[t], head)
    return out


def _move(before: np.ndarray, after: np.ndarray, head: Head) -> Head | None:
    """Where a head and its shoulders went, by normalised cross-correlation within one face's side; None when it is lost."""
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
