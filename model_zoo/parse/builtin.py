"""Parts of a person without a network, by position below the head and colour.

A part that is not evident is omitted: hair that looks like skin, trousers that the picture cuts off at the hip, shoes in the
trousers' colour. Accessories are never guessed.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo import cards
from model_zoo.mediapipe import mesh, people, pose, ssd
from model_zoo.mediapipe.network import Network
from model_zoo.roles import Card

Box = tuple[float, float, float, float]
Parser = Callable[[np.ndarray, np.ndarray, Box | None], dict[str, np.ndarray]]

# Landmarks of a standing adult in head heights below the crown (the classical canon of 7.5 heads).
SHOULDERS, WAIST, KNEES, ANKLES = 1.3, 2.4, 5.4, 7.0
BELOW_HIPS = 0.3  # head heights: hems may be so far below the hips
LEAST_CLOTH = 0.2  # smallest visible garment, square head heights
THIN = 0.025  # head heights: half the width of seams and slivers that remain where skin was removed
VIVID = 20.0  # chroma from which a colour's hue is reliable
BROWS = 0.42  # head heights: above the eyebrows
BALD = 4.0  # least distance of hair from the colour of the face, see `_unlike`
HAIR_IS_ONE = 0.7  # fraction of the hair in one colour
HAIR_IS_EVEN = 20.0  # standard deviation of its lightness, L*; a badge on a cap has more
BADGE = 0.1  # largest object worn on a garment, square head heights; a hand is larger
SAME_COLOUR = 9.0  # largest distance in CIE Lab of two pieces of one garment, see `_change`


class Marks(NamedTuple):
    """What the networks find on a person."""

    oval: np.ndarray  # (h, w) bool: the face, from the jaw to the hairline
    cheeks: np.ndarray  # (h, w) bool: skin whatever the hair and the beard
    hips: float  # row of the hips, which may be below the crop


def parser(card: Card, device: str = "cpu") -> Parser:
    """Face and hips by MediaPipe's face mesh and BlazePose; hair and garments by their places and colours."""
    find, look, body = (cards.load(name, device) for name in card.companions)

    def model(person: np.ndarray, mask: np.ndarray, head: Box | None) -> dict[str, np.ndarray]:
        marks = find_marks(find, look, body, person, head) if head is not None else None
        return parse(person, mask, head, marks) if head is not None and marks is not None else {}

    return model


def find_marks(find: Network, look: Network, body: Network, person: np.ndarray, head: Box) -> Marks | None:
    """Return the marks of the person with that head; None if the networks are not sure of a face and a body there."""
    seen = mesh.of_head(find, look, person, head)
    if seen is None:
        return None
    five = mesh.five_landmarks(seen.points)
    face = ssd.BoxDetection(seen.score, mesh.box_of(seen.points), np.stack([*five[:3], five[3:].mean(0)]))
    found = pose.run_pose(body, person, people.region_of_face(face))
    found = pose.run_pose(body, person, found.region)
    if found.score < people.BODY_SCORE:
        return None
    oval, left, right = (filled(seen.points[list(ring), :2], person.shape) for ring in (mesh.OVAL, *mesh.CHEEKS))
    return Marks(oval, left | right, float(found.points[list(pose.HIPS), 1].mean()))


def filled(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a polygon as an (h, w) bool mask."""
    return cv2.fillPoly(np.zeros(shape[:2], np.uint8), [np.rint(points).astype(np.int32)], 1) > 0


def parse(person: np.ndarray, mask: np.ndarray, head: Box, marks: Marks) -> dict[str, np.ndarray]:
    """Return the parts of an upright person: {part: (h, w) bool}, disjoint and inside the mask; unclear parts are omitted.

    person: (h, w, 3) uint8 RGB crop. mask: (h, w) bool. head: x0, y0, x1, y1 of the whole head, hair included, in pixels of the
    crop; all measures are relative to it. Keys are from "face", "hair", "upper", "lower", "shoes".
    """
    lab = to_lab(person)
    skin = mask & is_skin(lab, mask & marks.cheeks)
    rows = (np.arange(len(mask)) - head[1]) / (head[3] - head[1])  # head heights below the crown
    face = mask & marks.oval & (skin | (rows > BROWS)[:, None])  # without a fringe
    hair = mask & _hair(lab, mask & _room(mask, head), face, skin, head)
    hip = (marks.hips - head[1]) / (head[3] - head[1])
    body = mask & ~face & ~hair & (rows > 0.9)[:, None]
    parts = {"face": face, "hair": hair}
    free = mask & ~face & ~hair
    for name, part in _clothes(lab, _dressed(lab, body, skin, rows), rows, hip).items():
        parts[name] = part & free
        free &= ~part
    return {name: part for name, part in parts.items() if part.any()}


def to_lab(picture: np.ndarray) -> np.ndarray:
    """Return RGB uint8 as CIE L*a*b*, float32: L 0 to 100; distances are CIE76."""
    return cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def is_skin(lab: np.ndarray, cheeks: np.ndarray) -> np.ndarray:
    """Return pixels with the colour of this person's cheeks, (h, w) bool: chroma close, lightness loose (shadows)."""
    if cheeks.sum() < 10:
        return np.zeros_like(cheeks)
    middle = np.median(lab[cheeks], axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(lab[cheeks] - middle), axis=0), (9.0, 3.0, 3.0))
    away = (lab - middle) / spread
    return (np.hypot(away[..., 1], away[..., 2]) < 3.0) & (np.abs(away[..., 0]) < 3.5)


def ellipse(head: Box, shape: tuple[int, ...], centre: float, across: float, down: float) -> np.ndarray:
    """Return an ellipse in the head box: its centre at `centre` of the height, half axes as fractions of width and height."""
    x0, y0, x1, y1 = head
    y, x = np.ogrid[: shape[0], : shape[1]]
    dx = (x + 0.5 - (x0 + x1) / 2) / (across * (x1 - x0))
    dy = (y + 0.5 - y0 - centre * (y1 - y0)) / (down * (y1 - y0))
    return dx**2 + dy**2 <= 1


def _room(mask: np.ndarray, head: Box) -> np.ndarray:
    """Return where hair may be, (h, w) bool: round the head, wider and higher than its box."""
    x0, y0, x1, y1 = head
    wide, tall = 0.13 * (x1 - x0), 0.2 * (y1 - y0)
    room = np.zeros_like(mask)
    room[max(0, int(y0 - tall)) : max(0, int(y1)), max(0, int(x0 - wide)) : max(0, int(x1 + wide))] = True
    return room


def _hair(lab: np.ndarray, outline: np.ndarray, face: np.ndarray, skin: np.ndarray, head: Box) -> np.ndarray:
    """Return the part of the head's outline that is neither face nor neck, (h, w) bool, and strands of its colour at the cheeks.

    Empty if it is not uniform: a hat with a badge, or some background. A plain dark cap passes for hair.
    """
    x0, y0, x1, y1 = head
    tall, wide = y1 - y0, x1 - x0
    rest = outline & ~face
    crown = rest & ellipse(head, rest.shape, centre=0.2, across=0.4, down=0.2)
    if crown.sum() < 0.01 * tall * wide:
        return np.zeros_like(rest)
    colour = np.median(lab[crown], axis=0)
    away = _unlike(lab, colour)
    if skin.any():  # auburn hair has the colour of brown skin, but is more like itself
        of_face = np.median(lab[face & skin] if (face & skin).any() else lab[skin], axis=0)
        if _unlike(colour[None], of_face)[0] < BALD:
            return np.zeros_like(rest)
        rest &= ~(skin & (_unlike(lab, of_face) < away))
    y, x = np.mgrid[: rest.shape[0], : rest.shape[1]]
    beside = np.abs(x - (x0 + x1) / 2) > 0.25 * wide
    alike = away < 2 * SAME_COLOUR
    found = rest & ((y < y0 + 0.55 * tall) | (alike & beside))
    top = found & (y < y0 + 0.55 * tall)
    if (top & alike).sum() < HAIR_IS_ONE * top.sum() or lab[..., 0][top].std() > HAIR_IS_EVEN:
        return np.zeros_like(rest)
    return smooth(found, 0.04 * wide, crown)


def _unlike(lab: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return the distance of Lab pixels (…, 3) from a colour, (3,) or one each, (…) float32, ignoring shade and shine.

    Light times k multiplies L* + 16, a* and b* by the cube root of k alike, so that chroma is compared at one lightness;
    lightness itself counts a quarter.
    """
    scale = (colour[..., 0] + 16) / (lab[..., 0] + 16)
    da, db = lab[..., 1] * scale - colour[..., 1], lab[..., 2] * scale - colour[..., 2]
    return np.sqrt(da**2 + db**2 + (0.25 * (lab[..., 0] - colour[..., 0])) ** 2)


def smooth(mask: np.ndarray, radius: float, seed: np.ndarray) -> np.ndarray:
    """Return the piece of a mask with most of the seed, opened and closed by a disk of `radius` pixels, with holes filled."""
    side = 2 * max(1, round(radius)) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    pad = side  # closing must not depend on the picture's border
    whole = cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    whole = cv2.morphologyEx(cv2.morphologyEx(whole, cv2.MORPH_OPEN, disk), cv2.MORPH_CLOSE, disk)
    whole = whole[pad:-pad, pad:-pad]
    count, labels = cv2.connectedComponents(whole)
    touching = np.bincount(labels[seed], minlength=count)
    touching[0] = 0
    piece = (labels == touching.argmax()) & touching.any()
    outlines, _ = cv2.findContours(piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0


def opened(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return an (h, w) bool mask without parts thinner than a disk of `radius` pixels; it may continue beyond the border."""
    side = 2 * max(1, round(radius)) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disk) > 0


def largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest 8-connected component, (h, w) bool; on a tie the first by rows."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return np.zeros_like(mask)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def _dressed(lab: np.ndarray, body: np.ndarray, skin: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the body without bare skin: pixels of skin colour that are closer to the skin than to the chest.

    Empty if the chest itself has the colour of the skin: bare or in a garment of that colour, which cannot be distinguished.
    """
    chest = body & ((rows > min(SHOULDERS, (1 + _end(body, rows)) / 2)) & (rows < WAIST))[:, None]
    if not (chest.any() and skin.any()):
        return body
    known = lab[skin & ~body] if (skin & ~body).any() else lab[skin]
    of_chest, of_skin = np.median(lab[chest], axis=0), np.median(known, axis=0)
    if np.linalg.norm(of_chest - of_skin) < SAME_COLOUR:
        return np.zeros_like(body)
    to_chest, to_skin = (np.linalg.norm(lab - colour, axis=-1) for colour in (of_chest, of_skin))
    head_px = 1 / (rows[1] - rows[0])
    bare = opened(skin & (to_skin < to_chest), THIN * head_px)  # excludes the rim of a badge, which would be filled
    bare = opened(whole(bare, BADGE * head_px**2), 2 * THIN * head_px)  # includes its glare, excludes a lanyard
    return body & ~(cv2.dilate(bare.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)  # to_lab blurs the seam


def _clothes(lab: np.ndarray, body: np.ndarray, rows: np.ndarray, hip: float) -> dict[str, np.ndarray]:
    """Return upper and lower garment and shoes: a dressed body split at the waist and at the ankles.

    Without a change of colour at the waist, the upper garment ends at the hips and there is not a lower one.
    """
    head_px = 1 / (rows[1] - rows[0])
    body = whole(opened(body, THIN * head_px), BADGE * head_px**2)
    end = _end(body, rows)
    if body.sum() * (rows[1] - rows[0]) ** 2 < LEAST_CLOTH:
        return {}
    waist = _waist(lab, body, rows, hip)
    parts = {"upper": pieces(body & (rows < (waist or hip))[:, None])}
    if waist and end > waist + 0.3:
        parts["lower"] = pieces(body & ((rows >= waist) & (rows < ANKLES - 0.1))[:, None])
    if end > ANKLES and not body[-1].any():
        parts |= _shoes(lab, body, rows)
    return parts


def _end(body: np.ndarray, rows: np.ndarray) -> float:
    """Return where the picture or the mask cuts the body off, in head heights below the crown."""
    return float(rows[np.flatnonzero(body.any(1))[-1]]) if body.any() else 0.0


def whole(mask: np.ndarray, hole: float) -> np.ndarray:
    """Return a mask without holes of up to `hole` pixels: a badge or a print is part of the garment, a hand is not."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    x0, y0, wide, high, area = stats.T
    holes = (x0 > 0) & (y0 > 0) & (x0 + wide < mask.shape[1]) & (y0 + high < mask.shape[0]) & (area <= hole)
    holes[0] = False
    return mask | holes[labels]


def pieces(mask: np.ndarray) -> np.ndarray:
    """Return a mask without specks: its 8-connected components of at least a fifth of the largest one."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    return (areas >= max(1, 0.2 * areas.max()))[labels]


def _waist(lab: np.ndarray, body: np.ndarray, rows: np.ndarray, hip: float) -> float:
    """Return where the upper garment ends, in head heights; 0 without a change of colour.

    The row between WAIST and a little below the hips with the largest difference of the median colours of the half heads above
    and below.
    """
    found = []
    for row in np.arange(WAIST, hip + BELOW_HIPS, 0.05):
        above, below = (body & ((rows > a) & (rows <= a + 0.5))[:, None] for a in (row - 0.5, row))
        if min(above.sum(), below.sum()) >= 20:
            found.append((_change(lab[above], lab[below]), float(row)))
    best = max((change for change, _ in found), default=0.0)
    if best <= SAME_COLOUR:
        return 0.0
    return float(np.mean([row for change, row in found if change >= 0.97 * best]))  # medians flatten the peak


def _shoes(lab: np.ndarray, body: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the area below the ankles, if its colour differs from that of the shins."""
    feet = body & (rows > ANKLES)[:, None]
    shins = body & ((rows > KNEES) & (rows < ANKLES - 0.3))[:, None]
    if min(feet.sum(), shins.sum()) < 20:
        return {}
    return {"shoes": feet} if _change(lab[feet], lab[shins]) > SAME_COLOUR else {}


def _change(one: np.ndarray, other: np.ndarray) -> float:
    """Return the distance of the median colours of two sets of (n, 3) Lab pixels, ignoring shade: see `_unlike`.

    Between two vivid colours hue decides: gloss and dust alter the chroma of one cloth.
    """
    a, b = np.median(one, axis=0), np.median(other, axis=0)
    chroma = np.hypot(a[1], a[2]), np.hypot(b[1], b[2])
    if min(chroma) > VIVID:
        b = b * (1, chroma[0] / chroma[1], chroma[0] / chroma[1])
        return float(np.hypot(np.linalg.norm((a - b)[1:]), 0.25 * (chroma[0] - chroma[1])))
    return float(_unlike(a[None], b)[0])
