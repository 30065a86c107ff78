"""The background of a shot: the temporal median after camera motion is compensated."""

from collections.abc import Sequence

import cv2
import numpy as np

MOVED = 25  # grey levels by which a moving pixel differs from the plate
SURELY = 1.3  # factor by which an edge must be stronger to count
SHADE = 0.4, 1.05  # brightness of a shadow, as a fraction of the plate's
STILL_PX = 1.0  # mean motion of the corners below which the camera counts as static


def camera_homographies(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each picture of a shot the homography, (3, 3) float64, that carries it over the middle one; all identities where
    the camera stands."""
    height, width = pictures[0].shape[:2]
    middle = len(pictures) // 2
    found = [np.eye(3) if t == middle else camera(p, pictures[middle]) for t, p in enumerate(pictures)]
    if np.mean([shift(h, width, height) < STILL_PX for h in found]) > 0.5:  # the rest followed a moving person
        return [np.eye(3) for _ in pictures]
    return found


def as_seen(
    pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], here: int, outside: int | None = None
) -> list[np.ndarray]:
    """Return the pictures of a shot warped to the camera of picture `here`.

    outside: value where they show nothing; None for that of picture `here`.
    """
    height, width = pictures[here].shape[:2]
    back = np.linalg.inv(views[here])
    out = []
    for picture, view in zip(pictures, views, strict=True):
        carry = back @ view
        if shift(carry, width, height) < 1e-6:
            out.append(picture)
        else:
            own = pictures[here].copy() if outside is None else np.full_like(pictures[here], outside)
            out.append(cv2.warpPerspective(picture, carry, (width, height), own, borderMode=cv2.BORDER_TRANSPARENT))
    return out


def background_plates(pictures: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each (h, w, 3) uint8 picture of a shot the picture without moving objects, from the same camera.

    The pictures are warped to the middle one by their views (see `camera_homographies`), their median is taken over the visible
    pixels, and warped back; objects that cover a place more than half the time are removed by `uncovered`. Where only this
    picture looked, and for a shot of fewer than 3 pictures, the plate is the picture itself: no motion is known there.
    """
    if len(pictures) < 3:
        return [p.copy() for p in pictures]
    height, width = pictures[0].shape[:2]
    if all(np.array_equal(view, np.eye(3)) for view in views):
        plate = uncovered(np.median(np.stack(pictures), axis=0).astype(np.uint8), pictures[0], pictures[-1])
        return [plate] * len(pictures)
    over = np.stack([cv2.warpPerspective(p, h, (width, height)) for p, h in zip(pictures, views, strict=True)])
    whole = np.full((height, width), 255, np.uint8)
    seen = np.stack([cv2.warpPerspective(whole, h, (width, height)) > 254 for h in views])
    stack = np.ma.array(over, mask=~np.repeat(seen[..., None], 3, axis=3))
    first, last = seen.argmax(0), len(seen) - 1 - seen[::-1].argmax(0)
    ends = (np.take_along_axis(over, end[None, ..., None], 0)[0] for end in (first, last))
    plate = uncovered(np.ma.median(stack, axis=0).filled(0).astype(np.uint8), *ends)
    known = (np.sum(seen, axis=0) >= 3).astype(np.uint8) * 255
    out = []
    for picture, h in zip(pictures, views, strict=True):
        back = np.linalg.inv(h)
        here = cv2.warpPerspective(known, back, (width, height)) > 254
        out.append(np.where(here[..., None], cv2.warpPerspective(plate, back, (width, height)), picture))
    return out


def uncovered(median: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the median of a shot without objects that cover a place for most of it, but not from first to last.

    Where both ends show the same, it is background. Where the median agrees with one end and the other end differs, the other is
    the background if the outline of that place is an edge in the one and not in the other.
    """
    kernel = np.ones((3, 3), np.uint8)
    plate = median.copy()
    ends_differ = difference(first, last) > MOVED
    passed = (difference(median, first) > MOVED) & ~ends_differ
    plate[cv2.dilate(passed.astype(np.uint8), kernel) > 0] = first[cv2.dilate(passed.astype(np.uint8), kernel) > 0]
    for end, other in ((first, last), (last, first)):
        like_end = ends_differ & (difference(median, end) <= MOVED)
        count, labels = cv2.connectedComponents(cv2.morphologyEx(like_end.astype(np.uint8), cv2.MORPH_OPEN, kernel))
        for i in range(1, count):
            blob = labels == i
            if edge(end, blob) > SURELY * edge(other, blob):
                grown = cv2.dilate(blob.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0  # including its soft rim
                plate[grown] = other[grown]
    return plate


def difference(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Return how far each pixel is from the plate, (h, w) uint8: the largest difference of the three channels, smoothed."""
    red, green, blue = cv2.split(cv2.GaussianBlur(cv2.absdiff(picture, plate), (0, 0), 1.2))
    return cv2.max(cv2.max(red, green), blue)


def surely_moved(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Return the pixels that differ from the plate by more than noise or a shadow, (h, w) bool.

    A shadow multiplies all channels by the same factor.
    """
    seen, was = picture.astype(np.float32), plate.astype(np.float32)
    factor = (seen * was).sum(2) / np.maximum(1, (was * was).sum(2))
    rest = np.abs(seen - factor[..., None] * was).max(2)
    shadow = (rest < MOVED / 2) & (factor > SHADE[0]) & (factor < SHADE[1])
    return cv2.medianBlur(((np.abs(seen - was).max(2) > MOVED) & ~shadow).astype(np.uint8), 3) > 0


def is_here(picture: np.ndarray, plate: np.ndarray, blob: np.ndarray) -> bool:
    """Return whether the blob's outline is an edge of the picture rather than of the plate; otherwise something has left it."""
    return edge(picture, blob) > edge(plate, blob)


def edge(picture: np.ndarray, blob: np.ndarray) -> float:
    """Return the edge strength of a blob's outline in a picture: the mean magnitude of the Laplacian there."""
    ring = cv2.morphologyEx(blob.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=3)[ring]).mean())


def camera(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the homography, (3, 3) float64, that maps a picture to another of the same scene; the identity if none fits.

    Corners matched by ORB with RANSAC consensus, and again among the outliers, since the first consensus may be a person's. Of
    the two and the identity, the one that leaves the fewest pixels unlike is returned. Deterministic.
    """
    if (
        _unlike(picture, other, np.eye(3)) <= 0
    ):  # nothing can leave fewer: no corners are matched where the camera stands
        return np.eye(3)
    orb = cv2.ORB.create(600, fastThreshold=10)
    (points, marks), (others, other_marks) = (
        orb.detectAndCompute(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), None) for p in (picture, other)
    )
    if marks is None or other_marks is None:
        return np.eye(3)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(marks, other_marks)
    a = np.array([points[m.queryIdx].pt for m in matches])
    b = np.array([others[m.trainIdx].pt for m in matches])
    candidates: list[np.ndarray] = [np.eye(3)]
    for _ in range(2):
        if len(a) < 12:
            break
        cv2.setRNGSeed(0)
        found, fits = cv2.findHomography(a, b, cv2.RANSAC, 2.0)
        if found is None or fits.sum() < 12:
            break
        if 0.5 < np.linalg.det(found) < 2:
            candidates.append(found)
        a, b = a[fits[:, 0] == 0], b[fits[:, 0] == 0]
    return min(candidates, key=lambda h: _unlike(picture, other, h))


def _unlike(picture: np.ndarray, other: np.ndarray, homography: np.ndarray) -> float:
    """Return the fraction of unlike pixels when one picture is warped to the other, slightly less for the identity.

    Compared is the border of the picture without its lower side: moving people are in the middle or below.
    """
    height, width = picture.shape[:2]
    rim = np.ones((height, width), bool)
    rim[height // 6 :, width // 6 : -(width // 6)] = False
    seen = rim & (cv2.warpPerspective(np.full((height, width), 255, np.uint8), homography, (width, height)) > 254)
    if seen.sum() < 0.3 * rim.sum():
        return 1.0
    share = (difference(cv2.warpPerspective(picture, homography, (width, height)), other)[seen] > 12).mean()
    return float(share - 0.005 * np.array_equal(homography, np.eye(3)))


def shift(homography: np.ndarray, width: int, height: int) -> float:
    """Return by how many pixels a homography moves the corners of a picture, on average."""
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    return float(np.linalg.norm(cv2.perspectiveTransform(corners, homography) - corners, axis=2).mean())
