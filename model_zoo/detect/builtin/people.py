"""People below their heads: GrabCut with hints from body proportions, the background beside the body and its motion."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.detect.builtin.motion import MOVED, difference

Masks = list[np.ndarray]
LOST_NCC = 0.45  # least correlation of a tracked area with its appearance before
LEDGE_LAB = 16.0  # distance in CIE Lab from which the colour below a head differs from the background beside it
STEP_LAB, STEP_ROWS = 6.0, 4  # change of colour from the rows above a table's edge to those below, beside the body
LEDGE_SIDE = 0.2  # face sides of background that must be visible for the comparison
# face sides from the centre of the face: where background may begin, and where it certainly has
SHOULDER, BESIDE = 1.5, 2.3
MOVED_FACE = 0.15  # face sides that a head must have moved for the static area behind it to be evidence
STOOD, WENT = 8, 20  # grey levels: below, a pixel fits the head's old position; above, it does not fit the new one
BY_SIDES = 1.2  # face sides between two heads from which each shows clothes that are certainly its own
TOUCH_PX = 2  # largest gap of masks of people who may occlude each other
WORN_PX = 60  # pixels of clothes that must be visible to know their colours
UNLIKE = 0.6  # Bhattacharyya distance from which two wear different colours
_FORE = (grabcut.SURE_FORE, grabcut.MAYBE_FORE)


class Head(NamedTuple):
    """A face in a small picture: its centre and its side (dlib's boxes are square, from brows to chin)."""

    x: float
    y: float
    side: float
    score: float  # dlib's: 0 is doubtful, 2 is sure


class Body(NamedTuple):
    """A head in a small picture, and what the rest of the shot shows about the body below it."""

    head: Head
    ledge_y: int  # row from which an object hides it; the picture's height for none
    stays: np.ndarray  # (h, w) bool: pixels that did not move with the head, see `left_behind`


def person_masks(
    picture: np.ndarray, bodies: Sequence[Body], moving: np.ndarray, things: np.ndarray, iterations: int = 2
) -> Masks:
    """Return the mask of each person in a small picture; masks are disjoint.

    moving: (h, w) bool, pixels that differ from the plate. things: (h, w) bool, objects in front of people. iterations: of
    GrabCut; one is a first guess.
    """
    heads = [body.head for body in bodies]
    rows, columns = np.indices(picture.shape[:2], dtype=np.float32)
    distance = [np.hypot((columns - h.x) / h.side, np.minimum(0, rows - h.y) / h.side) for h in heads]
    hints = [without_ground(body_hints(picture.shape[:2], body.head, moving), body) for body in bodies]
    masks = []
    for i, head in enumerate(heads):
        others = [j for j in range(len(heads)) if j != i]
        nearer = np.any([distance[j] < distance[i] for j in others], axis=0) & np.ones(picture.shape[:2], bool)
        likely = (np.any([np.isin(hints[j], _FORE) for j in others], axis=0) & nearer) | things
        mine = np.where(nearer | things, grabcut.SURE_BACK, hints[i]).astype(np.uint8)
        masks.append(_cut_person(picture, head, mine, likely, iterations))
    for i, j in combinations(range(len(heads)), 2):
        masks[i], masks[j] = divided(picture, (heads[i], heads[j]), (masks[i], masks[j]))
    return masks


def divided(picture: np.ndarray, heads: tuple[Head, Head], masks: tuple[np.ndarray, np.ndarray]) -> Masks:
    """Return the masks of two people, with the area between their heads assigned by colour; unchanged if they do not touch.

    Before, the border is halfway between their heads; but if two people pass each other, one is in front. The clothes that are
    certainly a person's are below the face, on the side away from the other's. Two people in similar clothes cannot be separated
    this way, nor can two if one is nearly hidden.
    """
    joined = masks[0] | masks[1]
    if abs(heads[0].x - heads[1].x) < BY_SIDES * max(head.side for head in heads):
        return list(masks)
    grown = cv2.dilate(masks[0].astype(np.uint8), np.ones((2 * TOUCH_PX + 1,) * 2, np.uint8)) > 0
    if not (grown & masks[1]).any():
        return list(masks)
    sure = [worn(mask, head, other) for mask, head, other in zip(masks, heads, reversed(heads), strict=True)]
    if min(s.sum() for s in sure) < WORN_PX or _colours_apart(picture, *sure) < UNLIKE:
        return list(masks)
    chin = max(0, round(max(head.y + 0.6 * head.side for head in heads)))
    open_to = joined & ~sure[0] & ~sure[1]
    open_to[:chin] = False
    hints = np.where(masks[0], grabcut.SURE_FORE, grabcut.SURE_BACK).astype(np.uint8)
    hints[open_to & masks[0]] = grabcut.MAYBE_FORE
    hints[open_to & masks[1]] = grabcut.MAYBE_BACK
    patch = picture.copy()  # pixels of neither must not be learned as one of them
    patch[~joined] = np.resize(picture[sure[1]], ((~joined).sum(), 3))
    first = grabcut.cut(patch, hints) & joined
    return [grabcut.clean(m, s, hole=0.005) for m, s in ((first, sure[0]), (joined & ~first, sure[1]))]


def worn(mask: np.ndarray, head: Head, other: Head) -> np.ndarray:
    """Return the part of a mask that is certainly this person's clothes, (h, w) bool: below the face, away from the other's."""
    rows, columns = np.indices(mask.shape)
    away = np.sign(head.x - other.x) * (columns - head.x) / head.side  # away from the other
    below = rows > head.y + 0.8 * head.side
    return mask & below & (away > 0.2)


def _colours_apart(picture: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance of the colours of two areas, 0 to 1: Bhattacharyya's distance of their histograms."""
    one, two = (cv2.calcHist([picture], [0, 1, 2], part.astype(np.uint8), [6, 6, 6], [0, 256] * 3) for part in (a, b))
    return float(cv2.compareHist(one, two, cv2.HISTCMP_BHATTACHARYYA))


def _cut_person(picture: np.ndarray, head: Head, hints: np.ndarray, others: np.ndarray, iterations: int) -> np.ndarray:
    """Run GrabCut within an arm's length of a head.

    others: (h, w) bool, where other people are likely: painted over, so that their skin and hair are not learned as background.
    """
    height, width = hints.shape
    area = (_span(head.y, -2.6, 9, head.side, height), _span(head.x, -3.8, 3.8, head.side, width))
    patch, labels = picture[area].copy(), hints[area]
    ground = (labels == grabcut.SURE_BACK) & ~others[area]
    if ground.any():
        patch[others[area]] = np.median(patch[ground], axis=0)
    out = np.zeros(hints.shape, bool)
    out[area] = grabcut.clean(grabcut.cut(patch, labels, iterations), labels == grabcut.SURE_FORE)
    return out


def _span(middle: float, low: float, high: float, unit: float, limit: int) -> slice:
    """Return the whole pixels from middle + low units to middle + high units, inside 0 to limit."""
    return slice(min(limit, max(0, round(middle + low * unit))), min(limit, max(0, round(middle + high * unit))))


def body_hints(shape: tuple[int, int], head: Head, moving: np.ndarray) -> np.ndarray:
    """Return GrabCut's hints for the person below a face, (h, w) uint8, measured in face sides.

    Certain: face, neck and the middle of the chest. Likely: hair, shoulders, trunk, legs, and motion within an arm's length.
    Certain background: everything beyond an arm's length, below the feet, above the hair, or beside the head and static.
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
    # half widths at depths below the centre of the face
    trunk = [(0.8, 1.0), (1.3, 1.4), (1.7, 2.6), (1.7, 4.5), (0.9, 8.0)]
    right = [(x + half * s, y + depth * s) for half, depth in trunk]
    left = [(x - half * s, y + depth * s) for half, depth in reversed(trunk)]
    _polygon(hints, right + left, grabcut.MAYBE_FORE)
    _oval(hints, (x, y), (0.4 * s, 0.5 * s), grabcut.SURE_FORE)
    for half, top, bottom in ((0.25, 0.5, 1.3), (0.55, 1.3, 3.6)):
        sides, depths = (x - half * s, x + half * s), (y + top * s, y + bottom * s)
        _polygon(hints, [(sides[i], depths[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))], grabcut.SURE_FORE)
    return hints


def likely(bodies: Sequence[Body], shape: tuple[int, int]) -> np.ndarray:
    """Return where people are by their proportions alone, (h, w) bool."""
    still, out = np.zeros(shape, bool), np.zeros(shape, bool)
    for body in bodies:
        out |= np.isin(without_ground(body_hints(shape, body.head, still), body), _FORE)
    return out


def without_ground(hints: np.ndarray, body: Body) -> np.ndarray:
    """Return hints with whatever is in front of or behind the body as background: below the ledge, or not moving with the head.

    Beside the head this is certain; a body may rest while its head moves, so below the chin it is only likely.
    """
    out = hints.copy()
    chin = _span(body.head.y, 0.8, 99, body.head.side, len(out)).start
    out[:chin][body.stays[:chin] & (out[:chin] != grabcut.SURE_FORE)] = grabcut.SURE_BACK
    out[chin:][body.stays[chin:] & (out[chin:] == grabcut.MAYBE_FORE)] = grabcut.MAYBE_BACK
    out[body.ledge_y :] = grabcut.SURE_BACK
    return out


def ledges(
    pictures: Sequence[np.ndarray],
    plates: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    heads: Sequence[Head | None],
) -> list[int]:
    """Return for each picture of a shot the row from which an object hides a person, as its camera saw it.

    Searched in the plate, or in the picture if the person is not in the plate, such as a passer-by. The lower quartile of the
    results of `ledge`: a gesture in front of a table hides its edge, but nothing imitates one. The picture's height if fewer than
    a third of the pictures have one.
    """
    height = plates[0].shape[0]
    known = [
        (head.x, ledge(picture if _gone(picture, plate, head) else plate, head), view)
        for picture, plate, head, view in zip(pictures, plates, heads, views, strict=True)
        if head is not None
    ]
    points = [cv2.perspectiveTransform(np.array([[[x, float(y)]]]), view)[0, 0] for x, y, view in known if y < height]
    if 3 * len(points) < len(known) or not points:
        return [height] * len(plates)
    over = np.array([[[np.median([x for x, _ in points]), np.quantile([y for _, y in points], 0.25)]]])
    back = [cv2.perspectiveTransform(over, np.linalg.inv(view))[0, 0, 1] for view in views]
    return [int(np.clip(round(y), 0, height)) for y in back]


def _gone(picture: np.ndarray, plate: np.ndarray, head: Head) -> bool:
    """Return whether the plate does not show the person: the neck and the top of the chest differ from the picture."""
    height, width = plate.shape[:2]
    chest = _span(head.y, 0.6, 2, head.side, height), _span(head.x, -0.5, 0.5, head.side, width)
    moved = difference(picture, plate)[chest] > MOVED
    return bool(moved.size and moved.mean() > 0.5)


def ledge(plate: np.ndarray, head: Head) -> int:
    """Return the row from which a table or parapet hides the person, down to the border; the picture's height if none does.

    It is an edge beside the body, at or below the highest row from which every row has the same colour below the head as on both
    sides: clothes of the colour of the wall are not a table.
    """
    height, width = plate.shape[:2]
    chest = _span(head.y, 1.0, 99, head.side, height)
    if chest.start >= height:
        return height
    lab = cv2.cvtColor(plate[chest].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    reaches = [_span(head.x, -0.8, 0.8, head.side, width)]
    for room, sign in ((head.x / head.side, -1), ((width - head.x) / head.side, 1)):
        near = min(BESIDE, room - LEDGE_SIDE)  # in a close-up, the little background there is
        if near >= SHOULDER:
            low, high = sorted((sign * near, sign * (near + 1.3)))
            reaches.append(_span(head.x, low, high, head.side, width))
    middle, *sides = (np.median(lab[:, reach], axis=1) for reach in reaches)
    if not sides:
        return height
    unlike = np.max([np.linalg.norm(middle - side, axis=1) for side in sides], axis=0) > LEDGE_LAB
    # a single deviating row is not the body
    body = np.flatnonzero(cv2.erode(unlike.astype(np.uint8), np.ones((2, 1), np.uint8)))
    same = int(body[-1]) + 1 if len(body) else 0
    edges = [row for row in range(max(STEP_ROWS, same - STEP_ROWS), height - chest.start) if _steps(sides, row)]
    return chest.start + max(same, edges[0]) if edges else height


def _steps(sides: Sequence[np.ndarray], row: int) -> bool:
    """Return whether the colour beside a body changes at a row: (n, 3) CIE Lab, one for each row of the picture."""
    steps = [np.median(s[row - STEP_ROWS : row], 0) - np.median(s[row : row + STEP_ROWS], 0) for s in sides]
    return max(float(np.linalg.norm(step)) for step in steps) > STEP_LAB


def left_behind(seen: Sequence[np.ndarray], here: int, head: Head) -> np.ndarray:
    """Return the pixels of picture `here` that do not move with the head, (h, w) bool: they fit its old position better.

    seen: the pictures of the shot as this picture's camera would have seen them. All False if the head rests.
    """
    picture = seen[here]
    height, width = picture.shape[:2]
    area = (_span(head.y, -1.2, 0.9, head.side, height), _span(head.x, -0.9, 0.9, head.side, width))
    stood, went = [], []
    for t, other in enumerate(seen):
        move = None if t == here else offset(picture, other, area, round(1.5 * head.side))
        if move is not None and max(map(abs, move)) >= MOVED_FACE * head.side:
            stood.append(_apart(picture, other))
            went.append(_apart(picture, _back(other, move)))
    if not stood:
        return np.zeros((height, width), bool)
    return (np.median(stood, axis=0) < STOOD) & (np.median(went, axis=0) > WENT)


def _back(picture: np.ndarray, move: tuple[int, int]) -> np.ndarray:
    """Return a picture shifted back by a motion; the border is replicated."""
    matrix = np.array([[1.0, 0, -move[0]], [0, 1, -move[1]]])
    return cv2.warpAffine(picture, matrix, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the difference of two pictures around each pixel, (h, w) uint8 grey levels."""
    return cv2.blur(cv2.absdiff(a, b).max(2), (5, 5))


def offset(a: np.ndarray, b: np.ndarray, area: tuple[slice, slice], reach: int) -> tuple[int, int] | None:
    """Return the shift (x, y) in pixels, at most `reach`, of an area of picture a in b; None if it is lost."""
    rows, columns = area
    top, left = max(0, rows.start - reach), max(0, columns.start - reach)
    template = a[area]
    if min(template.shape[:2]) < 8:
        return None
    scores = cv2.matchTemplate(b[top : rows.stop + reach, left : columns.stop + reach], template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return None if best < LOST_NCC else (x + left - columns.start, y + top - rows.start)


def _oval(picture: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], value: int) -> None:
    middle, axes = [round(v * 16) for v in centre], [round(v * 16) for v in radii]
    cv2.ellipse(picture, middle, axes, 0, 0, 360, value, -1, cv2.LINE_8, shift=4)


def _polygon(picture: np.ndarray, corners: list[tuple[float, float]], value: int) -> None:
    cv2.fillPoly(picture, [np.rint(np.array(corners) * 16).astype(np.int32)], value, cv2.LINE_8, shift=4)
