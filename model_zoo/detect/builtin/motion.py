"""The background of a shot: the temporal median after camera motion is compensated."""

from collections.abc import Sequence

import cv2
import numpy as np

MIN_DIFFERENCE = 25  # grey levels by which a moving pixel differs from the plate
MIN_EDGE_RATIO = 1.3  # factor by which an edge must be stronger to count
SHADOW_RANGE = 0.4, 1.05  # brightness of a shadow, as a fraction of the plate's
MAX_STATIC_SHIFT_PX = 1.0  # mean motion of the corners below which the camera counts as static


def camera_homographies(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each picture of a shot the homography, (3, 3) float64, that maps it to the middle one.

    All are identities for a static camera.
    """
    height, width = pictures[0].shape[:2]
    middle = len(pictures) // 2
    homographies = [np.eye(3) if t == middle else find_homography(p, pictures[middle]) for t, p in enumerate(pictures)]
    # the others followed a moving person
    if np.mean([corner_shift(h, width, height) < MAX_STATIC_SHIFT_PX for h in homographies]) > 0.5:
        return [np.eye(3) for _ in pictures]
    return homographies


def warp_to_view(
    pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], index: int, outside: int | None = None
) -> list[np.ndarray]:
    """Return the pictures of a shot warped to the camera of picture `index`.

    outside: value where they show nothing; None for that of picture `index`.
    """
    height, width = pictures[index].shape[:2]
    to_view = np.linalg.inv(views[index])
    out = []
    for picture, view in zip(pictures, views, strict=True):
        homography = to_view @ view
        if corner_shift(homography, width, height) < 1e-6:
            out.append(picture)
        else:
            canvas = pictures[index].copy() if outside is None else np.full_like(pictures[index], outside)
            out.append(
                cv2.warpPerspective(picture, homography, (width, height), canvas, borderMode=cv2.BORDER_TRANSPARENT)
            )
    return out


def background_plates(pictures: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each (h, w, 3) uint8 picture of a shot the picture without moving objects, from the same camera.

    The pictures are warped to the middle one by their views (see `camera_homographies`), their median is taken over the visible
    pixels, and warped back; `without_lingering_objects` removes objects that cover a place more than half the time. Where no
    other picture shows the place, and for a shot of fewer than 3 pictures, the plate is the picture itself: no motion is known.
    """
    if len(pictures) < 3:
        return [p.copy() for p in pictures]
    height, width = pictures[0].shape[:2]
    if all(np.array_equal(view, np.eye(3)) for view in views):
        plate = without_lingering_objects(
            np.median(np.stack(pictures), axis=0).astype(np.uint8), pictures[0], pictures[-1]
        )
        return [plate] * len(pictures)
    warped = np.stack([cv2.warpPerspective(p, h, (width, height)) for p, h in zip(pictures, views, strict=True)])
    white = np.full((height, width), 255, np.uint8)
    is_visible = np.stack([cv2.warpPerspective(white, h, (width, height)) > 254 for h in views])
    stack = np.ma.array(warped, mask=~np.repeat(is_visible[..., None], 3, axis=3))
    first, last = is_visible.argmax(0), len(is_visible) - 1 - is_visible[::-1].argmax(0)
    ends = (np.take_along_axis(warped, end[None, ..., None], 0)[0] for end in (first, last))
    plate = without_lingering_objects(np.ma.median(stack, axis=0).filled(0).astype(np.uint8), *ends)
    is_known = (np.sum(is_visible, axis=0) >= 3).astype(np.uint8) * 255
    out = []
    for picture, h in zip(pictures, views, strict=True):
        from_middle = np.linalg.inv(h)
        in_view = cv2.warpPerspective(is_known, from_middle, (width, height)) > 254
        out.append(np.where(in_view[..., None], cv2.warpPerspective(plate, from_middle, (width, height)), picture))
    return out


def without_lingering_objects(median: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the median of a shot without objects that cover a place for most of it, but not from first to last.

    Where both ends show the same, it is background. Where the median agrees with one end and the other end differs, the other is
    the background if the outline of that place is an edge in the one and not in the other.
    """
    kernel = np.ones((3, 3), np.uint8)
    plate = median.copy()
    ends_differ = difference(first, last) > MIN_DIFFERENCE
    is_covered = (difference(median, first) > MIN_DIFFERENCE) & ~ends_differ
    plate[cv2.dilate(is_covered.astype(np.uint8), kernel) > 0] = first[
        cv2.dilate(is_covered.astype(np.uint8), kernel) > 0
    ]
    for end, other in ((first, last), (last, first)):
        like_end = ends_differ & (difference(median, end) <= MIN_DIFFERENCE)
        count, labels = cv2.connectedComponents(cv2.morphologyEx(like_end.astype(np.uint8), cv2.MORPH_OPEN, kernel))
        for i in range(1, count):
            blob = labels == i
            if edge(end, blob) > MIN_EDGE_RATIO * edge(other, blob):
                dilated = cv2.dilate(blob.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0  # including its soft rim
                plate[dilated] = other[dilated]
    return plate


def difference(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Return how far each pixel is from the plate, (h, w) uint8: the largest difference of the three channels, smoothed."""
    red, green, blue = cv2.split(cv2.GaussianBlur(cv2.absdiff(picture, plate), (0, 0), 1.2))
    return cv2.max(cv2.max(red, green), blue)


def is_foreground(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Return the pixels that differ from the plate by more than noise or a shadow, (h, w) bool.

    A shadow multiplies all channels by the same factor.
    """
    pixels, background = picture.astype(np.float32), plate.astype(np.float32)
    factor = (pixels * background).sum(2) / np.maximum(1, (background * background).sum(2))
    residual = np.abs(pixels - factor[..., None] * background).max(2)
    shadow = (residual < MIN_DIFFERENCE / 2) & (factor > SHADOW_RANGE[0]) & (factor < SHADOW_RANGE[1])
    return cv2.medianBlur(((np.abs(pixels - background).max(2) > MIN_DIFFERENCE) & ~shadow).astype(np.uint8), 3) > 0


def is_present(picture: np.ndarray, plate: np.ndarray, blob: np.ndarray) -> bool:
    """Return whether the blob's outline is an edge of the picture rather than of the plate; otherwise something has left it."""
    return edge(picture, blob) > edge(plate, blob)


def edge(picture: np.ndarray, blob: np.ndarray) -> float:
    """Return the edge strength of a blob's outline in a picture: the mean magnitude of the Laplacian there."""
    ring = cv2.morphologyEx(blob.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=3)[ring]).mean())


def find_homography(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the homography, (3, 3) float64, that maps a picture to another of the same scene; the identity if none fits.

    Corners matched by ORB with RANSAC consensus, and again among the outliers, since the first consensus may be a person's. Of
    the two and the identity, the one that leaves the fewest pixels unlike is returned. Deterministic.
    """
    if (
        _mismatch(picture, other, np.eye(3)) <= 0
    ):  # nothing can leave fewer: no corners are matched where the camera stands
        return np.eye(3)
    orb = cv2.ORB.create(600, fastThreshold=10)
    (points, descriptors), (others, other_descriptors) = (
        orb.detectAndCompute(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), None) for p in (picture, other)
    )
    if descriptors is None or other_descriptors is None:
        return np.eye(3)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(descriptors, other_descriptors)
    a = np.array([points[m.queryIdx].pt for m in matches])
    b = np.array([others[m.trainIdx].pt for m in matches])
    candidates: list[np.ndarray] = [np.eye(3)]
    for _ in range(2):
        if len(a) < 12:
            break
        cv2.setRNGSeed(0)
        homography, inliers = cv2.findHomography(a, b, cv2.RANSAC, 2.0)
        if homography is None or inliers.sum() < 12:
            break
        if 0.5 < np.linalg.det(homography) < 2:
            candidates.append(homography)
        a, b = a[inliers[:, 0] == 0], b[inliers[:, 0] == 0]
    return min(candidates, key=lambda h: _mismatch(picture, other, h))


def _mismatch(picture: np.ndarray, other: np.ndarray, homography: np.ndarray) -> float:
    """Return the fraction of unlike pixels when one picture is warped to the other, slightly less for the identity.

    Compared is the border of the picture without its lower side: moving people are in the middle or below.
    """
    height, width = picture.shape[:2]
    rim = np.ones((height, width), bool)
    rim[height // 6 :, width // 6 : -(width // 6)] = False
    compared = rim & (cv2.warpPerspective(np.full((height, width), 255, np.uint8), homography, (width, height)) > 254)
    if compared.sum() < 0.3 * rim.sum():
        return 1.0
    fraction = (difference(cv2.warpPerspective(picture, homography, (width, height)), other)[compared] > 12).mean()
    return float(fraction - 0.005 * np.array_equal(homography, np.eye(3)))


def corner_shift(homography: np.ndarray, width: int, height: int) -> float:
    """Return by how many pixels a homography moves the corners of a picture, on average."""
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    return float(np.linalg.norm(cv2.perspectiveTransform(corners, homography) - corners, axis=2).mean())
