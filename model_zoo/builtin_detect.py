"""A detector that needs no weights but dlib's face detector: people grow from faces, things from motion and contrast.

It names nothing: every person is a "person", everything else an "object". It is strong on people who show their face, weak on people
from behind (who become objects while they move) and blind to things that neither move nor stand out from what frames the picture.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from model_zoo import grabcut
from model_zoo.builtin_motion import plates
from model_zoo.cards import Card, Detection

FACE_LONG_PX = 960  # dlib's HOG finds faces from about 70 px: below that, the frame is enlarged to this long side
FACE_SCORE, SURE_FACE, SURE_ALONE = -0.2, 0.5, 0.8  # of dlib's detector: worth a look, a face, a face even if seen once
LOST_NCC = 0.45  # a head that is followed without a face must look this much like the frame before
Masks = list[np.ndarray]
_FORE = (grabcut.SURE_FORE, grabcut.MAYBE_FORE)


class Head(NamedTuple):
    """A face in a small picture: its middle and its side (dlib's boxes are square, from brows to chin)."""

    x: float
    y: float
    side: float
    score: float  # dlib's: 0 is doubtful, 2 is sure

    @property
    def box(self) -> tuple[float, float, float, float]:
        half = self.side / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """The model of the card "builtin-detect"; it runs on the CPU whatever the device."""
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
    people = follow(small, heads)
    behind = plates(small)
    found: list[list[Detection]] = []
    for frame, picture, plate, at in zip(
        frames, small, behind, zip(*people, strict=True) if people else [()] * len(small), strict=True
    ):
        here = [head for head in at if head is not None]
        moving = difference(picture, plate) > 25
        masks = person_masks(picture, here, moving)
        humans = [
            _detection("human", "person", float(1 / (1 + np.exp(-head.score))), grabcut.enlarge(mask, frame))
            for head, mask in zip(here, masks, strict=True)
        ]
        taken = np.any(masks, axis=0) if masks else np.zeros(picture.shape[:2], bool)
        things = [
            _detection("object", "object", score, grabcut.enlarge(mask, frame))
            for score, mask in object_masks(picture, plate, taken)
        ]
        found.append([d for d in humans + things if d is not None])
    return found


def _detection(kind: str, label: str, score: float, mask: np.ndarray) -> Detection | None:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    return Detection(kind, label, score, (float(xs[0]), float(ys[0]), xs[-1] + 1.0, ys[-1] + 1.0), mask)


# ------------------------------------------------------------------------------------------------------------------- heads


def follow(small: Sequence[np.ndarray], heads: Sequence[Sequence[Head]]) -> list[list[Head | None]]:
    """One list per person of the head in each frame; where no face was found it is followed by its looks, else None.

    A person needs a face of SURE_FACE and, in four frames or more, a second one; or one of SURE_ALONE. A face on another's chest is
    a print.
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


# ------------------------------------------------------------------------------------------------------------------ people


def person_masks(picture: np.ndarray, heads: Sequence[Head], moving: np.ndarray) -> Masks:
    """The mask of the person below each head in a small picture; no pixel belongs to two.

    moving: (h, w) bool, pixels that are not as in the plate.
    """
    rows, columns = np.indices(picture.shape[:2], dtype=np.float32)
    distance = [np.hypot((columns - h.x) / h.side, np.minimum(0, rows - h.y) / h.side) for h in heads]
    hints = [body_hints(picture.shape[:2], head, moving) for head in heads]
    masks = []
    for i, head in enumerate(heads):
        others = [j for j in range(len(heads)) if j != i]
        nearer = np.any([distance[j] < distance[i] for j in others], axis=0) & np.ones(picture.shape[:2], bool)
        likely = np.any([np.isin(hints[j], _FORE) for j in others], axis=0) & nearer
        masks.append(_cut_person(picture, head, np.where(nearer, grabcut.SURE_BACK, hints[i]).astype(np.uint8), likely))
    return masks


def _cut_person(picture: np.ndarray, head: Head, hints: np.ndarray, others: np.ndarray) -> np.ndarray:
    """GrabCut within an arm's length of a head.

    others: (h, w) bool, where other people are likely: painted over, lest their skin and hair be learnt as ground.
    """
    height, width = hints.shape
    area = (_span(head.y, -2.6, 9, head.side, height), _span(head.x, -3.8, 3.8, head.side, width))
    patch, labels = picture[area].copy(), hints[area]
    ground = (labels == grabcut.SURE_BACK) & ~others[area]
    if ground.any():
        patch[others[area]] = np.median(patch[ground], axis=0)
    out = np.zeros(hints.shape, bool)
    out[area] = grabcut.clean(grabcut.cut(patch, labels), labels == grabcut.SURE_FORE)
    return out


def _span(middle: float, low: float, high: float, unit: float, limit: int) -> slice:
    """The whole pixels from middle + low units to middle + high units, inside 0 to limit."""
    return slice(min(limit, max(0, round(middle + low * unit))), min(limit, max(0, round(middle + high * unit))))


def body_hints(shape: tuple[int, int], head: Head, moving: np.ndarray) -> np.ndarray:
    """What GrabCut is told about the person below a face, (h, w) uint8, measured in the face's side.

    Sure: face, neck and the middle of the chest. Likely: hair, shoulders, trunk, legs, and what moves within an arm's length.
    Sure ground: whatever is beyond an arm's length, below the feet, above the hair, or beside the head and does not move.
    """
    height, width = shape
    x, y, s, _ = head
    hints = np.full(shape, grabcut.SURE_BACK, np.uint8)
    reach = (_span(y, -2.2, 8.5, s, height), _span(x, -3.2, 3.2, s, width))
    hints[reach[0], _span(x, -2.5, 2.5, s, width)] = grabcut.MAYBE_BACK
    for beside in (_span(x, -3.2, -1.6, s, width), _span(x, 1.6, 3.2, s, width)):
        hints[_span(y, -2.2, 0.5, s, height), beside] = grabcut.SURE_BACK
    hints[_span(y, -2.2, -1.6, s, height), reach[1]] = grabcut.SURE_BACK
    hints[reach][moving[reach]] = grabcut.MAYBE_FORE
    _oval(hints, (x, y - 0.2 * s), (0.75 * s, s), grabcut.MAYBE_FORE)
    trunk = [(0.8, 1.0), (1.3, 1.4), (1.3, 4.5), (0.9, 8.0)]  # half a width at a depth below the middle of the face
    right = [(x + half * s, y + depth * s) for half, depth in trunk]
    left = [(x - half * s, y + depth * s) for half, depth in reversed(trunk)]
    _polygon(hints, right + left, grabcut.MAYBE_FORE)
    _oval(hints, (x, y), (0.4 * s, 0.5 * s), grabcut.SURE_FORE)
    for half, top, bottom in ((0.25, 0.5, 1.3), (0.55, 1.3, 3.6)):
        sides, depths = (x - half * s, x + half * s), (y + top * s, y + bottom * s)
        _polygon(hints, [(sides[i], depths[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))], grabcut.SURE_FORE)
    return hints


def _oval(picture: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], value: int) -> None:
    middle, axes = [round(v * 16) for v in centre], [round(v * 16) for v in radii]
    cv2.ellipse(picture, middle, axes, 0, 0, 360, value, -1, cv2.LINE_8, shift=4)


def _polygon(picture: np.ndarray, corners: list[tuple[float, float]], value: int) -> None:
    cv2.fillPoly(picture, [np.rint(np.array(corners) * 16).astype(np.int32)], value, cv2.LINE_8, shift=4)


# ------------------------------------------------------------------------------------------------------------------ things


def difference(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """How far each pixel is from the plate, (h, w) uint8: the largest difference of the three channels, smoothed."""
    return cv2.GaussianBlur(cv2.absdiff(picture, plate), (0, 0), 1.2).max(2)


def unlike(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """How far each pixel's colour is from the nearest of the ground's 8 main colours, (h, w) float32 in CIE Lab units.

    ground: (h, w) bool with at least one pixel.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    samples = lab[ground]
    samples = samples[:: max(1, len(samples) // 2000)]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 10, 1.0)
    _, _, colours = cv2.kmeans(samples, min(8, len(samples)), None, stop, 1, cv2.KMEANS_PP_CENTERS)
    return np.sqrt(np.min([((lab - colour) ** 2).sum(2) for colour in colours], axis=0))


def contrast(picture: np.ndarray) -> np.ndarray:
    """How far each pixel's colour is from the colours along the picture's border, (h, w) float32 in CIE Lab units.

    After Wei et al. 2012, "Geodesic saliency using background priors": what touches the border is ground.
    """
    rim = np.ones(picture.shape[:2], bool)
    rim[3:-3, 3:-3] = False
    return unlike(picture, rim)


def object_masks(
    picture: np.ndarray, plate: np.ndarray, taken: np.ndarray, most: int = 4
) -> list[tuple[float, np.ndarray]]:
    """Score and mask of up to `most` things in a small picture that move or stand out and overlap no person, largest first.

    plate: the picture without what moves, (h, w, 3) uint8. taken: (h, w) bool, where the people are.
    """
    near_people = cv2.dilate(taken.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    moves = (difference(picture, plate) > 25) & ~near_people
    stands_out = (contrast(picture) > 16) & ~near_people
    busy = stands_out.mean() > 0.35  # a cluttered scene: contrast says nothing there
    blobs = [b for b in _blobs(moves) if _is_here(picture, plate, b)]
    if not busy:
        blobs += [b for b in _blobs(stands_out) if _on_border(b) == 0 and not any((b & other).any() for other in blobs)]
    blobs = sorted(blobs, key=lambda b: (-int(b.sum()), int(np.argmax(b))))[:most]
    out = []
    for blob in blobs:
        mask = _cut_blob(picture, blob, near_people) & ~near_people
        if _is_thing(mask, blob):
            taken = near_people = near_people | mask
            out.append((_separation(picture, mask), mask))
    return out


def _blobs(mask: np.ndarray) -> Masks:
    """The connected pieces of a mask of 0.4 % to 40 % of the picture, closed."""
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    share = stats[:, cv2.CC_STAT_AREA] / mask.size
    return [labels == i for i in range(1, count) if 0.004 <= share[i] <= 0.4]


def _on_border(mask: np.ndarray) -> float:
    """The share of the mask's outline that lies on the picture's border."""
    edges = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    outline = cv2.morphologyEx(np.pad(mask, 1).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)).sum()
    return float(edges / max(1, outline))


def _is_here(picture: np.ndarray, plate: np.ndarray, blob: np.ndarray) -> bool:
    """Whether the blob's outline is an edge of the picture rather than of the plate: else it is where something has been."""
    ring = cv2.morphologyEx(blob.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    now, then = (cv2.Laplacian(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=3) for p in (picture, plate))
    return float(np.abs(now[ring]).mean()) > float(np.abs(then[ring]).mean())


def _cut_blob(picture: np.ndarray, blob: np.ndarray, forbidden: np.ndarray) -> np.ndarray:
    """GrabCut around a blob: its inside is sure, its surroundings are open, what is far or forbidden is ground."""
    ys, xs = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    margin = max(4, round(0.2 * max(np.ptp(ys), np.ptp(xs))))
    area = (slice(max(0, ys[0] - margin), ys[-1] + margin + 1), slice(max(0, xs[0] - margin), xs[-1] + margin + 1))
    core = cv2.distanceTransform(blob.astype(np.uint8), cv2.DIST_L2, 3)
    open_to = cv2.dilate(blob.astype(np.uint8), np.ones((2 * (margin // 2) + 1,) * 2, np.uint8)) > 0
    hints = np.where(open_to, grabcut.MAYBE_BACK, grabcut.SURE_BACK).astype(np.uint8)
    hints[blob] = grabcut.MAYBE_FORE
    sure = core >= 0.6 * core.max()
    hints[sure] = grabcut.SURE_FORE
    hints[forbidden] = grabcut.SURE_BACK
    out = np.zeros(blob.shape, bool)
    out[area] = grabcut.clean(grabcut.cut(np.ascontiguousarray(picture[area]), hints[area]), sure[area], part=0.2)
    return out


def _is_thing(mask: np.ndarray, blob: np.ndarray) -> bool:
    """Large and compact enough, no strip of something larger, and still where the blob was."""
    area = int(mask.sum())
    if area < 0.004 * mask.size or _on_border(mask) > 0.12 or (mask & blob).sum() < 0.5 * blob.sum():
        return False
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    sides = cv2.minAreaRect(hull)[1]
    return area >= 0.5 * cv2.contourArea(hull) and min(sides) >= 0.25 * max(sides)


def _separation(picture: np.ndarray, mask: np.ndarray) -> float:
    """How far the thing's colours are from those just around it, 0 to 1: the distance of the two histograms (Bhattacharyya)."""
    ring = (cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~mask
    inside, outside = (
        cv2.calcHist([picture], [0, 1, 2], part.astype(np.uint8), [6, 6, 6], [0, 256] * 3) for part in (mask, ring)
    )
    return float(cv2.compareHist(inside, outside, cv2.HISTCMP_BHATTACHARYYA))
