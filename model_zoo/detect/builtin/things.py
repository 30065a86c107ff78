"""Objects without classes: motion against the rest of the shot, and contrast with the border of the picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.detect.builtin.motion import MIN_DIFFERENCE, difference, is_foreground, is_present, warp_to_view
from model_zoo.detect.builtin.prints import Head

MIN_CONTRAST = 16.0  # distance in CIE Lab from which a colour is not one of the border's
MAX_CONTRAST_FRACTION = 0.35  # fraction of the picture in contrast from which no object stands out
MIN_SEPARATION = 0.9  # separation from its surroundings from which a static object counts
MIN_CORRELATION = 0.6  # correlation from which an object is found again
MIN_AREA, MAX_AREA = 0.004, 0.4  # size of an object, fraction of the picture
MIN_CHANGED_FRACTION = 0.4  # fraction of an object's pixels that differ once it has gone
MIN_TRAVEL = 0.25  # distance, in its own sizes, that an object must move to count
MIN_PEOPLE_OVERLAP = 0.1  # fraction of an object in front of people from which it is tracked by appearance
MAX_PERSON_OVERLAP = 0.3  # largest fraction of an object within a person's usual outline when first seen
ARM_REACH = 3.2  # face sides from a head's centre within which what moves with it is the person's
HAT_HEIGHT = 1.5  # face sides from a head's centre to the top of a hat
MIN_HEAD_TRAVEL = 0.5  # face sides that the head must move for this test
MIN_PERSON_COVER = 0.3  # fraction of the people in a picture
MIN_PEOPLE_FRACTION = 0.3  # fraction of an object's pictures that must show people for it to be one of them
MIN_MISSING = 0.02  # fraction of an object that its mask must lack to be drawn again
NEAR_PX = 3  # distance from a person's mask within which motion is their own rim

Masks = list[np.ndarray | None]


def colour_distance(picture: np.ndarray, background_mask: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's colour from the nearest of the background's 8 main colours, (h, w) float32 in CIE Lab.

    background_mask: (h, w) bool with at least one pixel.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    samples = lab[background_mask]
    samples = samples[:: max(1, len(samples) // 2000)]
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 10, 1.0)
    _, _, colours = cv2.kmeans(
        samples, min(8, len(samples)), np.zeros((len(samples), 1), np.int32), criteria, 1, cv2.KMEANS_PP_CENTERS
    )
    return np.sqrt(np.min([((lab - colour) ** 2).sum(2) for colour in colours], axis=0))


def contrast(picture: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's colour from the colours along the picture's border, (h, w) float32 in CIE Lab units.

    After Wei et al. 2012, "Geodesic saliency using background priors": what touches the border is background.
    """
    border = np.ones(picture.shape[:2], bool)
    border[3:-3, 3:-3] = False
    return colour_distance(picture, border)


def moving_objects(
    pictures: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    plates: Sequence[np.ndarray],
    people: Sequence[np.ndarray],
    outlines: Sequence[np.ndarray],
) -> list[Masks]:
    """Return the moving objects of a shot, each a list of its (h, w) bool mask in each small picture, None where it is lost.

    views, plates: see motion. people: (h, w) bool, the masks of people; outlines: the same by their proportions alone. An object
    is first seen beside both, since what is below a head is the person's; from there it is tracked by appearance and motion, in
    front of them too. What does not move relative to the background is a hole in the plate.
    """
    tracks: list[Masks] = []
    for t, (picture, plate, body) in enumerate(zip(pictures, plates, people, strict=True)):
        for track in tracks:
            _track_before_people(pictures, plates, track, t, body)
        for mask in moving_masks(
            picture, plate, np.any([body, *(m for track in tracks if (m := track[t]) is not None)], axis=0)
        ):
            matching = [track for track in tracks if track[t] is None and _is_same_object(pictures, track, t, mask)]
            if matching:
                matching[0][t] = mask
            elif (mask & outlines[t]).sum() < MAX_PERSON_OVERLAP * mask.sum():
                tracks.append([mask if u == t else None for u in range(len(pictures))])
    persistent = [track for track in tracks if sum(mask is not None for mask in track) >= min(2, len(pictures))]
    for track in persistent:
        _fill_gaps(pictures, plates, track)
    return [
        track
        for track in persistent
        if len(pictures) < 3 or (_is_displaced(track, views) and _uncovers_background(track, pictures, views))
    ]


def _uncovers_background(track: Masks, pictures: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> bool:
    """Return whether the other pictures show something else at the object's first position, and at its last.

    Three quarters of them, on MIN_CHANGED_FRACTION of it: an edge left by the camera's motion, or a shadow, is in all of them.
    """
    visible = [t for t, mask in enumerate(track) if mask is not None]
    for t in (visible[0], visible[-1]):
        core = cv2.erode(np.asarray(track[t], np.uint8), np.ones((3, 3), np.uint8)) > 0
        if not core.any():
            return False
        warped = warp_to_view(pictures, views, t)
        changed_fractions = [
            (difference(pictures[t], other)[core] > MIN_DIFFERENCE).mean() for u, other in enumerate(warped) if u != t
        ]
        if np.quantile(changed_fractions, 0.25) < MIN_CHANGED_FRACTION:
            return False
    return True


def _is_displaced(track: Masks, views: Sequence[np.ndarray]) -> bool:
    """Return whether an object is ever as far from its background position as MIN_TRAVEL of its size."""
    centroids, sizes = [], []
    for mask, view in zip(track, views, strict=True):
        if mask is not None:
            centroids.append(cv2.perspectiveTransform(np.array([[_centroid(mask)]]), view)[0, 0])
            sizes.append(np.sqrt(mask.sum()))
    distances = np.linalg.norm(np.array(centroids)[:, None] - np.array(centroids)[None], axis=2)
    return bool(distances.max() >= MIN_TRAVEL * np.median(sizes))


def moving_masks(picture: np.ndarray, plate: np.ndarray, people: np.ndarray, max_count: int = 4) -> list[np.ndarray]:
    """Return masks of up to `max_count` objects in a small picture that are neither in the plate nor on people, largest first."""
    near = cv2.dilate(people.astype(np.uint8), np.ones((2 * NEAR_PX + 1,) * 2, np.uint8)) > 0
    is_moving = (difference(picture, plate) > MIN_DIFFERENCE) & ~near
    candidates = [b for b in blobs(is_moving) if is_present(picture, plate, b)]
    masks: list[np.ndarray] = []
    occupied = people
    for blob in sorted(candidates, key=lambda b: (-int(b.sum()), int(np.argmax(b))))[:max_count]:
        mask = _cut_blob(picture, blob, occupied) & ~occupied
        if _is_object_shaped(mask, blob, on_border=0.3):
            occupied = occupied | mask
            masks.append(mask)
    return masks


def still_masks(picture: np.ndarray, occupied: np.ndarray, max_count: int = 2) -> list[np.ndarray]:
    """Return masks of objects in contrast with the border of a small picture and their surroundings, largest first.

    occupied: (h, w) bool, where people and moving objects are. More than `max_count` objects are furniture: none is returned.
    """
    excluded = cv2.dilate(occupied.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    has_contrast = (contrast(picture) > MIN_CONTRAST) & ~excluded
    if has_contrast.mean() > MAX_CONTRAST_FRACTION:
        return []
    candidates = [
        b for b in blobs(has_contrast) if _on_border(b) == 0 and separation(picture, b) >= 0.8 * MIN_SEPARATION
    ]
    if len(candidates) > max_count:
        return []
    masks = [(_cut_blob(picture, b, excluded) & ~excluded, b) for b in candidates]
    return [
        mask
        for mask, blob in masks
        if _is_object_shaped(mask, blob, on_border=0.0) and separation(picture, mask) >= MIN_SEPARATION
    ]


def _is_same_object(pictures: Sequence[np.ndarray], track: Masks, t: int, mask: np.ndarray) -> bool:
    """Return whether the mask in picture t is where the object is found again or was heading, as for a rolling ball."""
    last, last_mask = next((u, m) for u in reversed(range(t)) if (m := track[u]) is not None)
    predictions = [_match_template(pictures[last], last_mask, pictures[t]), _extrapolate(track, t)]
    return any(
        predicted is not None and (predicted & mask).sum() > 0.3 * (predicted | mask).sum() for predicted in predictions
    )


def moves_with_head(track: Masks, person: Sequence[Head | None]) -> bool:
    """Return whether an object moves with the head above it, such as a coat that was not assigned to the person."""
    pairs = [
        (_centroid(mask), head)
        for mask, head in zip(track, person, strict=True)
        if mask is not None and head is not None
    ]
    if len(pairs) < 2:
        return False
    offsets = np.array([((x - head.x) / head.side, (y - head.y) / head.side) for (x, y), head in pairs])
    head_path = np.array([(head.x / head.side, head.y / head.side) for _, head in pairs])
    is_below = np.abs(offsets[:, 0]).max() < ARM_REACH and offsets[:, 1].min() > 0
    return bool(
        is_below
        and np.ptp(head_path, axis=0).max() > MIN_HEAD_TRAVEL
        and np.ptp(offsets, axis=0).max() < 0.3 * np.ptp(head_path, axis=0).max()
    )


def is_on_heads(track: Masks, people: Sequence[Sequence[Head | None]]) -> bool:
    """Return whether the centre of an object is on a head or hat in most of its pictures."""
    on_head = [
        any(
            abs(x - head.x) < head.side and -HAT_HEIGHT * head.side < y - head.y < head.side / 2
            for person in people
            if (head := person[t]) is not None
        )
        for t, mask in enumerate(track)
        if mask is not None
        for x, y in [_centroid(mask)]
    ]
    return 2 * sum(on_head) > len(on_head)


def is_person(track: Masks, people: Sequence[np.ndarray]) -> bool:
    """Return whether an object is a person: it covers MIN_PERSON_COVER of the people in most of the pictures that show both.

    These must be MIN_PEOPLE_FRACTION of its pictures: a face that is seen for a moment on a rocket does not make it a person.
    """
    visible = [(mask, body) for mask, body in zip(track, people, strict=True) if mask is not None]
    covered_fractions = [(mask & body).sum() / body.sum() for mask, body in visible if body.any()]
    return (
        len(covered_fractions) > MIN_PEOPLE_FRACTION * len(visible)
        and float(np.median(covered_fractions)) > MIN_PERSON_COVER
    )


def _extrapolate(track: Masks, t: int) -> np.ndarray | None:
    """Return the last mask before picture t, extrapolated by its last motion; None without two masks near enough."""
    visible = [u for u in range(t) if track[u] is not None][-2:]
    if len(visible) < 2 or t - visible[0] > 3:
        return None
    (x0, y0), (x1, y1) = (_centroid(track[u]) for u in visible)
    ratio = (t - visible[1]) / (visible[1] - visible[0])
    last = track[visible[1]]
    assert last is not None
    return _translate(last, ratio * (x1 - x0), ratio * (y1 - y0))


def _centroid(mask: np.ndarray | None) -> tuple[float, float]:
    ys, xs = np.nonzero(np.asarray(mask))
    return float(xs.mean()), float(ys.mean())


def _translate(mask: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return a mask shifted by whole pixels."""
    matrix = np.array([[1.0, 0, round(x)], [0, 1, round(y)]])
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def _fill_gaps(pictures: Sequence[np.ndarray], plates: Sequence[np.ndarray], track: Masks) -> None:
    """Track an object into the pictures where it was not cut out, forwards and then backwards, and cut it out there."""
    steps = [(t, t - 1) for t in range(1, len(track))] + [(t, t + 1) for t in reversed(range(len(track) - 1))]
    for t, other in steps:
        if track[t] is None and (neighbour := track[other]) is not None:
            predicted = _match_template(pictures[other], neighbour, pictures[t])
            if predicted is not None and (difference(pictures[t], plates[t])[predicted] > MIN_DIFFERENCE).mean() > 0.5:
                track[t] = _refine_mask(pictures[t], predicted)


def _track_before_people(
    pictures: Sequence[np.ndarray], plates: Sequence[np.ndarray], track: Masks, t: int, people: np.ndarray
) -> None:
    """Follow an object of picture t - 1 into picture t if it is in front of people there, whose masks have a part of it."""
    if t == 0 or (previous := track[t - 1]) is None:
        return
    predicted = _match_template(pictures[t - 1], previous, pictures[t])
    if predicted is None or (predicted & people).sum() <= MIN_PEOPLE_OVERLAP * predicted.sum():
        return
    if (difference(pictures[t], plates[t])[predicted] > MIN_DIFFERENCE).mean() > 0.5:
        track[t] = _refine_mask(pictures[t], predicted)


def _match_template(before: np.ndarray, mask: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Return the mask at the object's new position, by normalised cross-correlation within its own size; None if it is lost."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    margin = max(*before[box].shape[:2])
    top, left = max(0, ys[0] - margin), max(0, xs[0] - margin)
    search_area = after[top : ys[-1] + 1 + margin, left : xs[-1] + 1 + margin]
    template_mask = np.repeat(mask[box][..., None], 3, axis=2).astype(np.float32)
    scores = cv2.matchTemplate(
        search_area.astype(np.float32), before[box].astype(np.float32), cv2.TM_CCOEFF_NORMED, mask=template_mask
    )
    scores[~np.isfinite(scores)] = -1  # a flat area has no correlation
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    if best < MIN_CORRELATION:
        return None
    return _translate(mask, x + left - xs[0], y + top - ys[0])


def complete_masks(
    pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], track: Masks, others: Sequence[np.ndarray]
) -> Masks:
    """Return the masks of a moving object with the parts that GrabCut took for background because of their colour.

    A part is what surely differs from what the pictures in which the object is elsewhere show there. others: (h, w) bool, people
    and other objects in each picture.
    """
    completed = list(track)
    dilated = [_dilated(mask, 0.15) if mask is not None else np.zeros(pictures[0].shape[:2], bool) for mask in track]
    covered = [(mask | other).astype(np.uint8) * 255 for mask, other in zip(dilated, others, strict=True)]
    for t, mask in enumerate(track):
        if mask is None:
            continue
        is_visible = [c < 1 for c in warp_to_view(covered, views, t, outside=255)]
        stack = np.ma.array(
            np.stack(warp_to_view(pictures, views, t)), mask=~np.repeat(np.stack(is_visible)[..., None], 3, axis=3)
        )
        background = np.ma.median(stack, axis=0).filled(0)
        is_stable = (np.abs(stack - background).max(0).max(2).filled(255) < MIN_DIFFERENCE) & (
            np.sum(is_visible, axis=0) >= 2
        )
        missing = is_foreground(pictures[t], background.astype(np.uint8)) & is_stable & dilated[t] & ~others[t]
        if (missing & ~mask).sum() > MIN_MISSING * mask.sum():
            completed[t] = grabcut.clean(mask | missing, mask)
    return completed


def _dilated(mask: np.ndarray, fraction: float) -> np.ndarray:
    """Return a mask dilated by a fraction of its longer side."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = 2 * max(2, round(fraction * max(np.ptp(ys), np.ptp(xs)))) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _refine_mask(picture: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mask aligned to the picture's edges, within two pixels of a predicted mask."""
    kernel = np.ones((5, 5), np.uint8)
    inner, outer = cv2.erode(predicted.astype(np.uint8), kernel) > 0, cv2.dilate(predicted.astype(np.uint8), kernel) > 0
    hints = np.where(inner, grabcut.SURE_FORE, np.where(outer, grabcut.MAYBE_BACK, grabcut.SURE_BACK)).astype(np.uint8)
    hints[predicted & ~inner] = grabcut.MAYBE_FORE
    area = _padded_box(predicted, 8)
    refined = np.zeros(predicted.shape, bool)
    refined[area] = grabcut.clean(grabcut.cut(np.ascontiguousarray(picture[area]), hints[area]), inner[area])
    return refined if refined.any() else predicted


def _padded_box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
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
    area_fractions = stats[:, cv2.CC_STAT_AREA] / mask.size
    return [labels == i for i in range(1, count) if MIN_AREA <= area_fractions[i] <= MAX_AREA]


def _on_border(mask: np.ndarray) -> float:
    """Return the fraction of the mask's outline on the picture's border."""
    edges = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    outline = cv2.morphologyEx(np.pad(mask, 1).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)).sum()
    return float(edges / max(1, outline))


def _cut_blob(picture: np.ndarray, blob: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Run GrabCut around a blob: its inside is certain, its surroundings unknown, everything far or forbidden background."""
    ys, xs = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    margin = max(4, round(0.2 * max(np.ptp(ys), np.ptp(xs))))
    area = _padded_box(blob, margin)
    core = cv2.distanceTransform(blob.astype(np.uint8), cv2.DIST_L2, 3)
    may_extend = cv2.dilate(blob.astype(np.uint8), np.ones((2 * (margin // 2) + 1,) * 2, np.uint8)) > 0
    hints = np.where(may_extend, grabcut.MAYBE_BACK, grabcut.SURE_BACK).astype(np.uint8)
    hints[blob] = grabcut.MAYBE_FORE
    certain = core >= 0.6 * core.max()
    hints[certain] = grabcut.SURE_FORE
    hints[excluded] = grabcut.SURE_BACK
    cut_out = np.zeros(blob.shape, bool)
    cut_out[area] = grabcut.clean(
        grabcut.cut(np.ascontiguousarray(picture[area]), hints[area]), certain[area], part=0.2
    )
    return cut_out


def _is_object_shaped(mask: np.ndarray, blob: np.ndarray, on_border: float) -> bool:
    """Return whether a mask is large, compact, not too much on the border, and still at the blob's position."""
    area = int(mask.sum())
    if area < MIN_AREA * mask.size or _on_border(mask) > on_border or (mask & blob).sum() < 0.5 * blob.sum():
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
