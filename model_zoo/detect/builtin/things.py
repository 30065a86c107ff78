"""Objects without classes: motion against the rest of the shot, and contrast with the border of the picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.detect.builtin.motion import MOVED, as_seen, difference, is_here, surely_moved
from model_zoo.detect.builtin.prints import Head

STANDS_OUT = 16.0  # distance in CIE Lab from which a colour is not one of the border's
BUSY = 0.35  # fraction of the picture in contrast from which no object stands out
ALONE = 0.9  # separation from its surroundings from which a static object counts
LIKE_BEFORE = 0.6  # correlation from which an object is found again
SMALLEST, LARGEST = 0.004, 0.4  # size of an object, fraction of the picture
LEFT = 0.4  # fraction of an object's pixels that differ once it has gone
TRAVELS = 0.25  # distance, in its own sizes, that an object must move to count
ON_PEOPLE = 0.1  # fraction of an object in front of people from which it is followed by its looks
BESIDE = 0.3  # largest fraction of an object within a person's usual outline when first seen
ARM = 3.2  # face sides from a head's centre within which what moves with it is the person's
HAT = 1.5  # face sides from a head's centre to the top of a hat
WENT_SIDES = 0.5  # face sides that the head must move for this test
WHOLE = 0.3  # fraction of the people in a picture
TOGETHER = 0.3  # fraction of an object's pictures that must show people for it to be one of them
MISSED = 0.02  # fraction of an object that its mask must lack to be drawn again
NEAR_PX = 3  # distance from a person's mask within which motion is their own rim

Masks = list[np.ndarray | None]


def unlike(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's colour from the nearest of the background's 8 main colours, (h, w) float32 in CIE Lab.

    ground: (h, w) bool with at least one pixel.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    samples = lab[ground]
    samples = samples[:: max(1, len(samples) // 2000)]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 10, 1.0)
    _, _, colours = cv2.kmeans(
        samples, min(8, len(samples)), np.zeros((len(samples), 1), np.int32), stop, 1, cv2.KMEANS_PP_CENTERS
    )
    return np.sqrt(np.min([((lab - colour) ** 2).sum(2) for colour in colours], axis=0))


def contrast(picture: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's colour from the colours along the picture's border, (h, w) float32 in CIE Lab units.

    After Wei et al. 2012, "Geodesic saliency using background priors": what touches the border is background.
    """
    rim = np.ones(picture.shape[:2], bool)
    rim[3:-3, 3:-3] = False
    return unlike(picture, rim)


def movers(
    pictures: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    plates: Sequence[np.ndarray],
    people: Sequence[np.ndarray],
    usual: Sequence[np.ndarray],
) -> list[Masks]:
    """Return the moving objects of a shot, each a list of its (h, w) bool mask in each small picture, None where it is lost.

    views, plates: see motion. people: (h, w) bool, the masks of people; usual: the same by their proportions alone. An object is
    first seen beside both, since what is below a head is the person's; from there it is tracked by appearance and motion, in
    front of them too. What does not move relative to the background is a hole in the plate.
    """
    things: list[Masks] = []
    for t, (picture, plate, body) in enumerate(zip(pictures, plates, people, strict=True)):
        for thing in things:
            _before_people(pictures, plates, thing, t, body)
        for mask in moving_masks(
            picture, plate, np.any([body, *(m for thing in things if (m := thing[t]) is not None)], axis=0)
        ):
            mine = [thing for thing in things if thing[t] is None and _same(pictures, thing, t, mask)]
            if mine:
                mine[0][t] = mask
            elif (mask & usual[t]).sum() < BESIDE * mask.sum():
                things.append([mask if u == t else None for u in range(len(pictures))])
    lasting = [thing for thing in things if sum(mask is not None for mask in thing) >= min(2, len(pictures))]
    for thing in lasting:
        _fill(pictures, plates, thing)
    return [
        thing for thing in lasting if len(pictures) < 3 or (_travels(thing, views) and _leaves(thing, pictures, views))
    ]


def _leaves(thing: Masks, pictures: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> bool:
    """Return whether the other pictures show something else at the object's first position, and at its last.

    Three quarters of them, on LEFT of it: an edge left by the camera's motion, or a shadow, is there in all of them.
    """
    known = [t for t, mask in enumerate(thing) if mask is not None]
    for t in (known[0], known[-1]):
        inside = cv2.erode(np.asarray(thing[t], np.uint8), np.ones((3, 3), np.uint8)) > 0
        if not inside.any():
            return False
        seen = as_seen(pictures, views, t)
        shares = [(difference(pictures[t], other)[inside] > MOVED).mean() for u, other in enumerate(seen) if u != t]
        if np.quantile(shares, 0.25) < LEFT:
            return False
    return True


def _travels(thing: Masks, views: Sequence[np.ndarray]) -> bool:
    """Return whether an object is ever as far from its background position as TRAVELS of its size."""
    middles, sizes = [], []
    for mask, view in zip(thing, views, strict=True):
        if mask is not None:
            middles.append(cv2.perspectiveTransform(np.array([[_middle(mask)]]), view)[0, 0])
            sizes.append(np.sqrt(mask.sum()))
    steps = np.linalg.norm(np.array(middles)[:, None] - np.array(middles)[None], axis=2)
    return bool(steps.max() >= TRAVELS * np.median(sizes))


def moving_masks(picture: np.ndarray, plate: np.ndarray, people: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Return masks of up to `most` objects in a small picture that are neither in the plate nor on people, largest first."""
    near = cv2.dilate(people.astype(np.uint8), np.ones((2 * NEAR_PX + 1,) * 2, np.uint8)) > 0
    moves = (difference(picture, plate) > MOVED) & ~near
    found = [b for b in blobs(moves) if is_here(picture, plate, b)]
    out: list[np.ndarray] = []
    taken = people
    for blob in sorted(found, key=lambda b: (-int(b.sum()), int(np.argmax(b))))[:most]:
        mask = _cut_blob(picture, blob, taken) & ~taken
        if _is_thing(mask, blob, on_border=0.3):
            taken = taken | mask
            out.append(mask)
    return out


def still_masks(picture: np.ndarray, taken: np.ndarray, most: int = 2) -> list[np.ndarray]:
    """Return masks of objects in contrast with the border of a small picture and their surroundings, largest first.

    taken: (h, w) bool, where people and moving objects are. More than `most` of them are furniture: none is returned then.
    """
    off_limits = cv2.dilate(taken.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    stands_out = (contrast(picture) > STANDS_OUT) & ~off_limits
    if stands_out.mean() > BUSY:
        return []
    found = [b for b in blobs(stands_out) if _on_border(b) == 0 and separation(picture, b) >= 0.8 * ALONE]
    if len(found) > most:
        return []
    masks = [(_cut_blob(picture, b, off_limits) & ~off_limits, b) for b in found]
    return [mask for mask, blob in masks if _is_thing(mask, blob, on_border=0.0) and separation(picture, mask) >= ALONE]


def _same(pictures: Sequence[np.ndarray], thing: Masks, t: int, mask: np.ndarray) -> bool:
    """Return whether the mask in picture t is where the object is found again or was heading, as for a rolling ball."""
    last, before = next((u, m) for u in reversed(range(t)) if (m := thing[u]) is not None)
    guesses = [_follow(pictures[last], before, pictures[t]), _onward(thing, t)]
    return any(guess is not None and (guess & mask).sum() > 0.3 * (guess | mask).sum() for guess in guesses)


def goes_with(thing: Masks, person: Sequence[Head | None]) -> bool:
    """Return whether an object moves with the head above it, such as a coat that was not assigned to the person."""
    both = [
        (_middle(mask), head) for mask, head in zip(thing, person, strict=True) if mask is not None and head is not None
    ]
    if len(both) < 2:
        return False
    apart = np.array([((x - head.x) / head.side, (y - head.y) / head.side) for (x, y), head in both])
    way = np.array([(head.x / head.side, head.y / head.side) for _, head in both])
    below = np.abs(apart[:, 0]).max() < ARM and apart[:, 1].min() > 0
    return bool(
        below
        and np.ptp(way, axis=0).max() > WENT_SIDES
        and np.ptp(apart, axis=0).max() < 0.3 * np.ptp(way, axis=0).max()
    )


def is_on_heads(thing: Masks, people: Sequence[Sequence[Head | None]]) -> bool:
    """Return whether the centre of an object is on a head or hat in most of its pictures."""
    on = [
        any(
            abs(x - head.x) < head.side and -HAT * head.side < y - head.y < head.side / 2
            for person in people
            if (head := person[t]) is not None
        )
        for t, mask in enumerate(thing)
        if mask is not None
        for x, y in [_middle(mask)]
    ]
    return 2 * sum(on) > len(on)


def is_person(thing: Masks, people: Sequence[np.ndarray]) -> bool:
    """Return whether an object is a person: it covers WHOLE of the people in most of the pictures that show both.

    These must be TOGETHER of its pictures: a face that is seen for a moment on a rocket does not make it a person.
    """
    seen = [(mask, body) for mask, body in zip(thing, people, strict=True) if mask is not None]
    shares = [(mask & body).sum() / body.sum() for mask, body in seen if body.any()]
    return len(shares) > TOGETHER * len(seen) and float(np.median(shares)) > WHOLE


def _onward(thing: Masks, t: int) -> np.ndarray | None:
    """Return the last mask before picture t, extrapolated by its last motion; None without two masks near enough."""
    seen = [u for u in range(t) if thing[u] is not None][-2:]
    if len(seen) < 2 or t - seen[0] > 3:
        return None
    (x0, y0), (x1, y1) = (_middle(thing[u]) for u in seen)
    share = (t - seen[1]) / (seen[1] - seen[0])
    last = thing[seen[1]]
    assert last is not None
    return _moved(last, share * (x1 - x0), share * (y1 - y0))


def _middle(mask: np.ndarray | None) -> tuple[float, float]:
    ys, xs = np.nonzero(np.asarray(mask))
    return float(xs.mean()), float(ys.mean())


def _moved(mask: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return a mask shifted by whole pixels."""
    matrix = np.array([[1.0, 0, round(x)], [0, 1, round(y)]])
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def _fill(pictures: Sequence[np.ndarray], plates: Sequence[np.ndarray], thing: Masks) -> None:
    """Track an object into the pictures where it was not cut out, forwards and then backwards, and cut it out there."""
    steps = [(t, t - 1) for t in range(1, len(thing))] + [(t, t + 1) for t in reversed(range(len(thing) - 1))]
    for t, other in steps:
        if thing[t] is None and (known := thing[other]) is not None:
            guess = _follow(pictures[other], known, pictures[t])
            if guess is not None and (difference(pictures[t], plates[t])[guess] > MOVED).mean() > 0.5:
                thing[t] = _recut(pictures[t], guess)


def _before_people(
    pictures: Sequence[np.ndarray], plates: Sequence[np.ndarray], thing: Masks, t: int, people: np.ndarray
) -> None:
    """Follow an object of picture t - 1 into picture t if it is in front of people there, whose masks have a part of it."""
    if t == 0 or (known := thing[t - 1]) is None:
        return
    guess = _follow(pictures[t - 1], known, pictures[t])
    if guess is None or (guess & people).sum() <= ON_PEOPLE * guess.sum():
        return
    if (difference(pictures[t], plates[t])[guess] > MOVED).mean() > 0.5:
        thing[t] = _recut(pictures[t], guess)


def _follow(before: np.ndarray, mask: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Return the mask at the object's new position, by normalised cross-correlation within its own size; None if it is lost."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    reach = max(*before[box].shape[:2])
    top, left = max(0, ys[0] - reach), max(0, xs[0] - reach)
    field = after[top : ys[-1] + 1 + reach, left : xs[-1] + 1 + reach]
    shape = np.repeat(mask[box][..., None], 3, axis=2).astype(np.float32)
    scores = cv2.matchTemplate(
        field.astype(np.float32), before[box].astype(np.float32), cv2.TM_CCOEFF_NORMED, mask=shape
    )
    scores[~np.isfinite(scores)] = -1  # a flat area has no correlation
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    if best < LIKE_BEFORE:
        return None
    return _moved(mask, x + left - xs[0], y + top - ys[0])


def completed(
    pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], thing: Masks, others: Sequence[np.ndarray]
) -> Masks:
    """Return the masks of a moving object with the parts that GrabCut took for background because of their colour.

    A part is what surely differs from what the pictures in which the object is elsewhere show there. others: (h, w) bool, people
    and other objects in each picture.
    """
    out = list(thing)
    far = [_grown(mask, 0.15) if mask is not None else np.zeros(pictures[0].shape[:2], bool) for mask in thing]
    covered = [(mask | other).astype(np.uint8) * 255 for mask, other in zip(far, others, strict=True)]
    for t, mask in enumerate(thing):
        if mask is None:
            continue
        over = [c < 1 for c in as_seen(covered, views, t, outside=255)]
        shown = np.ma.array(
            np.stack(as_seen(pictures, views, t)), mask=~np.repeat(np.stack(over)[..., None], 3, axis=3)
        )
        bare = np.ma.median(shown, axis=0).filled(0)
        steady = (np.abs(shown - bare).max(0).max(2).filled(255) < MOVED) & (np.sum(over, axis=0) >= 2)
        parts = surely_moved(pictures[t], bare.astype(np.uint8)) & steady & far[t] & ~others[t]
        if (parts & ~mask).sum() > MISSED * mask.sum():
            out[t] = grabcut.clean(mask | parts, mask)
    return out


def _grown(mask: np.ndarray, share: float) -> np.ndarray:
    """Return a mask dilated by a fraction of its longer side."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = 2 * max(2, round(share * max(np.ptp(ys), np.ptp(xs)))) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _recut(picture: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return the mask aligned to the picture's edges, within two pixels of a guess."""
    kernel = np.ones((5, 5), np.uint8)
    inner, outer = cv2.erode(guess.astype(np.uint8), kernel) > 0, cv2.dilate(guess.astype(np.uint8), kernel) > 0
    hints = np.where(inner, grabcut.SURE_FORE, np.where(outer, grabcut.MAYBE_BACK, grabcut.SURE_BACK)).astype(np.uint8)
    hints[guess & ~inner] = grabcut.MAYBE_FORE
    area = _around(guess, 8)
    out = np.zeros(guess.shape, bool)
    out[area] = grabcut.clean(grabcut.cut(np.ascontiguousarray(picture[area]), hints[area]), inner[area])
    return out if out.any() else guess


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return the mask's box and a margin, as slices."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(max(0, ys[0] - margin), ys[-1] + margin + 1), slice(max(0, xs[0] - margin), xs[-1] + margin + 1)


def blobs(mask: np.ndarray) -> list[np.ndarray]:
    """Return the connected pieces of a mask that are neither too small nor too large, closed."""
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    share = stats[:, cv2.CC_STAT_AREA] / mask.size
    return [labels == i for i in range(1, count) if SMALLEST <= share[i] <= LARGEST]


def _on_border(mask: np.ndarray) -> float:
    """Return the fraction of the mask's outline on the picture's border."""
    edges = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    outline = cv2.morphologyEx(np.pad(mask, 1).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)).sum()
    return float(edges / max(1, outline))


def _cut_blob(picture: np.ndarray, blob: np.ndarray, forbidden: np.ndarray) -> np.ndarray:
    """Run GrabCut around a blob: its inside is certain, its surroundings unknown, everything far or forbidden background."""
    ys, xs = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    margin = max(4, round(0.2 * max(np.ptp(ys), np.ptp(xs))))
    area = _around(blob, margin)
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


def _is_thing(mask: np.ndarray, blob: np.ndarray, on_border: float) -> bool:
    """Return whether a mask is large, compact, not too much on the border, and still at the blob's position."""
    area = int(mask.sum())
    if area < SMALLEST * mask.size or _on_border(mask) > on_border or (mask & blob).sum() < 0.5 * blob.sum():
        return False
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    sides = cv2.minAreaRect(hull)[1]
    return area >= 0.5 * cv2.contourArea(hull) and min(sides) >= 0.25 * max(sides)


def separation(picture: np.ndarray, mask: np.ndarray) -> float:
    """Return the distance of the object's colours from those just around it, 0 to 1 (Bhattacharyya, of the two histograms)."""
    ring = (cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~mask
    inside, outside = (
        cv2.calcHist([picture], [0, 1, 2], part.astype(np.uint8), [6, 6, 6], [0, 256] * 3) for part in (mask, ring)
    )
    return float(cv2.compareHist(inside, outside, cv2.HISTCMP_BHATTACHARYYA))
